"""Columns of a source as numbers, and times of any form as whole numbers of one unit."""

import time
from contextlib import suppress

import numpy as np
import pandas as pd
import pyarrow as pa

from bigrec_lib.files import StudyError

UNITS = ("s", "ms", "us", "ns")
ORDER = "order"  # the unit of numbers that are no dates, such as places in a list
SIZES = {ORDER: 1e8, "s": 1e11, "ms": 1e14, "us": 1e17, "ns": np.inf}  # a usual time is below this
YEAR_2200, YEAR_10000 = 7_258_118_400, 253_402_300_800  # in seconds since 1970
FORMS = (
    "neither a number (seconds, milliseconds, microseconds or nanoseconds since 1970, or an order) "
    "nor a date such as 2020-01-31, 31.1.2020, 31/1/2020, each also with a time of day as in "
    "2020-01-31 10:00:00.5 or 2020-01-31T10:00:00+02:00"
)
DAY_AND_MONTH = r"^(\d{1,2})([./])(\d{1,2})\2(\d{4})(?:,? (\d.*))?$"  # in either order


class DataError(StudyError):
    """A data set cannot be read, or is not what its format says."""


def numbers(column: pd.Series, field: str, name: str) -> np.ndarray:
    """A column as int64, or as float64 if a number has a fraction.

    Raises DataError that names the first row without a value, or with one that is no number.
    """
    column = filled(column, field, name)
    values = numeric(column)
    if values is None:
        row = int(np.argmin(are_numbers(column)))
        raise DataError(f"{name}: row {row + 1} has {field} {column.iloc[row]!r:.60}, not a number")
    return values


def times(column: pd.Series, name: str) -> tuple[np.ndarray, str]:
    """Times as int64 (n,), and their unit: the coarsest of s, ms, us, ns in which all are whole.

    A column may hold numbers (since 1970; their size tells the unit), dates, ISO texts, or texts
    like 31.1.2020 and 31/1/2020 (`year_first`); a date without a zone is in UTC. Fractions of a
    number are read to the microsecond. The unit is ORDER for small numbers, which are no dates; if
    these have fractions, each becomes its place in the order.
    Raises DataError that names the first row without a time, or with one that cannot be read.
    """
    column = filled(column, "time", name)
    if isinstance(column.dtype, pd.DatetimeTZDtype) or column.dtype.kind == "M":
        return of_dates(column)
    values = numeric(column)
    if values is not None:
        return of_numbers(values, name)
    texts = column.map(str).reset_index(drop=True)
    dates = of_texts(texts)
    if dates.isna().any():
        dates = of_texts(texts.where(dates.notna(), year_first(texts[dates.isna()], name)))
    if dates.isna().any():
        is_date, is_number = dates.notna().to_numpy(), are_numbers(column)
        row = int(np.argmin(is_date if is_date.sum() > is_number.sum() else is_number))
        raise DataError(f"{name}: row {row + 1} has time {column.iloc[row]!r:.60}, {FORMS}")
    return of_dates(dates)


def of_texts(texts: pd.Series) -> pd.Series:
    """ISO texts as dates in UTC, NaT for what is none."""
    texts = texts.mask(texts.isin(["now", "today"]))  # which pandas takes for this very moment
    return pd.to_datetime(texts, format="ISO8601", utc=True, errors="coerce")


def year_first(texts: pd.Series, name: str) -> pd.Series:
    """Texts with every 31.1.2020, 31/1/2020 and 1/31/2020 turned into 2020-01-31.

    With dots the day comes first; with slashes, a number above 12 in any row tells which is the
    day. texts: with their row numbers as index. Raises DataError if no row tells, or if two rows
    contradict each other.
    """
    parts = texts.str.extract(DAY_AND_MONTH).dropna(subset=[0])
    has_slash = parts[1] == "/"
    above_12 = [bool((parts[has_slash][place].astype(int) > 12).any()) for place in (0, 2)]
    if has_slash.any() and above_12[0] == above_12[1]:
        row = has_slash.idxmax()
        cause = (
            "some rows have the day first, others the month"
            if above_12[0]
            else "no row tells whether the day or the month comes first"
        )
        raise DataError(
            f"{name}: row {row + 1} has time {texts[row]!r}, and {cause}: write dates as 2020-01-31"
        )
    month_first = has_slash & above_12[1]
    day, month = (parts[a].mask(month_first, parts[b]).str.zfill(2) for a, b in ((0, 2), (2, 0)))
    iso_texts = parts[3] + "-" + month + "-" + day + (" " + parts[4]).fillna("")
    return iso_texts.reindex(texts.index).fillna(texts)


def filled(column: pd.Series, field: str, name: str) -> pd.Series:
    """The column, its texts without outer spaces. Raises DataError if a value is missing."""
    if isinstance(column.dtype, pd.StringDtype):
        column = column.str.strip()
    elif column.dtype == object:
        column = column.map(lambda value: value.strip() if isinstance(value, str) else value)
    gaps = (column.isna() | (column == "")).to_numpy(dtype=bool)
    if gaps.any():
        raise DataError(
            f"{name}: row {int(np.argmax(gaps)) + 1} has no {field} (missing in {gaps.sum()} of "
            f"{len(gaps)} rows): fill it in, or take those rows out"
        )
    return column


def numeric(column: pd.Series) -> np.ndarray | None:
    """A column without gaps as int64, else as float64; None if one is no number below 2^62."""
    try:
        array = pa.array(column)
    except (pa.ArrowException, OverflowError):
        array = pa.array(column.map(str))  # values of several types
    if pa.types.is_temporal(array.type):
        return None
    for kind in (pa.int64(), pa.float64()):
        with suppress(pa.ArrowException):
            values = array.cast(kind).to_numpy(zero_copy_only=False)
            if (np.abs(values.astype(np.float64)) < 2.0**62).all():
                return values
    return None


def are_numbers(column: pd.Series) -> np.ndarray:
    """Which rows `numeric` could read, (n,) bool."""
    values = pd.to_numeric(column.map(str), errors="coerce")
    return values.astype(np.float64).abs().lt(2.0**62).to_numpy(dtype=bool)


def of_dates(dates: pd.Series) -> tuple[np.ndarray, str]:
    """`times` of a column of dates."""
    if isinstance(dates.dtype, pd.DatetimeTZDtype):
        dates = dates.dt.tz_convert("UTC").dt.tz_localize(None)
    moments = dates.to_numpy()
    return coarsest(moments.astype(np.int64), np.datetime_data(moments.dtype)[0])


def of_numbers(values: np.ndarray, name: str) -> tuple[np.ndarray, str]:
    """`times` of numbers: the median's size tells the unit, since a few may be wrong."""
    median = np.median(np.abs(values))
    unit = next(unit for unit, size in SIZES.items() if median < size)
    whole = bool((values == np.floor(values)).all())
    if unit == ORDER:
        if whole:
            return values.astype(np.int64), ORDER
        return np.unique(values, return_inverse=True)[1].astype(np.int64), ORDER
    scale = 1000.0 ** UNITS.index(unit)
    too_large = np.abs(values) >= YEAR_10000 * scale
    if too_large.any():
        row = int(np.argmax(too_large))
        raise DataError(
            f"{name}: row {row + 1} has time {values[row]}, after the year 9999 if it is in {unit} "
            "since 1970, as the others seem to be: give all times in one unit"
        )
    if np.median(values) >= YEAR_2200 * scale:
        raise DataError(
            f"{name}: row 1 has time {values[0]}, and in {unit} since 1970 half of all times are "
            "after the year 2200: write dates as 2020-01-31 or 2020-01-31 10:00:00"
        )
    if whole:
        return coarsest(values.astype(np.int64), unit)
    return coarsest(np.rint(values * (1e6 / scale)).astype(np.int64), "us")


def coarsest(values: np.ndarray, unit: str) -> tuple[np.ndarray, str]:
    """The same times in the coarsest unit in which all are whole numbers.

    >>> coarsest(np.array([1_500_000, 2_000_000]), "us")
    (array([1500, 2000]), 'ms')
    """
    while unit != UNITS[0] and not (values % 1000).any():
        values, unit = values // 1000, UNITS[UNITS.index(unit) - 1]
    return values, unit


def now(unit: str) -> float:
    """This moment in a unit since 1970; infinity for an order, so no place is in the future."""
    return np.inf if unit == ORDER else time.time() * 1000.0 ** UNITS.index(unit)
