"""Every method a table or figure may show: one registry for its name, look and kind."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

import pandas as pd
import seaborn as sns
from matplotlib.colors import to_rgb

Colour = str | tuple[float, float, float]
MARKS = 3.0  # least contrast of a mark with a white page (WCAG 2.2, 1.4.11)


def contrast(colour: Colour) -> float:
    """The contrast of a colour with white, 1 to 21 (WCAG 2.2).

    >>> contrast("white"), round(contrast("black"))
    (1.0, 21)
    """
    linear = [
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4
        for part in to_rgb(colour)
    ]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return 1.05 / (luminance + 0.05)


def legible(colour: Colour) -> Colour:
    """The colour, darkened until its contrast with white is MARKS."""
    red, green, blue = to_rgb(colour)
    while contrast((red, green, blue)) < MARKS:
        red, green, blue = 0.98 * red, 0.98 * green, 0.98 * blue
    return red, green, blue


PALETTE = [legible(colour) for colour in sns.color_palette("colorblind")]


def shades(colour: Colour) -> tuple[Colour, Colour]:
    """A lighter and a darker shade, for the two losses of a network: binary, cross-entropy."""
    return legible(colour), sns.dark_palette(colour, 4)[2]


TARGETS = "targets of the samples"
INTERACTIONS = "every step of the samples"
COUNTS = "targets; counts of all training samples"
BOTH = "targets; every step, in what is injected"
NOTHING = "nothing"
STRANGE = "targets of other users' samples"

GRU_LIGHT, GRU = shades(PALETTE[4])
CASER_LIGHT, CASER = shades(PALETTE[5])
SASREC_LIGHT, SASREC = shades(PALETTE[3])


@dataclass(frozen=True)
class Method:
    """How a method is shown.

    name: as in the results. label: as tables and figures print it. colour, marker: its own, so
        that greyscale tells methods apart, too.
    kind: bigrec (the method itself); injected (with statistics); variant (another way to use the
        LLM); grounding (another way to ground the same texts); cheaper (the same, to save time);
        united (the same, in a catalogue with titles of other data sets);
        random and popularity (what every recommender must beat); statistic and network (the
        conventional models); last (the same, learning the target of each sample only); llm
        (another method with an LLM).
    learns: what it learns from in a run of few samples: TARGETS, INTERACTIONS, BOTH, COUNTS,
        STRANGE or NOTHING.
    needs: what a study file must ask for, so that the method is there.
    grounding: its label beside other ways to ground the same texts.
    """

    name: str
    label: str
    kind: str
    colour: Colour = "0.5"
    marker: str = "."
    needs: str = ""
    grounding: str = ""
    learns: str = TARGETS


def conventional(
    name: str, text: str, kind: str, colour: Colour, marker: str
) -> tuple[Method, Method]:
    """A conventional model that learns every step of its samples, and only their targets."""
    return (
        Method(name, text, kind, colour, marker, "baselines", learns=INTERACTIONS),
        Method(f"{name}-last", f"{text}, targets only", "last", colour, marker, "baselines"),
    )


METHODS = (
    Method("random", "Random, one draw", "random", "0.55", "x", "baselines", learns=NOTHING),
    Method("bigrec", "BIGRec", "bigrec", PALETTE[0], "o", "", "First beam, titles (BIGRec)"),
    Method("bigrec+popularity", "BIGRec + popularity", "injected", PALETTE[1], "s", learns=BOTH),
    Method(
        "bigrec+popularity-all",
        "BIGRec + popularity of all",
        "injected",
        "#c46a00",
        "4",
        learns=COUNTS,
    ),
    Method(
        "bigrec+collaborative",
        "BIGRec + collaborative",
        "injected",
        PALETTE[2],
        "D",
        "baselines, and collaborative of 05",
        learns=BOTH,
    ),
    Method(
        "bigrec+both",
        "BIGRec + both",
        "injected",
        PALETTE[9],
        "^",
        "baselines, and collaborative of 05",
        learns=BOTH,
    ),
    Method(
        "bigrec-constrained",
        "BIGRec, constrained decoding",
        "variant",
        "#004c6d",
        "P",
        "constrained",
    ),
    Method(
        "bigrec-untuned",
        "BIGRec, untuned LLM",
        "variant",
        "#5a9bc4",
        "X",
        "zero_shot",
        learns=NOTHING,
    ),
    Method(
        "bigrec-shuffled",
        "BIGRec, others' answers",
        "variant",
        "#5b8db8",
        "3",
        "shuffled",
        learns=STRANGE,
    ),
    Method(
        "bigrec-corrected+",
        "BIGRec, grounding by validation",
        "variant",
        "#2f7fb8",
        "$\\oplus$",
        "alignment",
    ),
    Method("bigrec-bm25", "GPT4Rec-style (BM25)", "llm", "#117733", "*", "", "First beam, BM25"),
    Method("popularity", "Popularity", "popularity", PALETTE[7], "v", learns=INTERACTIONS),
    Method(
        "recent-popularity",
        "Recent popularity",
        "statistic",
        "0.5",
        "<",
        "baselines",
        learns=INTERACTIONS,
    ),
    Method("item-knn", "Item kNN", "statistic", "0.3", ">", "baselines", learns=INTERACTIONS),
    *conventional("markov", "Markov chain", "statistic", "#a08b00", "d"),
    *conventional("gru4rec-ce", "GRU4Rec, cross-entropy", "network", GRU, "p"),
    *conventional("gru4rec-bce", "GRU4Rec, binary", "network", GRU_LIGHT, "1"),
    *conventional("caser-ce", "Caser, cross-entropy", "network", CASER, "h"),
    *conventional("caser-bce", "Caser, binary", "network", CASER_LIGHT, "2"),
    *conventional("sasrec-ce", "SASRec, cross-entropy", "network", SASREC, "H"),
    *conventional("sasrec-bce", "SASRec, binary", "network", SASREC_LIGHT, "+"),
    *conventional("dros", "DROS", "network", PALETTE[6], "8"),
    Method(
        "sasrec-llm",
        "SASRec, from the LLM's titles",
        "llm",
        "#aa4499",
        "$L$",
        "baselines",
        learns=INTERACTIONS,
    ),
    Method("p5", "P5-style", "llm", "#8c2d04", ".", "baselines"),
    *(
        Method(name, label, "grounding", grounding=label)
        for name, label in {
            "bigrec-unseen": "… without the user's history",
            "bigrec-nearest-beam": "Nearest of all beams",
            "bigrec-weighted-beams": "All beams, by their scores",
            "bigrec-contrastive": "Least common beam",
            "bigrec-interleaved": "All beams, interleaved",
            "bigrec-reference": "First beam, rows (reference)",
        }.items()
    ),
    *(
        Method(name, label, "united", colour, marker, "recommendation_spaces")
        for name, label, colour, marker in (
            ("bigrec-union", "BIGRec, all domains' titles", PALETTE[3], "s"),
            ("bigrec-union-few", "BIGRec, some of the domains' titles", PALETTE[1], "^"),
            ("bigrec-union-control", "BIGRec, as many of a further domain", PALETTE[7], "v"),
        )
    ),
    *(
        Method(name, label, "cheaper", colour, marker, "cheaper")
        for name, label, colour, marker in (
            ("bigrec-cached", "Cached rows of titles", PALETTE[2], "s"),
            ("bigrec-spelled", "Cached rows, spelling overlooked", PALETTE[8], "D"),
            ("bigrec-grams", "Row of the title most alike in n-grams", PALETTE[1], "^"),
            ("bigrec-words", "Row of the title most alike in words", PALETTE[3], "v"),
            ("bigrec-fuzzy", "Row of the title with the fewest edits", PALETTE[5], "*"),
            ("bigrec-by-grams", "Ranked by n-grams", PALETTE[1], "2"),
            ("bigrec-by-words", "Ranked by words (BM25)", PALETTE[3], "1"),
            ("bigrec-first-dimensions", "First dimensions", "0.5", "<"),
            ("bigrec-principal", "Principal components", "0.3", ">"),
            ("bigrec-first-layers", "First layers of the LLM", "#7a5195", "$k$"),
            ("bigrec-sentences", "Small sentence encoder", "#117733", "d"),
            ("bigrec-decoder", "State of the decoder", "#882255", "H"),
            ("bigrec-l2d", "No text: state after the prompt (L2D)", "#332288", "8"),
            ("bigrec-hnsw", "HNSW graph", PALETTE[4], "p"),
            ("bigrec-ivf", "IVF cells", PALETTE[9], "h"),
            ("bigrec-pq", "PQ codes", PALETTE[6], "X"),
        )
    ),
)
"""In the order in which tables and figures show them."""

BY_NAME = {method.name: method for method in METHODS}
MAIN = [m.name for m in METHODS if m.kind not in ("grounding", "united", "cheaper")]
CONVENTIONAL = [method.name for method in METHODS if method.kind in ("statistic", "network")]
LAST = [method.name for method in METHODS if method.kind == "last"]
INJECTED = [method.name for method in METHODS if method.kind == "injected"]
VARIANTS = [method.name for method in METHODS if method.kind == "variant"]
UNITED = [method.name for method in METHODS if method.kind == "united"]
CHEAPER = [method.name for method in METHODS if method.kind == "cheaper"]


def of(name: str) -> Method:
    """A method by its name; what is made of several is named by its parts.

    'x-unseen' ranks what x does without the titles of the history, 'x+popularity' injects
    statistics into a conventional model x. Any other name is shown as it is, in grey.

    >>> of("markov+popularity").label, of("sasrec-ce-unseen").label
    ('Markov chain + popularity', 'SASRec, cross-entropy, history left out')
    """
    if name in BY_NAME:
        return BY_NAME[name]
    if name.endswith("-unseen"):
        plain = of(name.removesuffix("-unseen"))
        return replace(plain, name=name, label=f"{plain.label}, history left out", kind="unseen")
    model, _, injection = name.partition("+")
    if injection:
        words = injection.replace("popularity-all", "popularity of all")
        return replace(of(model), name=name, label=f"{of(model).label} + {words}", kind="compared")
    return Method(name, name, "")


RUN = re.compile(
    r".*?-s\d+(?:-by-(?P<by>.+?))?(?:-as-(?P<setting>.+?))?(?:-on-(?P<origin>.+?))?"
    r"(?:-(?P<constrained>constrained))?(?:-worded-(?P<worded>none|wrong))?(?:-in-(?P<space>.+?))?"
)
WORDS = {
    "by": "by", "setting": "setting", "origin": "tuned on", "constrained": "",
    "worded": "domain named:", "space": "grounded by",
}  # fmt: skip
"""The name of a run (`parameters`), and how what is special about it is put."""


def label(name: str, run: str = "") -> str:
    """A method as figures and tables print it, with what is special about its run.

    >>> label("bigrec", "n16-s0-on-games-constrained"), label("bigrec", "n16-s0-by-large")
    ('BIGRec (tuned on games, constrained)', 'BIGRec (by large)')
    """
    match = RUN.fullmatch(run)
    parts = match.groupdict() if match else {}
    words = [f"{WORDS[part]} {value}".strip() for part, value in parts.items() if value]
    return of(name).label + (f" ({', '.join(words)})" if words else "")


def table(names: Iterable[str]) -> pd.DataFrame:
    """What the names in the results stand for: columns method, label, kind, learns.

    In the order of METHODS; names that are not there follow.
    """
    places = {method.name: place for place, method in enumerate(METHODS)}
    methods = sorted(map(of, set(names)), key=lambda m: (places.get(m.name, len(METHODS)), m.name))
    columns = ["method", "label", "kind", "learns"]
    return pd.DataFrame([(m.name, m.label, m.kind, m.learns) for m in methods], columns=columns)


def colour_of(name: str) -> Colour:
    return of(name).colour


def minus(name: str, against: str) -> str:
    """A difference of two methods, in the names that tables and figures print."""
    subtracted = label(against)
    return f"{label(name)} − " + (f"({subtracted})" if "+" in subtracted else subtracted)
