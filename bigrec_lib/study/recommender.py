"""From titles to items in one call, with a study's adapter: what 00_try_it shows.

It needs what a study has published: its catalogue, its settings and an adapter. Where the study
has run, its adapter and vectors are taken from `runs/`; a fresh clone takes the published adapter
and embeds the catalogue once, into the user's cache.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from tqdm import tqdm

from bigrec_lib.files import StudyError
from bigrec_lib.method import assets, finders, prepared, prompts
from bigrec_lib.study import manifests, provenance, publish, results, run_names, steps
from bigrec_lib.study.parameters import GenerateTitles, GroundToItems
from bigrec_lib.study.studies import ROOT

if TYPE_CHECKING:
    from bigrec_lib.method.beams import Trie
    from bigrec_lib.method.llm import LLM
    from bigrec_lib.method.prompts import Domain

OFFERED = 3  # titles that are offered in place of an unknown one
GRAMS = 3  # characters per n-gram by which titles are compared


@dataclass(frozen=True)
class Recommendation:
    """What one history led to.

    read: the titles that the prompt holds, oldest first: of a long history the newest.
    texts: the titles the LLM wrote, best first; the first is the one that is grounded.
    scores: of these texts, mean log-probabilities of their tokens.
    items: the k nearest titles, best first: columns title, distance (L2), adjusted (D̃, which
        orders them: docs/method.md, section 2), seen (whether the history has it).
    """

    read: list[str]
    texts: list[str]
    scores: list[float]
    items: pd.DataFrame


class UnknownTitle(StudyError):
    """A history holds titles that the catalogue does not have."""


@dataclass(frozen=True)
class Catalogue:
    """A data set's distinct titles (I,), their training interactions (I,) and prompts' words."""

    titles: list[str]
    counts: np.ndarray
    words: Domain

    @cached_property
    def equal(self) -> finders.Equal:
        return finders.Equal(self.titles)

    @cached_property
    def spelled(self) -> finders.Spelled:
        return finders.Spelled(self.titles)

    @cached_property
    def grams(self) -> finders.Grams:
        return finders.Grams(self.titles, GRAMS)

    def find(self, text: str) -> int | None:
        """The title that equals a text up to case, accents and punctuation; None for no such."""
        number = self.equal.find(text.strip())
        return self.spelled.find(text) if number is None else number

    def alike(self, text: str) -> list[str]:
        """At most OFFERED titles whose letters are most like a text's, the most similar first."""
        scores = self.grams.scores(text)
        best = np.argsort(-scores, kind="stable")[:OFFERED]
        return [self.titles[number] for number in best if scores[number] > 0]

    def history(self, texts: Sequence[str]) -> list[int]:
        """The numbers of the titles in a history.

        Raises UnknownTitle that offers the nearest titles for every text that is no title,
        StudyError for no text at all, or a single string.
        """
        if isinstance(texts, str):
            raise StudyError(f"a history is a list of titles, not {texts!r:.60}: put it in [ ]")
        if not texts:
            raise StudyError("the history is empty: give at least one title")
        numbers = {text: self.find(text) for text in texts}
        unknown = [text for text, number in numbers.items() if number is None]
        if unknown:
            raise UnknownTitle("\n".join(map(self.offer, unknown)))
        return [number for text in texts if (number := numbers[text]) is not None]

    def offer(self, text: str) -> str:
        """What to say of a text that is no title."""
        nearest = "; ".join(self.alike(text))
        return f"{text!r:.200} is not in the catalogue: " + (
            f"the nearest titles are {nearest}" if nearest else "no title is like it"
        )


@dataclass(frozen=True)
class Recommender:
    """A study's tuned LLM, and a catalogue with its vectors (I, d) float32: `open` makes one.

    writing, space: the parameters of the study's 03 and 04. longest: titles of a history that
    the adapter has learnt at most. room: tokens that 03 allows a text. adapter: its folder.
    """

    study: str
    dataset: str
    adapter: Path
    tuned: LLM
    catalogue: Catalogue
    vectors: np.ndarray
    writing: GenerateTitles
    space: GroundToItems
    longest: int
    room: int

    @classmethod
    def open(cls, study: str, dataset: str = "", project: Path | None = None) -> Recommender:
        """Load the LLM with a study's adapter for a data set, '' for its first, and the vectors.

        project: the folder of `results` and `runs`; None for the one that holds this library.

        Raises StudyError that says what is missing, and which command makes it.
        """
        from bigrec_lib.method import llm

        project = project or ROOT
        jobs = published(project, study)
        dataset = chosen(jobs, study, dataset)
        key, adapter = adapter_of(project, study, dataset, jobs)
        prefix = key.removesuffix("02_tune_llm")
        writing_job = job_of(study, jobs, f"{prefix}03_generate_titles")
        grounding_job = job_of(study, jobs, f"{prefix}04_ground_to_items")
        root = {"root": str(project)}
        writing = GenerateTitles.check(writing_job["parameters"] | root)
        space = GroundToItems.check(grounding_job["parameters"] | root)
        preparation = jobs[f"{dataset}.01_prepare_data"]
        catalogue = catalogue_of(project / "results" / study, dataset, preparation)
        base = steps.load(writing)
        vectors = None
        if space.embedder == "base":
            vectors = vectors_of(base, catalogue.titles, space)
        tuned = llm.LLM(base.name, llm.with_adapter(base.model, adapter).eval(), base.tokenizer)
        if vectors is None:
            vectors = vectors_of(tuned, catalogue.titles, space)
        return cls(
            study,
            dataset,
            adapter,
            tuned,
            catalogue,
            vectors,
            writing,
            space,
            longest=preparation["parameters"]["history"],
            room=writing_job["facts"]["max_new_tokens"],
        )

    def recommend(
        self, titles: Sequence[str], k: int, beams: int, gamma: float, constrained: bool
    ) -> Recommendation:
        """The k items nearest to what the LLM writes after these titles, oldest first.

        beams: of the search; the best one is grounded, as in the paper. gamma: of popularity; 0
        for none. constrained: only titles of the catalogue are written.
        Raises UnknownTitle that offers the nearest titles, StudyError for another bad request.
        """
        check_request(k, beams, gamma)
        numbers = self.catalogue.history(titles)
        read, prompt = self.prompt([self.catalogue.titles[number] for number in numbers])
        texts, scores = self.write(prompt, beams, constrained)
        return Recommendation(read, texts, scores, self.ground(texts[0], set(numbers), k, gamma))

    def prompt(self, titles: list[str]) -> tuple[list[str], str]:
        """The newest titles that a prompt holds, and the prompt."""
        words = self.catalogue.words
        newest = titles[-self.longest :]
        text = prompts.fitted_prompt(self.tuned.tokenizer, newest, words, self.writing.max_tokens)
        cut = next(n for n in range(len(newest)) if prompts.prompt(newest[n:], words) == text)
        return newest[cut:], text

    def write(self, prompt: str, beams: int, constrained: bool) -> tuple[list[str], list[float]]:
        """Step 1: the titles that the tuned LLM writes, best first, and their scores."""
        from bigrec_lib.method import beams as search_rules
        from bigrec_lib.method import generation

        room = search_rules.room_for(self.answers, 1.0) if constrained else self.room
        search = search_rules.Search(room, beams, 1, self.writing.length_penalty)
        (outputs,) = generation.generate(
            self.tuned, [prompt], search, self.trie if constrained else None
        )
        return [prompts.title_of(beam.text) for beam in outputs], [beam.score for beam in outputs]

    def ground(self, text: str, seen: set[int], k: int, gamma: float) -> pd.DataFrame:
        """Step 2: the k nearest titles, as `Recommendation.items` has them."""
        from bigrec_lib.method import grounding, reweighting

        distances = grounding.distances(self.embed(text), self.vectors)
        weights = reweighting.popularity_weights(self.catalogue.counts)
        logs = reweighting.reweighted(reweighting.log_distances(distances), weights, gamma)
        (numbers,) = grounding.first(logs, k)
        return pd.DataFrame(
            {
                "title": [self.catalogue.titles[number] for number in numbers],
                "distance": distances[0, numbers],
                "adjusted": np.exp(logs[0, numbers]),
                "seen": [int(number) in seen for number in numbers],
            }
        )

    def embed(self, text: str) -> np.ndarray:
        """The vector (1, d) of a text, by the LLM as the study embeds with it."""
        from bigrec_lib.method import embedding, llm

        model, tokenizer = self.tuned.model, self.tuned.tokenizer
        base = llm.LLM(self.tuned.name, model.get_base_model(), tokenizer)
        tokens = embedding.tokenise(base, [text])
        context = model.disable_adapter if self.space.embedder == "base" else nullcontext
        with context(), tqdm(disable=True) as bar:
            vector = embedding.compute(base, tokens, self.space.batch_size, bar)
        return vector.float().numpy()

    @cached_property
    def answers(self) -> list[list[int]]:
        """The tokens of every title as an answer."""
        from bigrec_lib.method import beams

        return beams.answer_tokens(self.tuned.tokenizer, self.catalogue.titles)

    @cached_property
    def trie(self) -> Trie:
        from bigrec_lib.method import beams

        return beams.Trie(self.answers)


def recommend(
    titles: Sequence[str],
    study: str = "quick",
    dataset: str = "",
    k: int = 20,
    beams: int = 4,
    gamma: float = 0.0,
    constrained: bool = False,
) -> Recommendation:
    """`Recommender.recommend` with a study's adapter; for several histories, `open` one."""
    recommender = Recommender.open(study, dataset)
    return recommender.recommend(titles, k, beams, gamma, constrained)


# ------------------------------------------------------------------------- what a study offers


def published(project: Path, study: str) -> dict[str, dict]:
    """The published manifests of a study. Raises StudyError if nothing is published."""
    folder = project / "results" / study
    if not (folder / manifests.PUBLISHED).exists():
        names = sorted(path.parent.name for path in folder.parent.glob(f"*/{manifests.PUBLISHED}"))
        hint = f", or choose one of {', '.join(names)}" if names else ""
        raise StudyError(
            f"study {study} has published nothing (there is no {manifests.PUBLISHED} in "
            f"results/{study}): run `make study STUDY={study}`{hint}"
        )
    return manifests.read_published(folder)["jobs"]


def datasets_of(jobs: dict[str, dict]) -> list[str]:
    """The data sets of a published study."""
    return [key.removesuffix(".01_prepare_data") for key in jobs if key.endswith("prepare_data")]


def chosen(jobs: dict[str, dict], study: str, dataset: str) -> str:
    """A data set of the study; its first for ''. Raises StudyError for one it does not have."""
    datasets = datasets_of(jobs)
    if dataset not in ("", *datasets) or not datasets:
        hint = f"choose one of {', '.join(datasets)}" if datasets else "it has published none"
        raise StudyError(f"study {study} has no data set {dataset!r}: {hint}")
    return dataset or datasets[0]


def job_of(study: str, jobs: dict[str, dict], key: str) -> dict:
    """The manifest of a published job. Raises StudyError if the study has yet to run it."""
    if key not in jobs:
        raise StudyError(
            f"study {study} is not finished: {key} is missing: run `make study STUDY={study}`"
        )
    return jobs[key]


def adapter_of(project: Path, study: str, dataset: str, jobs: dict[str, dict]) -> tuple[str, Path]:
    """The job that tuned an adapter for a data set, and the adapter's folder.

    The one of the study's typical run if there is one; the folder in `runs/` if it is there, else
    the published one.
    Raises StudyError that says which command makes one.
    """
    for key in [*publish.shown_jobs(jobs), *jobs]:
        origin, run, notebook = run_names.parts_of(key)
        if (origin, notebook) != (dataset, "02_tune_llm") or not run_names.is_plain(run):
            continue
        tuning = project / "runs" / study / dataset / run / "tuning"
        if (tuning / manifests.NAME).exists() and (tuning / "adapter").exists():
            return key, tuning / "adapter"
        folder = project / "results" / study / publish.ADAPTERS / f"{dataset}.{run}"
        if folder.exists():
            return key, folder
    raise StudyError(
        f"study {study} has no adapter for {dataset}, neither in runs/{study} nor in "
        f"results/{study}/{publish.ADAPTERS}: `make study STUDY={study}` tunes one, and "
        f"`make adapter STUDY={study}` publishes it"
    )


def catalogue_of(folder: Path, dataset: str, preparation: dict) -> Catalogue:
    """A published catalogue. preparation: the manifest of its 01_prepare_data."""
    items = results.read(folder, "items.parquet", dataset=dataset)
    titles, candidate_of = prepared.candidates(items)
    counts = np.bincount(candidate_of, weights=items.train_count).astype(np.int64)
    return Catalogue(titles, counts, manifests.words_of(preparation))


def example(folder: Path, dataset: str) -> tuple[list[str], str]:
    """The history of a data set's first test example, and the title the user went on to."""
    row = results.read(folder, "examples.parquet", dataset=dataset, split="test").iloc[0]
    items = results.read(folder, "items.parquet", dataset=dataset)
    title_of = items.set_index("item").title
    return title_of[row.history].tolist(), title_of[row.target]


def vectors_of(embedder: LLM, titles: list[str], p: GroundToItems) -> np.ndarray:
    """The vectors of a catalogue, (I, d) float32: the study's, else embedded now and cached."""
    from bigrec_lib.method import embedding

    path = p.output / "vectors" / "titles.safetensors"
    if (p.output / manifests.NAME).exists() and path.exists():
        vectors = embedding.load(path)["vectors"]
        if len(vectors) == len(titles):
            return vectors
    digest = provenance.code_of("method.embedding.embed")[:12]
    return embedding.embed(embedder, titles, p.batch_size, assets.cache_dir() / "vectors" / digest)


def check_request(k: int, beams: int, gamma: float) -> None:
    """Raise StudyError for numbers out of range."""
    for name, number in {"k": k, "beams": beams}.items():
        if number < 1:
            raise StudyError(f"{name} is {number}: it has to be 1 or more")
    if not 0 <= gamma < math.inf:
        raise StudyError(f"gamma is {gamma}: it has to be 0 or a positive number")
