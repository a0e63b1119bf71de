"""The claims and open questions of the study (docs/method.md, section 7), a line each for readers.

The one place for their wording: the grid of the findings page shows them in this order.
"""

QUESTIONS = {
    "C1": "With few samples, BIGRec beats conventional models",
    "C2": "More samples help BIGRec little, other models much",
    "C3": "Popularity and collaborative scores help BIGRec",
    "C4": "BIGRec carries little statistical information",
    "C5": "A joint model is no worse, and a model helps on other domains",
    "Q1": "Some choice of training samples beats random ones",
    "Q2": "Domains can share one catalogue and one model",
    "Q3": "Some cheaper way from text to items loses little",
    "V1": "Texts lie nearer to their user's next item, and another distance ranks better",
    "V2": "BIGRec beats what trains in no more time",
    "V3": "BIGRec gains where titles carry on and items are new",
}
"""Claim -> what it says. C: the paper's; Q: what it leaves open; V: ours."""

ONE_SUFFICES = ("Q1", "Q3")
"""Claims that something exists: one way suffices to show them, all must fail to refute them."""
