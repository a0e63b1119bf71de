"""What 01 to 11 say of their numbers: Markdown lists whose words are chosen by intervals.

A function a notebook, or a part of one; those of later notebooks stand beside their analyses. A
sentence that its numbers could contradict is written here, where a test feeds it opposite ones.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd

from bigrec_lib.findings import significance
from bigrec_lib.findings.alts import counted, listed
from bigrec_lib.findings.differences import word as word_for
from bigrec_lib.findings.methods import label
from bigrec_lib.findings.significance import Interval
from bigrec_lib.method import metrics

APART = "not told apart from"


def bullets(lines: Iterable[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def signed(difference: Interval) -> str:
    """A difference with its interval, signs shown."""
    return f"{difference.mean:+.4f} [{difference.low:+.4f}, {difference.high:+.4f}]"


def ndcg(ranks: pd.DataFrame) -> np.ndarray:
    """NDCG@20 of each example, from columns rank and ties."""
    return metrics.ndcg(metrics.effective_rank(ranks), 20)


# ------------------------------------------------------------------------- 01_prepare_data


def data(
    numbers: pd.DataFrame, counts: np.ndarray, sizes: dict[str, tuple[int, int]], per_user: int
) -> str:
    """numbers: `census.census`; counts: (I,) training interactions; sizes: split -> number of
    examples drawn and number asked for."""
    value = numbers.set_index("what").value
    top = np.sort(counts)[::-1][: max(len(counts) // 10, 1)].sum() / counts.sum()
    evenness = "nearly" if top < 0.15 else "far from"
    cold = value["targets unseen in training"]
    lines = [
        f"The most popular tenth of the items takes **{top:.0%}** of all training interactions: "
        f"{evenness} an even spread, which would be 10%.",
        f"**{cold:.1%}** of the test targets were never seen in training"
        + (": only a model that reads titles can recommend those." if cold else ".")
        + f" **{value['words of the target that are in the history']:.0%}** of a target's words "
        "occur in its history.",
        f"The {sizes['test'][0]:,} test examples are of {value['users of the test examples']:,} "
        f"users, {value['most test examples of one user']} of one at most.",
    ]
    lines += [
        f"Only **{count:,}** {split} examples of the {quota:,} asked for could be drawn, "
        f"{per_user} of one user at most: only large differences can be seen."
        for split, (count, quota) in sizes.items()
        if count < quota
    ]
    tied = value.get("targets at the time of the last history item")
    if tied is not None:
        lines.append(
            f"**{tied:.0%}** of the test targets have the time of the last history item, so that "
            "their order is that of the file."
        )
    return bullets(lines)


# ---------------------------------------------------------------------------- 02_tune_llm


def tuning(log: pd.DataFrame, n_train: int, trainable: int, total: int) -> str:
    """log: of `tuning.tune`. Training and validation loss are each compared with themselves only:
    they are of different examples, and only training has dropout."""
    tenth = max(len(log) // 10, 1)
    start, end = log.train_loss.iloc[:tenth].mean(), log.train_loss.iloc[-tenth:].mean()
    word = "fell" if end < start else "did not fall"
    valid = log.dropna(subset="valid_loss").reset_index(drop=True)
    best = valid.valid_loss.idxmin()
    text = f"The lowest validation loss is **{valid.valid_loss[best]:.3f}** per token, after step "
    text += f"{int(valid.step[best])}"
    if len(valid) == 1:
        text += "; it was measured once, which tells of no trend."
    elif best < len(valid) - 1:
        text += f"; at the end it was {valid.valid_loss.iloc[-1]:.3f}, so tuning went on too long."
    else:
        text += ", the last: more epochs might lower it further."
    return bullets(
        [
            f"{trainable:,} of {total:,} parameters are trained, {trainable / total:.2%}, on "
            f"{n_train:,} samples.",
            f"Training loss **{word}**, from {start:.3f} in the first tenth of the steps to "
            f"{end:.3f} in the last.",
            text,
        ]
    )


def form(before: list[str], after: list[str]) -> str:
    """Whether texts are one title in quotes, before and after tuning."""
    old, new = (sum(map(quoted, texts)) for texts in (before, after))
    word = "more of them than" if new > old else "fewer than" if new < old else "as many as"
    return (
        f"Of these {len(after)} texts **{new}** are one title in quotes and nothing else, {word} "
        f"before tuning ({old})."
    )


def quoted(text: str) -> bool:
    text = text.strip()
    return len(text) > 2 and text[0] == text[-1] == '"' and "\n" not in text


# ---------------------------------------------------------------------- 03_generate_titles


def generated(
    first: pd.DataFrame, targets: np.ndarray, users: np.ndarray, foreign: dict[str, float]
) -> str:
    """first: `generation.judged` first beams of the test examples; targets, users: (n,) of the same
    examples; foreign: data set -> share that are titles of it."""
    titles = first.title.to_numpy()
    distinct, real = len(set(titles)), len(set(targets))
    words = "fewer" if distinct < real else "more" if distinct > real else "as many"
    top = first.title.value_counts().index[0]
    excess = significance.interval((titles == top).astype(float) - (targets == top), users)
    word = excess.verdict(
        "more often than", "less often than", "which is not told apart from how often"
    )
    lines = [
        f"**{first.real.mean():.0%}** of the first beams are titles of the catalogue, "
        f"**{first.repeats.mean():.0%}** repeat a title of the user's own history.",
        f"{len(first):,} examples get **{distinct:,}** distinct titles, {words} than users went on "
        f"to ({real:,})." if words != "as many" else
        f"{len(first):,} examples get **{distinct:,}** distinct titles, as many as users went on "
        "to.",
        f"The most frequent generation, *{top}*, goes to **{np.mean(titles == top):.0%}** of all "
        f"examples and is in fact next for {np.mean(targets == top):.1%}: **{word}** users go on "
        "to it.",
    ]  # fmt: skip
    lines += [
        f"**{share:.1%}** of the first beams are titles of {name} that are not in this catalogue."
        for name, share in foreign.items()
    ]
    return bullets(lines)


# --------------------------------------------------------------------- 04_ground_to_items


def grounded(
    texts: np.ndarray, titles: list[str], ranks: dict[str, pd.DataFrame], users: np.ndarray
) -> str:
    """texts: (n,) first beams; ranks: name -> ranks of the test examples, the published way first;
    users: (n,)."""
    names = list(ranks)
    places = metrics.effective_rank(ranks[names[0]])
    gain = significance.interval((len(titles) - 1) / 2 - places, users)
    word = gain.verdict(
        "nearer than a random order would put them", "farther than a random order would put them",
        "not told apart from a random order",
    )  # fmt: skip
    exact = np.isin(texts, titles).mean()
    lines = [
        f"**{exact:.0%}** of the first beams are exactly a title of the catalogue (distance 0); "
        f"{np.mean(texts == ''):.0%} are empty. {len(set(texts)):,} are distinct, for "
        f"{len(texts):,} examples.",
        f"The median target has **{np.median(places):,.0f}** of {len(titles):,} titles before it; "
        f"on average targets are **{word}**.",
    ]
    lines += [
        f"**{verdict[0].upper()}{verdict[1:]}** the published way in NDCG@20: {methods}."
        for verdict, methods in grouped(
            {name: ndcg(ranks[name]) - ndcg(ranks[names[0]]) for name in names[1:]}, users
        ).items()
    ]
    return bullets(lines)


WORDS = ("better than", "worse than", APART)


def grouped(differences: dict[str, np.ndarray], users: np.ndarray) -> dict[str, str]:
    """Verdict -> the names it holds for, each with its difference; differences: name -> (n,)."""
    intervals = {name: significance.interval(values, users) for name, values in differences.items()}
    return by_verdict({name: (gain.verdict(*WORDS), gain) for name, gain in intervals.items()})


def by_verdict(verdicts: dict[str, tuple[str, Interval]]) -> dict[str, str]:
    """Verdict -> the names it holds for, each with its difference."""
    groups: dict[str, list[str]] = {}
    for name, (verdict, difference) in verdicts.items():
        groups.setdefault(verdict, []).append(f"{name} ({signed(difference)})")
    return {verdict: listed(names) for verdict, names in groups.items()}


# --------------------------------------------------------------- 05_reweight_by_statistics


def reweighted(
    gamma: float,
    shares: pd.Series,
    ranks: dict[str, pd.DataFrame],
    methods: list[str],
    users: np.ndarray,
) -> str:
    """gamma: chosen for the first of `methods`; shares: 'own' and 'theirs' at this γ, as
    `reweighting.own_or_theirs` has them; ranks: method -> ranks of the test examples, with 'bigrec'
    and 'popularity'."""
    bigrec, popularity = ndcg(ranks["bigrec"]), ndcg(ranks["popularity"])
    meaning = "the validation examples found no use for the weights"
    if gamma:
        meaning = (
            f"of the first 20, {shares['own']:.0%} are then also in BIGRec's own list, and "
            f"{shares['theirs']:.0%} in that of the weights alone"
        )
    lines = [
        f"γ = **{gamma:g}** is best for {methods[0].partition('+')[2]} on validation: {meaning}. "
        f"BIGRec alone has {bigrec.mean():.4f}, popularity alone {popularity.mean():.4f}."
    ]
    for method in methods:
        change = significance.interval(ndcg(ranks[method]) - bigrec, users)
        word = change.verdict("helps", "hurts", "shows no effect")
        margin = significance.interval(ndcg(ranks[method]) - popularity, users)
        lines.append(
            f"{label(method)}: in this run the injection **{word}**, {signed(change)}; it is "
            f"**{margin.verdict('above', 'below', APART)}** popularity alone, {signed(margin)}."
        )
    lines.append("None of these is corrected for the number of comparisons; `09` has the verdict.")
    return bullets(lines)


def injected_into_both(
    name: str, bigrec_gain: np.ndarray, model_gain: np.ndarray, model: str, users: np.ndarray
) -> str:
    """What an injection adds to BIGRec (n,) beside what it adds to a conventional model (n,)."""
    excess = significance.interval(bigrec_gain - model_gain, users)
    word = excess.verdict("larger", "smaller", "not told apart from that")
    ours, theirs = (round(gain.mean(), 4) + 0.0 for gain in (bigrec_gain, model_gain))
    return bullets(
        [
            f"{name} changes NDCG@20 of {label(model)} by {theirs:+.4f}, and of BIGRec by "
            f"{ours:+.4f}: BIGRec's change is **{word}**, {signed(excess)}."
        ]
    )


def movers(new: np.ndarray, base: np.ndarray, group: np.ndarray, name: str) -> str:
    """Who gains and loses. new, base: (n,) NDCG@20; group: (n,) popularity group of the target."""
    lines = []
    for word, mask in {"gain": new > base, "lose": new < base}.items():
        sizes = np.bincount(group[mask], minlength=5).tolist()
        lines.append(
            f"{mask.sum()} examples {word} from {name}; the popularity groups of their targets, "
            f"rarest first: {', '.join(map(str, sizes))}."
        )
    return bullets(lines)


# --------------------------------------------------------------------- 06_train_baselines


def baselines(scores: dict[str, np.ndarray], users: np.ndarray, n_train: int, suffix: str) -> str:
    """scores: method -> NDCG@20 (n,) of the test examples; suffix: of the names of models that
    learn only targets."""
    best = max(scores, key=lambda name: scores[name].mean())
    lines = [
        f"Learning from {n_train:,} samples, **{label(best)}** has the highest NDCG@20 on "
        f"{len(users):,} test examples: {significance.interval(scores[best], users)}."
    ]
    gains = {
        label(name): scores["sasrec-ce"] - scores[name]
        for name in ("popularity", "markov", "item-knn")
        if "sasrec-ce" in scores and name in scores
    }
    lines += [
        f"SASRec with cross-entropy is **{verdict}** {names}."
        for verdict, names in grouped(gains, users).items()
    ]
    step_gains = {
        label(name): scores[name] - scores[name + suffix]
        for name in scores
        if name + suffix in scores
    }
    lines += [
        f"Learning every step is **{verdict}** learning the last one alone for {names}."
        for verdict, names in grouped(step_gains, users).items()
    ]
    return bullets(lines)


# --------------------------------------------------------------- 07_overall_performance


def corrected(rows: pd.DataFrame, names: Iterable[str], words: Iterable[str]) -> dict[str, str]:
    """`by_verdict` of `significance.compare`'s rows, called so, by their corrected p-values."""
    verdicts = {}
    for name, row in zip(names, rows.itertuples(), strict=True):
        interval = Interval(row.difference, row.low, row.high)
        verdicts[name] = word_for(interval, row.corrected, *words), interval
    return by_verdict(verdicts)


def comparisons(rows: pd.DataFrame) -> str:
    """rows: `significance.compare`."""
    lines = []
    pairs = rows[rows.gap == ""]
    for (dataset, method), group in pairs.groupby(["dataset", "method"], sort=False):
        lines += [
            f"{dataset}: **{label(method)}** is **{verdict}** {names}."
            for verdict, names in corrected(group, map(label, group.against), WORDS).items()
        ]
    return bullets([*lines, *sorted(set(rows.gap) - {""})])


def personal(rows: pd.DataFrame) -> str:
    """rows: `leaderboard.references`, of methods of BIGRec."""
    lines = []
    for row in rows.itertuples():
        gain = Interval(row.gain, row.low, row.high)
        word = gain.verdict(
            "personal", "worse for their own users than for others", "not shown to be personal"
        )
        if not row.own:
            word = "without a hit, which tells nothing of users"
        lines.append(
            f"{row.dataset}: the lists of {label(row.method)} are **{word}**: NDCG@20 "
            f"{row.own:.4f}, {row.handed_on:.4f} when they are handed to other users, "
            f"{row.random:.4f} in a random order."
        )
    return bullets(lines)


# --------------------------------------------------------------------- 08_training_size


def crossings(rows: pd.DataFrame) -> str:
    """rows: `analyses.crossings`."""
    lines = []
    for row in rows.itertuples():
        clause = row.gap or (
            f"the lines cross at {row.crossing:,.0f} samples [{row.low:,.0f}, {row.high:,.0f}]"
        )
        if row.slope == row.slope:
            slope = Interval(row.slope, row.slope_low, row.slope_high)
            clause += f" (BIGRec's slope − theirs: {signed(slope)} per doubling)"
        lines.append(f"{row.dataset}: {clause}.")
    return bullets(lines)


# ------------------------------------------------------------ 09_statistical_information


def exposure(rows: pd.DataFrame, shares: pd.DataFrame) -> str:
    """rows: `analyses.exposure` of BIGRec; shares: `analyses.group_differences` of BIGRec."""
    lines = []
    for row in rows.itertuples():
        size = f"{row.n_train:,} samples" if row.n_train else "untuned"
        text = f"{row.distinct_first:,.0f} different titles stand first in BIGRec's lists, and "
        text += f"{row.coverage:.0%} of the catalogue in some first 20 ({row.lists:,.0f} lists, "
        text += f"mean of {counted(row.seeds, 'seed')})"
        top = shares[(shares.dataset == row.dataset) & (shares.n_train == row.n_train)]
        top = top[(top.group == 4) & (top.k == 20)]
        for fifth in top.itertuples():
            word = "more" if fifth.difference > 0 else "less" if fifth.difference < 0 else "as much"
            text += (
                f"; the most popular fifth takes {fifth.share:.0%} of the first 20, {word} "
                f"{'as' if word == 'as much' else 'than'} of the histories "
                f"({fifth.share - fifth.difference:.0%})"
            )
        lines.append(f"{row.dataset}, {size}: {text}.")
    return bullets(lines)


# ------------------------------------------------------------------ 11_tuning_settings


def settings(rows: pd.DataFrame) -> str:
    """rows: `analyses.settings`."""
    lines = []
    for dataset, group in rows.groupby("dataset", sort=False):
        best = group[group.chosen].iloc[0]
        candidates, loss = group[~group.learn_prompt.astype(bool)], "loss of answers"
        if candidates.empty:  # losses of prompts are comparable with each other
            candidates, loss = group, "loss"
        lowest = candidates.loc[candidates.valid_loss.idxmin()]
        note = f"it has the lowest {loss}, too" if lowest.setting == best.setting else (
            f"the lowest {loss} has *{lowest.setting}* ({lowest.valid_loss:.3f})"
        )  # fmt: skip
        lines.append(
            f"{dataset}: of {len(group)} settings, **{best.setting}** has the highest validation "
            f"NDCG@20, {Interval(best.ndcg, best.low, best.high)} on {best.n:,} examples; {note}. "
            f"{best.real:.0%} of what it writes are titles, {best.distinct} different ones."
        )
    return bullets(lines)


def one_setting(ranks: pd.DataFrame) -> str:
    """Which setting is the best one for all data sets, and whether it is told apart from the next.

    ranks: validation ranks of BIGRec with columns dataset, setting, user, example, ndcg; '' where
    there is one data set, or nothing to choose from.
    """
    wide = ranks.pivot_table("ndcg", ["dataset", "user", "example"], "setting").dropna()
    names = wide.mean().sort_values(ascending=False).index  # over what the interval is of
    if ranks.dataset.nunique() < 2 or len(names) < 2:
        return ""
    best, second = names[:2]
    users = wide.reset_index()
    users = users.dataset + " " + users.user.astype(str)
    difference = significance.interval((wide[best] - wide[second]).to_numpy(), users.to_numpy())
    word = difference.verdict("better than", "worse than", APART)
    return bullets(
        [
            f"One setting for all data sets would be **{best}**; it is **{word}** the next, "
            f"*{second}*, {signed(difference)} over all validation examples."
        ]
    )


def told_apart(rows: pd.DataFrame) -> str:
    """rows: `significance.compare` of settings with the study's own."""
    words = ("is better than the study's own", "is worse than the study's own",
             "is not told apart from the study's own")  # fmt: skip
    lines = []
    for dataset, group in rows[rows.gap == ""].groupby("dataset", sort=False):
        for verdict, names in corrected(group, group.method, words).items():
            lines.append(f"{dataset}: **{verdict}**, after correction: {names}.")
    return bullets(lines)


def ways(rows: pd.DataFrame) -> str:
    """rows: `leaderboard.ways`, of the first beam."""
    words = ("know the user", "are worse than for others", "are not shown to know the user")
    lines = []
    for dataset, group in rows.groupby("dataset", sort=False):
        gains = {row.setting: Interval(row.gain, row.low, row.high) for row in group.itertuples()}
        verdicts = {name: (gain.verdict(*words), gain) for name, gain in gains.items()}
        lines += [
            f"{dataset}: lists that **{verdict}**, by their personal gain: {names}."
            for verdict, names in by_verdict(verdicts).items()
        ]
    return bullets(lines)
