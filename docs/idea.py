"""Draw the idea of BIGRec, the figure at the head of the README: `python docs/idea.py`."""

from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.patches import Ellipse, FancyArrowPatch

from bigrec_lib.findings import plots

SPACES = (  # name, centre x and y, width, height, colour
    ("language space:\nall an LLM can say", 4.1, 0, 7.8, 4.9, "#f1f1f1"),
    ("recommendation space:\ntitles that could exist", 4.8, -0.3, 5.9, 3.7, "#d5e5f3"),
    ("item space:\nthe catalogue", 5.75, -0.6, 3.6, 2.4, "#9fc4e3"),
)
ITEMS = {
    "Return of the Jedi (1983)": (5.45, -0.25),
    "Empire Strikes Back, The (1980)": (5.0, -0.65),
    "Alien (1979)": (6.1, -1.2),
}
WRITTEN = (3.15, -0.4)


def arrow(axis, start, end, colour):
    axis.add_patch(
        FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=14, lw=1.8, color=colour)
    )


def main() -> None:
    plots.style()
    figure, axis = plt.subplots(figsize=(10, 4.3))
    axis.set(xlim=(-3.4, 11.9), ylim=(-2.7, 2.75), aspect="equal")
    axis.axis("off")
    for name, x, y, width, height, colour in SPACES:
        axis.add_patch(Ellipse((x, y), width, height, facecolor=colour, edgecolor="#666", lw=0.8))
        axis.text(x, y + height / 2 - 0.12, name, ha="center", va="top", fontsize=8)
    axis.text(-3.3, 0.95, "the user watched", fontsize=9, weight="bold")
    axis.text(-3.3, 0.75, "“Star Wars (1977)”\n“Blade Runner (1982)”\n…", va="top", fontsize=9)
    arrow(axis, (-0.6, -0.25), (WRITTEN[0] - 0.12, WRITTEN[1]), plots.PALETTE[3])
    axis.text(
        -3.3, -0.75, "step 1: the tuned LLM\nwrites a title", fontsize=9, color=plots.PALETTE[3]
    )
    axis.plot(*WRITTEN, marker="*", markersize=15, color=plots.PALETTE[3])
    axis.text(
        WRITTEN[0],
        WRITTEN[1] - 0.3,
        "“The Empire\nStrikes Back”",
        ha="center",
        va="top",
        fontsize=8,
        style="italic",
    )
    for place in ITEMS.values():
        axis.plot(*place, marker="o", markersize=6, color=plots.PALETTE[0])
        axis.plot(*zip(WRITTEN, place, strict=True), ls=":", lw=1, color="#444", zorder=1)
    arrow(axis, (7.65, -0.2), (8.3, -0.2), plots.PALETTE[0])
    axis.text(
        8.4,
        1.05,
        "step 2: rank the whole\ncatalogue by L2 distance",
        fontsize=9,
        color=plots.PALETTE[0],
    )
    by_distance = sorted(
        ITEMS, key=lambda t: sum((a - b) ** 2 for a, b in zip(ITEMS[t], WRITTEN, strict=True))
    )
    lines = [f"{rank}. {title}" for rank, title in enumerate(by_distance, 1)]
    axis.text(8.4, 0.75, "\n".join([*lines, "…"]), va="top", fontsize=8.5)
    axis.text(
        8.4,
        -0.75,
        "optional: pull popular, or\ncollaboratively likely,\nitems closer",
        va="top",
        fontsize=8.5,
        color="#444",
    )
    plots.save(figure, Path(__file__).parent, "idea")


if __name__ == "__main__":
    main()
