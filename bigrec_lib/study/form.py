"""The form of 00_try_it: a history typed with completion, settings, and what comes of them.

Titles come from a data set or from the user: they are shown as text, any markup in them too.
"""

from __future__ import annotations

import html
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import ipywidgets
import pandas as pd

from bigrec_lib.files import StudyError
from bigrec_lib.study import recommender

if TYPE_CHECKING:
    from bigrec_lib.study.parameters import TryIt
    from bigrec_lib.study.recommender import Recommendation, Recommender

COMPLETIONS = 20  # titles offered while one types
WIDE = {"width": "100%", "max_width": "50rem"}


def completions(text: str, titles: Sequence[str]) -> list[str]:
    """The titles that contain a text, those that begin with it first; at most COMPLETIONS.

    >>> completions("star", ["Dark Star (1974)", "Star Wars (1977)", "Heat (1995)"])
    ['Star Wars (1977)', 'Dark Star (1974)']
    """
    query = text.strip().casefold()
    if not query:
        return []
    places = [(title.casefold().find(query), title) for title in titles]
    first = [title for place, title in places if place == 0]
    later = [title for place, title in places if place > 0]
    return (first + later)[:COMPLETIONS]


def table(frame: pd.DataFrame) -> str:
    """A frame as HTML, its text whole and inert."""
    with pd.option_context("display.max_colwidth", None):
        return frame.to_html(index=False, border=0, float_format="{:.3f}".format)


def tables(recommendation: Recommendation) -> str:
    """What the LLM wrote, and the items, as HTML."""
    texts = pd.DataFrame({"it wrote": recommendation.texts, "score": recommendation.scores})
    items = recommendation.items.assign(
        seen=recommendation.items.seen.map({True: "in the history", False: ""})
    )
    return table(texts) + table(items.rename(columns={"seen": ""}))


class Form:
    """`box` is the widget to display. history, p: what the fields hold at first."""

    def __init__(self, opened: Recommender, history: Sequence[str], p: TryIt):
        self.opened, self.k, self.project = opened, p.k, p.project
        jobs = recommender.published(p.project, p.study)
        self.domain = ipywidgets.Dropdown(
            options=recommender.datasets_of(jobs), value=opened.dataset, description="domain"
        )
        self.typed = ipywidgets.Combobox(
            description="a title", placeholder="type, choose, press Enter", layout=WIDE
        )
        self.add = ipywidgets.Button(description="Add", tooltip="put it at the end of the history")
        self.offers = ipywidgets.HBox(layout={"flex_flow": "row wrap"})
        self.history = ipywidgets.TagsInput(value=list(history), layout=WIDE)
        self.beams = ipywidgets.BoundedIntText(value=p.beams, min=1, max=16, description="beams")
        self.gamma = ipywidgets.BoundedFloatText(
            value=p.gamma, min=0, max=99, step=0.1, description="γ"
        )
        self.constrained = ipywidgets.Checkbox(
            value=p.constrained, description="only titles of the catalogue"
        )
        self.ask = ipywidgets.Button(description="Recommend", button_style="primary")
        self.said, self.shown = ipywidgets.HTML(), ipywidgets.HTML()
        self.typed.observe(self.complete, "value")
        self.typed.on_msg(self.entered)
        self.add.on_click(lambda _: self.put(self.typed.value))
        self.domain.observe(self.change, "value")
        self.ask.on_click(lambda _: self.recommend())

    @property
    def box(self) -> ipywidgets.Widget:
        title_box = ipywidgets.HBox([self.typed, self.add], layout=WIDE)
        settings = ipywidgets.HBox(
            [self.domain, self.beams, self.gamma, self.constrained],
            layout={"flex_flow": "row wrap"},
        )
        label = ipywidgets.HTML("History, oldest first:")
        ask_box = ipywidgets.HBox([self.ask, self.said])
        parts = [settings, title_box, self.offers, label, self.history, ask_box, self.shown]
        return ipywidgets.VBox(parts)

    def complete(self, _: object) -> None:
        """Offer the titles that contain what is typed."""
        self.typed.options = completions(self.typed.value, self.opened.catalogue.titles)

    def entered(self, _: object, content: dict, __: object) -> None:
        """Enter in the field for a title."""
        if content.get("event") == "submit":
            self.put(self.typed.value)

    def put(self, text: str) -> None:
        """Add a title to the history, or offer those nearest to a text that is no title."""
        catalogue = self.opened.catalogue
        number = catalogue.find(text)
        titles = catalogue.alike(text) if number is None and text.strip() else []
        self.offers.children = [self.offer(title) for title in titles]
        if number is not None:
            self.history.value = [*self.history.value, catalogue.titles[number]]
            self.typed.value = ""
            self.say("")
        elif text.strip():
            self.say(catalogue.offer(text))

    def offer(self, title: str) -> ipywidgets.Button:
        """A button that adds a title."""
        button = ipywidgets.Button(description=title, layout={"width": "auto"})
        button.on_click(lambda _: self.put(title))
        return button

    def change(self, _: object) -> None:
        """Open another data set, and begin with an empty history."""
        if self.domain.value == self.opened.dataset:
            return
        self.say("loading …")
        try:
            self.opened = recommender.Recommender.open(
                self.opened.study, self.domain.value, self.project
            )
        except StudyError as error:
            self.say(str(error))
            self.domain.value = self.opened.dataset
            return
        self.history.value, self.shown.value, self.offers.children = [], "", []
        self.say("")

    def recommend(self) -> None:
        """Show what comes of the history, or what is wrong with it."""
        self.ask.disabled = True
        self.say("…")
        start = time.time()
        try:
            recommendation = self.opened.recommend(
                self.history.value,
                self.k,
                self.beams.value,
                self.gamma.value,
                self.constrained.value,
            )
            self.shown.value = tables(recommendation)
            self.say(f"titles read: {len(recommendation.read)}; {time.time() - start:.1f} s")
        except StudyError as error:
            self.say(str(error))
        finally:
            self.ask.disabled = False

    def say(self, text: str) -> None:
        self.said.value = html.escape(text).replace("\n", "<br>")
