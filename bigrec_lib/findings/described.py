"""What a figure shows, in words and from its own numbers, for readers who do not see it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from matplotlib.axes import Axes
from matplotlib.category import StrCategoryFormatter
from matplotlib.container import BarContainer, ErrorbarContainer
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

NAMED = (FuncFormatter, StrCategoryFormatter)  # of ticks with names instead of numbers
MOST = 8  # lines of a panel that are told one by one


def figure(drawn: Figure) -> str:
    """All panels of a figure, one after the other."""
    panels = [text for axis in drawn.axes if axis.get_visible() and (text := panel(axis))]
    several = [f"{len(panels)} panels."] if len(panels) > 1 else []
    return " ".join([*several, *panels])


def panel(axis: Axes) -> str:
    """Title, axes and data of one panel; '' if it has neither."""
    axes = " over ".join(filter(None, (plain(axis.get_ylabel()), plain(axis.get_xlabel()))))
    head = ": ".join(filter(None, (plain(axis.get_title()), axes)))
    told = [*lines(axis), *bars(axis), *points(axis)]
    more = [f"and {len(told) - MOST} more"] if len(told) > MOST else []
    body = "; ".join([*told[:MOST], *more])
    return ": ".join(filter(None, (head, body))) + "." if head or body else ""


def lines(axis: Axes) -> Iterator[str]:
    """Each line that the legend names, from its first value to its last."""
    for line in axis.lines:
        name, values = str(line.get_label()), numbers(line.get_ydata(False))
        if not name.startswith("_") and len(values) > 1:
            yield f"{name} from {values[0]:.3g} to {values[-1]:.3g}"


def bars(axis: Axes) -> Iterator[str]:
    """Each set of bars by its range; each mean with an interval by its place."""
    for group in axis.containers:
        name = str(group.get_label())
        name = "" if name.startswith("_") else name
        if isinstance(group, BarContainer):
            heights = numbers([bar.get_height() for bar in group])
            if len(heights):
                yield f"{name or 'bars'} from {heights.min():.3g} to {heights.max():.3g}"
        elif isinstance(group, ErrorbarContainer) and group[0] is not None:
            mean = group[0]
            yield from extremes(axis, name, mean.get_xdata(False), mean.get_ydata(False))


def points(axis: Axes) -> Iterator[str]:
    """Each cloud of points by its highest and lowest."""
    for cloud in axis.collections:
        offsets = np.ma.filled(cloud.get_offsets(), np.nan)
        name = str(cloud.get_label())
        if type(cloud).__name__ == "PathCollection" and len(offsets):
            shown = "" if name.startswith("_") else name
            yield from extremes(axis, shown, offsets[:, 0], offsets[:, 1])


def extremes(axis: Axes, name: str, x, y) -> Iterator[str]:
    """The highest and the lowest of some points, by the name of their line or column."""
    x, y = numbers(x), numbers(y)
    if not len(x):
        return
    sideways = isinstance(axis.yaxis.get_major_formatter(), NAMED)
    values, places, along = (x, y, axis.yaxis) if sideways else (y, x, axis.xaxis)
    high, low = (place_name(along, places[at(values)]) for at in (np.argmax, np.argmin))
    word = f"{name}: " if name else ""
    if len(values) == 1:
        yield f"{word}{values[0]:.3g}{high}"
    else:
        yield f"{word}highest {values.max():.3g}{high}, lowest {values.min():.3g}{low}"


def place_name(along, place: float) -> str:
    """The text of the tick at a place, in brackets; '' for none."""
    formatter = along.get_major_formatter()
    name = plain(formatter(round(float(place)), 0)) if isinstance(formatter, NAMED) else ""
    return f" ({name})" if name else ""


def numbers(values) -> np.ndarray:
    """Values as floats, (n,)."""
    return np.asarray(values, float).ravel()


def plain(text: str) -> str:
    return " ".join(text.split())
