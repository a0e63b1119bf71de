"""Times of every make are whole numbers of one unit, in the order they had; against integers."""

from datetime import UTC, date, datetime, timedelta, timezone
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bigrec_lib.method.values import DataError, numbers, times

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
FACTOR = {"s": 1_000_000, "ms": 1000, "us": 1}  # microseconds


def moment(us: int) -> datetime:
    return EPOCH + timedelta(microseconds=us)


def clock(form: str, zone=UTC):
    return lambda us: moment(us).astimezone(zone).strftime(form)


EAST = timezone(timedelta(hours=5, minutes=30))
DAY = 86_400_000_000
MAKES = {  # make -> how a moment in microseconds is written, and the precision that this keeps
    "date": (clock("%Y-%m-%d"), DAY),
    "T": (clock("%Y-%m-%dT%H:%M:%S"), 1_000_000),
    "space": (clock("%Y-%m-%d %H:%M:%S"), 1_000_000),
    "minutes": (clock("%Y-%m-%d %H:%M"), 60_000_000),
    "Z": (clock("%Y-%m-%dT%H:%M:%SZ"), 1_000_000),
    "offset": (lambda us: moment(us).astimezone(EAST).isoformat(" ", "seconds"), 1_000_000),
    "short offset": (clock("%Y-%m-%dT%H:%M:%S%z", EAST), 1_000_000),
    "milliseconds Z": (lambda us: moment(us).isoformat("T", "milliseconds")[:-6] + "Z", 1000),
    "fraction": (clock("%Y-%m-%d %H:%M:%S.%f"), 1),
    "fraction, offset": (lambda us: moment(us).astimezone(EAST).isoformat(), 1),
    "outer spaces": (clock("  %Y-%m-%d %H:%M:%S.%f "), 1),
    "epoch s": (lambda us: us // 1_000_000, 1_000_000),
    "epoch ms": (lambda us: us // 1000, 1000),
    "epoch us": (lambda us: us, 1),
    "epoch ns": (lambda us: us * 1000, 1),
    "epoch float": (lambda us: us / 1e6, 1),
    "epoch float ms": (lambda us: us / 1e3, 1),
    "epoch text": (lambda us: f"{us // 1_000_000}.{us % 1_000_000:06}", 1),
    "datetime": (lambda us: moment(us).replace(tzinfo=None), 1),
    "datetime, zone": (lambda us: moment(us).astimezone(EAST), 1),
    "day first": (clock("%d.%m.%Y"), DAY),
    "day first, time": (clock("%d.%m.%Y, %H:%M:%S"), 1_000_000),
    "date object": (lambda us: moment(us).date(), DAY),
}
moments = st.integers(10**15, 4 * 10**15)  # 2001 ... 2096


@pytest.mark.parametrize("make", MAKES)
@settings(max_examples=60, deadline=None)
@given(st.lists(moments, min_size=1, max_size=8))
def test_times_of_every_make_are_the_moments_they_were_written_from(make, wanted):
    write, precision = MAKES[make]
    values, unit = times(pd.Series([write(us) for us in wanted]), "log.csv")
    assert values.dtype == np.int64
    assert [value * FACTOR[unit] for value in values.tolist()] == [
        us - us % precision for us in wanted
    ]
    coarser = [other for other in FACTOR if FACTOR[other] > FACTOR[unit]]
    assert not any((values * FACTOR[unit] % FACTOR[other] == 0).all() for other in coarser)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(moments, st.sampled_from([*MAKES][:11])), min_size=1, max_size=8))
def test_texts_of_several_makes_stand_in_one_column(rows):
    values, unit = times(pd.Series([MAKES[make][0](us) for us, make in rows]), "log.csv")
    wanted = [us - us % MAKES[make][1] for us, make in rows]
    assert [value * FACTOR[unit] for value in values.tolist()] == wanted


@given(st.lists(st.fractions(0, 1000, max_denominator=1000), min_size=1, max_size=12))
def test_an_order_stays_one(places):
    values, unit = times(pd.Series([float(place) for place in places]), "log.csv")
    assert unit == "order"
    exact = [Fraction(float(place)) for place in places]
    for a, x in zip(exact, values, strict=True):
        for b, y in zip(exact, values, strict=True):
            assert (a < b) == (x < y) and (a == b) == (x == y)


@given(st.lists(moments, min_size=1, max_size=12), st.booleans())
def test_slashed_dates_are_read_where_a_row_tells_the_day_from_the_month(wanted, month_first):
    form = "%m/%d/%Y %H:%M" if month_first else "%d/%m/%Y %H:%M"
    texts = pd.Series([clock(form)(us) for us in wanted])
    if max(moment(us).day for us in wanted) <= 12:
        with pytest.raises(DataError, match="no row tells"):
            times(texts, "log.csv")
        return
    values, unit = times(texts, "log.csv")
    minutes = [us // 60_000_000 for us in wanted]
    assert unit == "s" and (values // 60).tolist() == minutes


def test_nanoseconds_keep_their_order():
    texts = ["2020-01-01T00:00:00.000000002Z", "2020-01-01T00:00:00.000000001Z"]
    start = 1_577_836_800 * 10**9
    for column in (texts, [start + 2, start + 1], [str(start + 2), str(start + 1)]):
        values, unit = times(pd.Series(column), "log.csv")
        assert (values.tolist(), unit) == ([start + 2, start + 1], "ns")


def test_whole_seconds_stay_seconds_and_old_dates_are_dates():
    for column in ([978_300_019_000, 978_300_020_000], [978_300_019.0, 978_300_020.0]):
        values, unit = times(pd.Series(column), "log.csv")
        assert (values.tolist(), unit) == ([978_300_019, 978_300_020], "s")
    values, unit = times(pd.Series(["0001-01-01", "1969-12-31", "9999-12-31"]), "log.csv")
    wanted = [date(1, 1, 1), date(1969, 12, 31), date(9999, 12, 31)]
    assert values.tolist() == [(day - date(1970, 1, 1)).days * 86_400 for day in wanted]


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (["2020-01-02", None, "2020-01-01", ""], r"row 2 has no time \(missing in 2 of 4 rows\)"),
        (["2020-01-02", "  "], "row 2 has no time"),
        ([1.5, float("nan")], "row 2 has no time"),
        (["2020-01-02", "2020-02-30"], "row 2 has time '2020-02-30', neither a number"),
        (["1", "2", "soon"], "row 3 has time 'soon'.*nor a date"),
        (["2020-01-02", "02/01/2020"], "row 2 has time '02/01/2020', and no row tells whether"),
        (["13/01/2020", "01/13/2020"], "row 1 .* some rows have the day first, others"),
        (["31.2.2020"], "row 1 has time '31.2.2020', neither a number"),
        ([1, "2020-01-02", "2020-01-03"], "row 1 has time 1, neither"),
        (
            [20200102100000, 20210102100000],
            "row 1 has time 20200102100000, and in ms .* 2200: write",
        ),
        ([900_000_000, 900_000_001, 900_000_001_000], "row 3 .* after the year 9999 if .* in s "),
        ([1, True, "yes"], "row 2 has time True"),
        ([1, 2, [3]], r"row 3 has time \[3\]"),
        ([1, 2, 10**400], "row 3 has time 1000"),
    ],
)
def test_what_is_no_time_is_named_with_its_row(column, message):
    with pytest.raises(DataError, match=f"^log.csv: {message}"):
        times(pd.Series(column, dtype=object), "log.csv")


def test_numbers_name_what_is_none():
    assert numbers(pd.Series(["3", " 4.5 "]), "rating", "log.csv").tolist() == [3, 4.5]
    with pytest.raises(DataError, match="log.csv: row 2 has no rating"):
        numbers(pd.Series(["3", None]), "rating", "log.csv")
    with pytest.raises(DataError, match="row 2 has rating 'good', not a number"):
        numbers(pd.Series(["3", "good"]), "rating", "log.csv")
    with pytest.raises(DataError, match="row 1 has rating .*not a number"):
        numbers(pd.Series(pd.to_datetime(["2020-01-01"])), "rating", "log.csv")
