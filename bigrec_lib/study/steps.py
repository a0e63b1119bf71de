"""The heavy cells of 02 and 03 as functions, which the batch also calls in several processes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bigrec_lib.files import StudyError
from bigrec_lib.method import prepared, prompts, samples
from bigrec_lib.study import manifests

if TYPE_CHECKING:
    import pandas as pd

    from bigrec_lib.method.beams import Search, Trie
    from bigrec_lib.method.llm import LLM
    from bigrec_lib.method.prompts import Domain
    from bigrec_lib.method.samples import Sample
    from bigrec_lib.study.parameters import GenerateTitles, TuneLLM

EVERY = 20  # one general instruction in so many is held out
ROOM = 0.999  # share of the catalogue's titles that fit into a generation


def tuning_samples(p: TuneLLM, tokenizer) -> tuple[list[Sample], list[Sample]]:
    """The training samples drawn under the seed, and the validation samples."""
    return (
        samples.training(p.folders, tokenizer, p.max_tokens, p.n_train, p.seed, p.shuffled),
        samples.validation(p.folders, tokenizer, p.max_tokens, p.n_valid),
    )


def tune(p: TuneLLM, base: LLM, train: Sequence[Sample], valid: Sequence[Sample]) -> pd.DataFrame:
    """Tune the adapter of `p`, after a general stage where `instructions` asks for one.

    Returns the log of the recommendation stage (`tuning.tune`). What is done is not done again.
    """
    from bigrec_lib.method import tuning

    settings = tuning.Tuning(**p.settings)
    if not p.instructions:
        return tuning.tune(base, train, valid, settings, p.adapter)
    general = p.adapter / "instructions"
    told = samples.instructions(Path(p.instructions), base.tokenizer, p.max_tokens)
    first = [sample for number, sample in enumerate(told) if number % EVERY]
    tuning.tune(base, first, told[::EVERY], settings, general)
    return tuning.tune(base, train, valid, settings, p.adapter, start=general)


def load(p: TuneLLM | GenerateTitles, adapter: Path | None = None) -> LLM:
    """The LLM of `p`, with an adapter if one is named."""
    from bigrec_lib.method import llm

    return llm.load_llm(p.model, p.quantisation, p.dtype, p.device, adapter=adapter)


@dataclass(frozen=True)
class Writing:
    """What 03 generates with.

    answers: the tokens of every title. prompts: split -> example -> prompt.
    trie: the only answers that may come out; None for any.
    """

    tuned: LLM
    data: prepared.Prepared
    answers: list[list[int]]
    prompts: dict[str, dict[int, str]]
    search: Search
    trie: Trie | None


def open_writing(p: GenerateTitles) -> Writing:
    """Load the tuned LLM, write every prompt, and decide how long a generation may become."""
    from bigrec_lib.method import beams

    data = prepared.read(p.data)
    words = words_for(p, data)
    tuned = load(p, p.adapter)
    answers = beams.answer_tokens(tuned.tokenizer, data.titles)
    longest = beams.room_for(answers, 1.0 if p.constrained else ROOM)
    told_of = {}
    for split in ("valid", "test"):
        frame = data.examples(split, p.n_valid if split == "valid" else 0).to_pandas()
        told = samples.samples(frame, data.titles, words, tuned.tokenizer, p.max_tokens)
        told_of[split] = dict(
            zip(frame.example.tolist(), [sample.prompt for sample in told], strict=True)
        )
    room = p.max_new_tokens or longest
    search = beams.Search(room, p.beams, p.batch_size, p.length_penalty)
    return Writing(
        tuned, data, answers, told_of, search, beams.Trie(answers) if p.constrained else None
    )


def words_for(p: GenerateTitles, data: prepared.Prepared) -> Domain:
    """What the prompts of `p` call the domain.

    Raises StudyError where words that should be other ones are the data set's own.
    """
    if not p.worded:
        return data.words
    other = prepared.read(p.prepared(p.words_of)).words if p.worded == "wrong" else None
    words = other or prompts.DOMAINS["items"]
    if words == data.words:
        raise StudyError(
            f"prompts of {p.dataset} already have the words {words.one!r}, {words.consumed!r}: "
            f"leave {p.worded!r} out of `worded`"
        )
    return words


def check_base(grounded: Sequence[Path]) -> None:
    """Raise StudyError where 04 has embedded titles with an adapter: those are not of one space."""
    for folder in grounded:
        if manifests.read(folder)["facts"]["embedder"] != "base":
            raise StudyError(
                f"{folder}: its titles were embedded with an adapter, so vectors of several data "
                "sets are of several spaces: set embedder of 04_ground_to_items to base"
            )


def generate(
    p: GenerateTitles, writing: Writing, split: str, shard: tuple[int, int] = (1, 1)
) -> None:
    """Generate the titles of a split, or a shard of them; what is done is not done again."""
    from bigrec_lib.method import portions

    portions.generate_file(
        writing.tuned,
        writing.prompts[split],
        p.beams_of / f"{split}.parquet",
        writing.search,
        writing.trie,
        shard,
    )
