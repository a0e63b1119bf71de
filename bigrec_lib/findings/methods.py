"""Every method a table or figure may show: one registry for its name, look and kind."""

from __future__ import annotations

import re
from dataclasses import dataclass

import seaborn as sns

PALETTE = sns.color_palette("colorblind")
Colour = str | tuple[float, float, float]


def shades(colour: Colour) -> tuple[Colour, Colour]:
    """A lighter and a darker shade, for the two losses of a network: binary, cross-entropy."""
    _, light, dark = sns.light_palette(colour, 3)
    return light, dark


GRU_LIGHT, GRU = shades(PALETTE[4])
CASER_LIGHT, CASER = shades(PALETTE[5])
SASREC_LIGHT, SASREC = shades(PALETTE[3])


@dataclass(frozen=True)
class Method:
    """How a method is shown.

    name: as in the results. label: as tables and figures print it. colour, marker: its own, so
        that greyscale tells methods apart, too.
    kind: bigrec (the method itself); injected (with statistics); variant (another way to use the
        LLM); grounding (another way to ground the same texts); popularity; statistic and network
        (the conventional models); llm (another method with an LLM).
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


METHODS = (
    Method("bigrec", "BIGRec", "bigrec", PALETTE[0], "o", "", "First beam, titles (BIGRec)"),
    Method("bigrec+popularity", "BIGRec + popularity", "injected", PALETTE[1], "s"),
    Method(
        "bigrec+collaborative",
        "BIGRec + collaborative",
        "injected",
        PALETTE[2],
        "D",
        "baselines, and collaborative of 05",
    ),
    Method(
        "bigrec+both",
        "BIGRec + both",
        "injected",
        PALETTE[9],
        "^",
        "baselines, and collaborative of 05",
    ),
    Method(
        "bigrec-constrained",
        "BIGRec, constrained decoding",
        "variant",
        "#004c6d",
        "P",
        "constrained",
    ),
    Method("bigrec-untuned", "BIGRec, untuned LLM", "variant", "#9ecae1", "X", "zero_shot"),
    Method("bigrec-bm25", "GPT4Rec-style (BM25)", "llm", "#117733", "*", "", "First beam, BM25"),
    Method("popularity", "Popularity", "popularity", PALETTE[7], "v"),
    Method("recent-popularity", "Recent popularity", "statistic", "0.75", "<", "baselines"),
    Method("item-knn", "Item kNN", "statistic", "0.3", ">", "baselines"),
    Method("markov", "Markov chain", "statistic", "#a08b00", "d", "baselines"),
    Method("gru4rec-ce", "GRU4Rec, cross-entropy", "network", GRU, "p", "baselines"),
    Method("gru4rec-bce", "GRU4Rec, binary", "network", GRU_LIGHT, "1", "baselines"),
    Method("caser-ce", "Caser, cross-entropy", "network", CASER, "h", "baselines"),
    Method("caser-bce", "Caser, binary", "network", CASER_LIGHT, "2", "baselines"),
    Method("sasrec-ce", "SASRec, cross-entropy", "network", SASREC, "H", "baselines"),
    Method("sasrec-bce", "SASRec, binary", "network", SASREC_LIGHT, "+", "baselines"),
    Method("dros", "DROS", "network", PALETTE[6], "8", "baselines"),
    Method("p5", "P5-style", "llm", "#8c2d04", ".", "baselines"),
    *(
        Method(name, label, "grounding", grounding=label)
        for name, label in {
            "bigrec-unseen": "… without the user's history",
            "bigrec-nearest-beam": "Nearest of all beams",
            "bigrec-interleaved": "All beams, interleaved",
            "bigrec-reference": "First beam, rows (reference)",
            "bigrec-two-catalogues": "First beam, both catalogues",
        }.items()
    ),
)
"""In the order in which tables and figures show them."""

BY_NAME = {method.name: method for method in METHODS}
MAIN = [method.name for method in METHODS if method.kind != "grounding"]
CONVENTIONAL = [method.name for method in METHODS if method.kind in ("statistic", "network")]
INJECTED = [method.name for method in METHODS if method.kind == "injected"]
VARIANTS = [method.name for method in METHODS if method.kind == "variant"]


def of(name: str) -> Method:
    """A method by its name; an unknown one is shown by its name, in grey."""
    return BY_NAME.get(name) or Method(name, name, "")


def label(name: str, run: str = "") -> str:
    """A method as figures and tables print it, with what is special about its run.

    >>> label("bigrec", "n16-s0-on-games-constrained")
    'BIGRec (tuned on games, constrained)'
    """
    special = re.fullmatch(r".*?-s\d+(?:-as-(.+?))?(?:-on-(.+?))?(-constrained)?", run)
    setting, origin, constrained = special.groups() if special else (None, None, None)
    words = [f"setting {setting}"] * bool(setting) + [f"tuned on {origin}"] * bool(origin)
    words += ["constrained"] * bool(constrained)
    return of(name).label + (f" ({', '.join(words)})" if words else "")


def colour_of(name: str) -> Colour:
    return of(name).colour


def minus(name: str, against: str) -> str:
    """A difference of two methods, in the names that tables and figures print."""
    subtracted = label(against)
    return f"{label(name)} − " + (f"({subtracted})" if "+" in subtracted else subtracted)
