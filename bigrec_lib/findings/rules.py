"""The rule by which claims are decided.

RULE is the text that notebooks and pages print; the functions below and the rows of `claims` do
what it says. `claims.csv` carries the commit that last changed any of it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from bigrec_lib.findings.significance import LEVEL, Mean
from bigrec_lib.study import provenance

SAME = 0.30  # two levels whose ratio is within this of 1 are the same, for "no worse"
FLAT = 0.10  # a slope within this share of its level per doubling is flat
HIT_USERS = 50  # with fewer the error of a relative slope is not to be trusted
SEEDS = 3  # with fewer, nothing is decided: seeds are random, and one or two say little of them

RULE = f"""\
On each data set a claim has a row for every comparison. Its rule was fixed before its numbers; that
of C1 to C5 when the first edition's were known, and before any later ones. Three were mended when
their numbers were known (docs/protocol.md): that of V1's second row, before they were published;
that of C5's first row, which now compares models that were tuned alike and has a second guard; and
what is said of a catalogue that changes nothing (Q2), before they were published:

* **Better** ("A is better than B"): the mean paired difference is above zero.
* **No worse** ("A is no worse than B"): A / B − 1 is above −{SAME:.0%}. If a catalogue (Q2) changes
  NDCG@20 on no example of any seed, p is {1 - SAME:g} to the power of the users that are hit: so
  likely would none of them lose anything, if three in ten did.
* **Flat**: the slope per doubling of the samples, as a share of the level, lies within ±{FLAT:.0%}.

A row is `supported` or `contradicted` if its p-value, corrected by Holm over all rows of its
claim, is below {LEVEL:g}; else it is `not decided`, and says what it would take. p-values are
two-sided and come from the same t distribution as the 95 % intervals: seeds, users and what they
do together each have a variance of their own (`significance`). With fewer than {SEEDS} seeds
nothing is decided: the row is a `demonstration`. Lacking data is `missing`.

**Guards.** A random recommender, and a method's own lists shuffled among users, must not pass. So
each row names guards, which must be above zero as well: the p-value of a row in favour of its
claim is the largest of its own and its guards'. *Personal gain* is the method's NDCG@20 minus
that of its lists shuffled among users.

* C1: BIGRec − the conventional model that validation prefers, NDCG@20 and HR@20; twice: among
  models that learn the same targets, and among those that learn every step of the same samples.
  Guard: BIGRec's personal gain.
* C2: slope per doubling of the samples, as a share of the level: the conventional models' mean −
  BIGRec's (better); BIGRec's own (flat). Below the main size BIGRec is tuned for as many steps as
  at it. Guards: BIGRec's personal gain, and BIGRec − the untuned LLM, both at the main size; for
  the first row also the slope of the conventional models' mean. A size with fewer seeds than three
  others is left out. Where BIGRec, or the conventional models together, hit fewer than {HIT_USERS}
  users at any size and seed, nothing is decided.
* C3: BIGRec with popularity, or with collaborative scores − BIGRec; collaborative − popularity
  (better). Guards: the first of the two − what was injected into it, alone; BIGRec's personal gain.
* C4: what injecting adds to BIGRec − what it adds to a conventional model that has the
  information, for popularity and for collaborative scores (better). Guards: the injected BIGRec −
  what was injected, alone; BIGRec's personal gain.
* C5: joint model / single-domain model − 1 (no worse), the same number of samples of each domain,
  tuned with the same settings. Guards: the joint model's personal gain; it − the untuned LLM. A
  model tuned on another domain − one tuned there on other users' answers, which has learnt the form
  but no preference (better). Guards: its personal gain; it − the untuned LLM; the same difference
  tested on the domain where both were tuned.
* Q1: samples that a selection chose − as many drawn at random, in NDCG@20 and in the log-likelihood
  of the true title (better). Guards: the personal gain, and the same difference of personal gains;
  for the log-likelihood, how much likelier the title is after the user's own history than after
  another user's takes their place. Samples of the smaller budget / random ones of the larger − 1,
  NDCG@20 (no worse). Guards: the personal gain; chosen − random of the smaller budget. What is
  always the same choice counts as one draw.
* Q2: each of two / the model of one domain in its own catalogue − 1 (no worse): that model, and a
  joint one of as many samples of each domain, in the catalogue of all domains. All are tuned with
  the joint model's settings. Guards, of the first of the two: its personal gain; it − the untuned
  LLM.
* Q3: a way to ground that takes no more than half the exact way's time, writing aside / the exact
  way − 1, NDCG@20 (no worse). Guard: its personal gain. A way that loses nothing is proved by
  identical ranks, not tested.
* V1: how much nearer, in normalised distance, a generated text is to its target than to the targets
  of other users (better). Guard: the personal gain. The grounding that validation prefers −
  BIGRec's own, the history in the ranking of both (better). Guard: the personal gain of the first.
* V2: BIGRec − the conventional model that validation prefers among all that were trained, on
  whatever samples, in no more time than BIGRec was tuned (better). Guard: BIGRec's personal gain.
* V3: slope of BIGRec − the conventional model that validation prefers, per example, over the share
  of the target's words in the history, and over whether the target is new (better). Guard: the same
  slope of BIGRec's personal gain.
"""

SUPPORTED, CONTRADICTED, OPEN = "supported", "contradicted", "not decided"
DEMONSTRATION, MISSING = "demonstration", "missing"


@dataclass(frozen=True)
class Finding:
    """One row's evidence for and against its claim.

    p: two-sided. away: how far the estimate is from its bound, which is 0, -SAME, or ±FLAT.
    favours: whether it is on the claim's side. weakest: the guard whose p-value counts instead of
    the row's own; '' for none.
    """

    p: float
    away: float
    favours: bool
    weakest: str = ""


def better(mean: Mean) -> Finding:
    """A difference claimed to be above zero."""
    return Finding(mean.p, abs(mean.value), mean.value > 0)


def no_worse(mean: Mean) -> Finding:
    """A relative difference claimed to be above -SAME."""
    favours = mean.value > -SAME
    p = mean.p_above(-SAME) if favours else mean.p_below(-SAME)
    return Finding(min(1.0, 2 * p), abs(mean.value + SAME), favours)


def unchanged(users_hit: int) -> Finding:
    """For "no worse": nothing differs, and the method compared with hits so many users.

    A loss of SAME would take the hits of as large a share of the users, if not more.
    """
    return Finding((1 - SAME) ** users_hit, SAME, True)


def flat(mean: Mean) -> Finding:
    """A relative slope claimed to be within ±FLAT: two one-sided tests."""
    favours = abs(mean.value) < FLAT
    p_inside = max(mean.p_above(-FLAT), mean.p_below(FLAT))
    p_outside = min(mean.p_below(-FLAT), mean.p_above(FLAT))
    p = min(1.0, 2 * (p_inside if favours else p_outside))
    return Finding(p, abs(abs(mean.value) - FLAT), favours)


RULES = {"better": better, "no worse": no_worse, "flat": flat}


def guarded(finding: Finding, guards: dict[str, Mean]) -> Finding:
    """A finding in favour of its claim is worth no more than its weakest guard."""
    p_values = {name: mean.p if mean.value > 0 else 1.0 for name, mean in guards.items()}
    if not finding.favours or not p_values:
        return finding
    weakest = max(p_values, key=p_values.__getitem__)
    if p_values[weakest] <= finding.p:
        return finding
    return replace(finding, p=p_values[weakest], weakest=weakest)


def verdict(corrected: float, favours: bool, seeds: int) -> str:
    """The verdict on a row from its corrected p-value; NaN: the data is missing."""
    if corrected != corrected:
        return MISSING
    if seeds < SEEDS:
        return DEMONSTRATION
    if corrected >= LEVEL:
        return OPEN
    return SUPPORTED if favours else CONTRADICTED


ROOMS = ("rules", "claims", "evidence", "training_sizes", "significance")
"""What the verdict on a row depends on, besides the results."""


def commit(project: Path, *modules: str) -> str:
    """The commit that last changed one of ROOMS; '' where git or the history is missing.

    modules: others of `findings` that make the rows.
    """
    paths = [f"bigrec_lib/findings/{module}.py" for module in (*ROOMS, *modules)]
    if provenance.git(project, "status", "--porcelain", "--", *paths):
        return "uncommitted"
    return provenance.git(project, "log", "-1", "--format=%H", "--", *paths) or ""
