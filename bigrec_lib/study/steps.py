"""The heavy cells of 02 and 03 as functions, which the batch also calls in several processes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bigrec_lib.files import StudyError
from bigrec_lib.method import prepared, prompts, samples, sequences
from bigrec_lib.study import manifests

if TYPE_CHECKING:
    import pandas as pd

    from bigrec_lib.method.beams import Search, Trie
    from bigrec_lib.method.llm import LLM
    from bigrec_lib.method.prompts import Domain
    from bigrec_lib.method.samples import Sample
    from bigrec_lib.study.parameters import GenerateTitles, TuneLLM

EVERY = 20  # one general instruction in this many is held out
ROOM = 0.999  # share of the catalogue's titles that fit into a generation


def tuning_samples(p: TuneLLM, tokenizer) -> tuple[list[Sample], list[Sample]]:
    """The training samples, drawn under the seed or chosen by 13a; and those of validation."""
    if p.selection:
        train = chosen_samples(p, tokenizer)
    else:
        train = samples.training(p.folders, tokenizer, p.max_tokens, p.n_train, p.seed, p.shuffled)
    return train, samples.validation(p.folders, tokenizer, p.max_tokens, p.n_valid)


def chosen_samples(p: TuneLLM, tokenizer) -> list[Sample]:
    """The training samples of `p.selection`, in chronological order.

    Raises StudyError if 13a has chosen no such samples, or the adapter is to learn anything else.
    """
    import pandas as pd
    import pyarrow as pa
    import pyarrow.compute as pc

    if p.also or p.shuffled:
        raise StudyError("chosen samples are those of one data set, with their own answers")
    arm, draw = p.selection.split(".")
    rows = pd.read_parquet(p.selections / "selections.parquet")
    rows = rows[(rows.arm == arm) & (rows.draw == int(draw)) & (rows.budget == p.n_train)]
    if rows.empty:
        raise StudyError(
            f"13a_select_samples has not chosen {p.n_train} samples as {arm}, draw {draw}: give it "
            "this arm, budget and number of draws"
        )
    data = prepared.read(p.data)
    train = data.examples("train")
    mask = pc.is_in(train["example"], pa.array(rows.example))
    examples = train.filter(mask).to_pandas()
    return samples.samples(examples, data.titles, data.words, tokenizer, p.max_tokens)


STRANGERS = 0  # the seed under which histories are exchanged, the same for all adapters
OWN, OTHER, TOKENS = "log_likelihood", "log_likelihood_of_stranger", "answer_tokens"


def likelihoods(p: TuneLLM, tuned: LLM) -> pd.DataFrame:
    """How likely an LLM finds the true titles of the first `n_scored` test examples.

    Columns split, what, method, example, value: OWN after the user's history, OTHER after that of
    another user, both summed over the TOKENS of the answer.
    """
    import pandas as pd

    from bigrec_lib.method import answers

    data = prepared.read(p.data)
    test = data.examples("test", p.n_scored).to_pandas()
    strangers = sequences.strangers(test.user.to_numpy(), STRANGERS)
    foreign_test = test.assign(history=test.history.to_numpy()[strangers])
    frames = []
    for what, examples in {OWN: test, OTHER: foreign_test}.items():
        test_samples = samples.samples(
            examples, data.titles, data.words, tuned.tokenizer, p.max_tokens
        )
        logs, tokens = answers.log_likelihoods(tuned, test_samples, p.batch_size)
        parts = {what: logs} | ({TOKENS: tokens} if what == OWN else {})
        frames += [test[["example"]].assign(what=name, value=part) for name, part in parts.items()]
    return pd.concat(frames, ignore_index=True).assign(split="test", method="bigrec")


def tune(p: TuneLLM, base: LLM, train: Sequence[Sample], valid: Sequence[Sample]) -> pd.DataFrame:
    """Tune the adapter of `p`, after a general stage where `instructions` asks for one.

    Returns the log of the recommendation stage (`tuning.tune`). What is done is not done again.
    """
    from bigrec_lib.method import tuning

    settings = tuning.Tuning(**p.settings)
    if not p.instructions:
        return tuning.tune(base, train, valid, settings, p.adapter)
    general = p.adapter / "instructions"
    instructions = samples.instructions(Path(p.instructions), base.tokenizer, p.max_tokens)
    general_train = [sample for number, sample in enumerate(instructions) if number % EVERY]
    tuning.tune(base, general_train, instructions[::EVERY], settings, general)
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
    prompts_of = {}
    for split, n in {"valid": p.n_valid, "test": p.n_test}.items():
        examples = data.examples(split, n).to_pandas()
        split_samples = samples.samples(examples, data.titles, words, tuned.tokenizer, p.max_tokens)
        prompts_of[split] = dict(
            zip(examples.example.tolist(), [sample.prompt for sample in split_samples], strict=True)
        )
    room = p.max_new_tokens or longest
    search = beams.Search(room, p.beams, p.batch_size, p.length_penalty)
    trie = fitting_trie(answers, room) if p.constrained else None
    return Writing(tuned, data, answers, prompts_of, search, trie)


def fitting_trie(answers: Sequence[Sequence[int]], room: int) -> Trie:
    """The titles that take at most `room` tokens with their end; says how many take more.

    Raises GenerationError if all do.
    """
    from bigrec_lib.method import beams

    fitting = [answer for answer in answers if len(answer) <= room]
    if len(fitting) < len(answers):
        print(
            f"{len(answers) - len(fitting):,} of {len(answers):,} titles are left out: they take "
            f"more than max_new_tokens, which is {room}"
        )
    return beams.Trie(fitting)


def words_for(p: GenerateTitles, data: prepared.Prepared) -> Domain:
    """What the prompts of `p` call the domain.

    Raises StudyError where words that are to differ are the data set's own.
    """
    if not p.worded:
        return data.words
    wrong_words = prepared.read(p.prepared(p.words_of)).words if p.worded == "wrong" else None
    words = wrong_words or prompts.DOMAINS["items"]
    if words == data.words:
        raise StudyError(
            f"prompts of {p.dataset} already have the words {words.one!r}, {words.consumed!r}: "
            f"leave {p.worded!r} out of `worded`"
        )
    return words


def check_base(folders: Sequence[Path]) -> None:
    """Raise StudyError where 04 embedded titles with an adapter: they do not share a space then."""
    for folder in folders:
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
