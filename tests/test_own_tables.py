"""Tables of one's own in every format, encoding and way of quoting; no row vanishes."""

import csv
import gzip
import io
import json
import shutil
import struct
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_datasets import (
    EVENTS,
    FILMS,
    NATIVE,
    TABLE_HEAD,
    WANTED,
    check_corpus,
    lines,
    load_tables,
    put,
    shown,
    write_tables,
)

from bigrec_lib.method import readers, tables
from bigrec_lib.method.pickles import pickled_frame
from bigrec_lib.method.sources import Source, text_of
from bigrec_lib.method.values import DataError

ENCODINGS = ["utf-8", "utf-8-sig", "utf-16", "utf-32", "latin-1", "cp1252"]
TEXTS = [name for name, (_, write) in NATIVE.items() if write.__name__ not in
         ("write_pickle", "write_seqrec", "write_amazon", "write_2014", "write_2023")]  # fmt: skip


def encoded_anew(folder, encoding, end):
    """Put every text of a folder into another encoding, with other ends of its lines."""
    for file in sorted(folder.iterdir()):
        data = file.read_bytes()
        packed = file.suffix == ".gz"
        text = text_of(gzip.decompress(data) if packed else data, file.name).decode()
        data = text.replace("\n", end).encode(encoding)
        file.write_bytes(gzip.compress(data) if packed else data)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("name", TEXTS)
def test_a_native_text_that_someone_encoded_anew_reads_the_same(tmp_path, name, encoding, end):
    reader, write = NATIVE[name]
    write(tmp_path, FILMS, EVENTS)
    encoded_anew(tmp_path, encoding, end)
    corpus = readers.load(reader, str(tmp_path))
    assert shown(corpus) == WANTED
    assert corpus.items.title[2] == "Amélie (2001)"


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("kind", ["csv", "csv.gz", "tsv", "jsonl"])
def test_a_table_reads_the_same_in_every_encoding(tmp_path, kind, encoding, end):
    write_tables(tmp_path, kind)
    encoded_anew(tmp_path, encoding, end)
    corpus = load_tables(tmp_path, kind)
    assert shown(corpus) == WANTED
    assert corpus.items.title[2] == "Amélie (2001)"


@pytest.mark.parametrize("encoding", ["cp1252", "latin-1"])
@given(st.lists(st.sampled_from("aé ÄÖß\n"), max_size=30).map("".join))
def test_text_without_a_mark_is_utf_8_else_latin_1(encoding, text):
    assert text_of(text.encode(), "log.csv").decode() == text
    assert text_of(text.encode(encoding), "log.csv").decode() == text


def test_text_in_two_encodings_is_refused_with_its_line():
    text = "é\nü\n".encode() + "ä\n".encode("latin-1") + b"a\n"
    with pytest.raises(DataError, match="log.csv, line 3: not in UTF-8, though the rest"):
        text_of(text, "log.csv")
    with pytest.raises(DataError, match="line 1: not in UTF-16-LE"):
        text_of("é".encode("utf-16") + b"\0", "log.csv")


TITLES = [
    'Tom "T" Hanks',
    'The\n"Burbs"',
    "Killers, The; a\ttab|bar",
    '5" Floppy',
    '"',
    "Crlf\r\nII",
]


@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
@pytest.mark.parametrize("sep", list(",;\t|"))
@pytest.mark.parametrize("kind", ["csv", "tsv"])
def test_a_table_that_quotes_keeps_every_character(tmp_path, kind, sep, quoting):
    with open(tmp_path / f"log.{kind}", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter=sep, quoting=quoting)
        writer.writerow(TABLE_HEAD)
        writer.writerows(("007", f"0{n}", n, title) for n, title in enumerate(TITLES))
    corpus = readers.load("table", str(tmp_path / f"log.{kind}"))
    assert corpus.items.raw_title.tolist() == [title.replace("\r\n", "\n") for title in TITLES]
    assert corpus.items.item_id.tolist() == [f"0{n}" for n in range(len(TITLES))]


titled = st.lists(st.text('ab" ', max_size=5).filter(str.strip), min_size=1, max_size=8)


@settings(max_examples=300, deadline=None)
@given(titled, st.sampled_from("\t;|"))
def test_no_row_vanishes_where_quotes_are_literal(titles, sep):
    rows = [(f"u{n}", title, n) for n, title in enumerate(titles)]
    text = lines(rows, sep, ("user", "title", "time")).encode()
    names = {"user": "user", "title": "title", "time": "time"}
    frame = tables.delimited(text, "log.tsv", names, sep, quotable=True)
    assert frame.user.tolist() == [user for user, _, _ in rows]
    assert frame.time.tolist() == [str(time) for _, _, time in rows]
    unquoted = [next(csv.reader([title])) for title in titles]
    for read, title, (other, *_) in zip(frame.title, titles, unquoted, strict=True):
        assert read in (title, other) or (title == '""' and pd.isna(read))


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.text('ab",;\t é', max_size=6) | st.text('ab"\n é', max_size=6), min_size=1),
    st.sampled_from(",;\t"),
)
def test_a_quoted_text_is_what_its_writer_wrote(titles, sep):
    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter=sep, lineterminator="\n")
    writer.writerow(["title", "time"])
    writer.writerows((title, n) for n, title in enumerate(titles))
    names = {"title": "title", "time": "time"}
    frame = tables.delimited(text.getvalue().encode(), "log.csv", names, sep, quotable=True)
    assert frame.title.fillna("").tolist() == titles
    assert frame.time.tolist() == [str(n) for n in range(len(titles))]


def test_unpaired_quotes_take_no_row_away(tmp_path):
    titles = ['"Heat', "Fargo", 'Alien"', "Brazil", '"Crocodile" Dundee', "Se7en"]
    rows = [("u", str(n), n, title) for n, title in enumerate(titles)]
    for kind, sep in (("tsv", "\t"), ("csv", ","), ("csv", ";")):
        put(tmp_path / f"log.{kind}", lines(rows, sep, TABLE_HEAD))
        corpus = readers.load("table", str(tmp_path / f"log.{kind}"))
        assert corpus.items.raw_title.tolist() == titles
    put(tmp_path / "log.csv", lines([*rows, ("u", "9", 9, '"Killers, The')], ",", TABLE_HEAD))
    with pytest.raises(DataError, match=r"log.csv, line \d+: .*must end with a quote"):
        readers.load("table", str(tmp_path / "log.csv"))
    put(tmp_path / "two.tsv", 'user\titem\ttime\ttitle\nu\t1\t1\t"Heat\nu\t2\t2\tFargo"\n')
    corpus = readers.load("table", str(tmp_path / "two.tsv"))
    assert corpus.items.title.tolist() == ["'Heat", "Fargo'"]


def test_rows_are_compared_with_lines(tmp_path, monkeypatch):
    put(tmp_path / "log.csv", "user,item,time,title\nu,a,1,A\nu,b,2,B\n")
    read = tables.arrow_csv.read_csv
    monkeypatch.setattr(tables.arrow_csv, "read_csv", lambda *given: read(*given).slice(1))
    with pytest.raises(DataError, match="log.csv has 3 lines, of which 2 could be read"):
        readers.load("table", str(tmp_path / "log.csv"))


def test_empty_lines_and_a_missing_last_end_are_no_rows(tmp_path):
    put(tmp_path / "log.csv", '\nuser,item,time,title\n\nu,a,1,"A"\n\n\nu,b,2,B')
    assert shown(readers.load("table", str(tmp_path / "log.csv"))) == [(0, "a", 1), (0, "b", 2)]


def test_parquet_columns_of_every_kind_of_text(tmp_path):
    path = str(tmp_path / "log.parquet")
    ids, names = ["007", "08", "7"], ["Amélie", "Heat", "Heat 2"]
    wanted = [(0, "007", 1), (0, "08", 2), (0, "7", 3)]
    kinds = [
        pa.string(),
        pa.large_string(),
        pa.string_view(),
        pa.dictionary(pa.int8(), pa.string()),
    ]
    for kind in kinds:
        columns = {
            "user": pa.array(["u"] * 3).cast(kind),
            "item": pa.array(ids).cast(kind),
            "time": pa.array([1, 2, 3]).dictionary_encode(),
            "title": pa.array(names).cast(kind),
        }
        pq.write_table(pa.table(columns), path)
        corpus = readers.load("table", path)
        assert shown(corpus) == wanted and corpus.items.title.tolist() == names
    frame = pd.DataFrame({"user": "u", "item": ids, "time": [1, 2, 3], "title": names})
    frame.astype({"user": "category", "item": "category", "title": "category"}).to_parquet(path)
    assert shown(readers.load("table", path)) == wanted
    texts = pd.Categorical([" 2020-01-01", "2020-01-02 ", "2020-01-03T00:00:00Z"])
    for time in (
        texts,
        ["2020-01-01", "2020-01-02", "2020-01-03T00:00:00Z"],
        [1.577e9, 1.578e9, 1.579e9],
    ):
        frame.assign(time=time).to_parquet(path)
        assert readers.load("table", path).unit == "s"


def test_json_lines_take_numbers_for_ids_and_titles(tmp_path):
    rows = [
        {"user": 7, "item": "007", "time": "2020-01-01T00:00:00.5Z", "title": 1917},
        {"user": "7", "item": 7, "time": "2020-01-01", "title": "Se7en", "more": [1]},
    ]
    put(tmp_path / "log.jsonl", "\n\n".join(map(json.dumps, rows)))
    corpus = readers.load("table", str(tmp_path / "log.jsonl"))
    start = 1_577_836_800_000
    assert shown(corpus) == [(0, "7", start), (0, "007", start + 500)] and corpus.unit == "ms"
    assert corpus.items.title.tolist() == ["1917", "Se7en"]
    for value in (None, True, "", [1], float("nan")):
        put(
            tmp_path / "log.jsonl",
            json.dumps(rows[0]) + "\n" + json.dumps(rows[1] | {"user": value}),
        )
        with pytest.raises(DataError, match="log.jsonl, line 2: user is"):
            readers.load("table", str(tmp_path / "log.jsonl"))


@pytest.mark.parametrize("kind", ["csv", "csv.gz", "tsv", "jsonl", "parquet"])
def test_half_a_second_orders_in_every_format(tmp_path, kind):
    texts = [f"2020-01-02T10:00:00.{end}" for end in ("9Z", "100Z", "5000+00:00")]
    for times in (texts, [1_577_959_200_900, 1_577_959_200_100, 1_577_959_200_500],
                  [1_577_959_200.9, 1_577_959_200.1, 1_577_959_200.5]):  # fmt: skip
        events = [("u", item, 5, time) for item, time in zip(("10", "9", "8"), times, strict=True)]
        write_tables(tmp_path, kind, events=events)
        corpus = load_tables(tmp_path, kind)
        check_corpus(corpus)
        start = 1_577_959_200_000
        assert shown(corpus) == [
            (0, "9", start + 100),
            (0, "8", start + 500),
            (0, "10", start + 900),
        ]
        assert corpus.unit == "ms"


def test_a_home_is_found(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    write_tables(tmp_path / "data", "csv")
    corpus = load_tables(type(tmp_path)("~/data"), "csv")
    assert shown(corpus) == WANTED
    shutil.make_archive(str(tmp_path / "films"), "zip", tmp_path / "data")
    with pytest.raises(DataError, match="no file of ratings"):
        readers.load("ml-100k", "~/films.zip")
    with pytest.raises(DataError, match="~nobody-here/films.zip cannot be read as ml-100k"):
        readers.load("ml-100k", "~nobody-here/films.zip")


def table_of(folder, text):
    (folder / "shop.csv").write_text("user,item,time,title" + text)
    return str(folder / "shop.csv")


def test_a_title_counts_wherever_it_stands(tmp_path):
    rows = "\nu1,i1,1,\nu1,i2,2,Fargo\nu2,i1,3,Heat\nu2,i2,4,Fargo\nu1,i1,5,Heat\n"
    corpus = readers.load("table", table_of(tmp_path, rows))
    assert corpus.items.title.tolist() == ["Heat", "Fargo"] and len(corpus.interactions) == 5


@pytest.mark.parametrize("time", ["-9223372036854775808", "today", "now"])
def test_what_is_no_time_is_named(tmp_path, time):
    first = "1600000000" if time[0] == "-" else "2020-01-01"
    rows = f"\nu1,i1,{first},Heat\nu1,i2,{time},Fargo\n"
    with pytest.raises(DataError, match=f"row 2 has time '{time}'"):
        readers.load("table", table_of(tmp_path, rows))


def test_a_very_long_value_leaves_quotes_what_they_are(tmp_path):
    rows = ',review\nu1,i1,1,"Heat","ok"\nu1,i2,2,"Good, Bad","' + "x " * 70_000 + '"\n'
    columns = {name: name for name in ("user", "item", "time", "title")}
    found = tables.any_table(Path(table_of(tmp_path, rows)), columns)
    assert found.title.tolist() == ["Heat", "Good, Bad"]


def test_a_file_in_two_folders_is_not_guessed(tmp_path):
    for name in ("a", "b"):
        put(tmp_path / name / "u.data", "1")
    with pytest.raises(DataError, match="several folders in .* have a u.data"):
        Source(tmp_path).open("u.data")
    put(tmp_path / "u.data", "2")
    assert Source(tmp_path).open("u.data").read() == b"2"


def test_a_pickle_gets_no_more_memory_than_it_has_bytes(tmp_path):
    import resource

    claimed = 3_000_000_000
    (tmp_path / "t.pkl").write_bytes(b"\x80\x05\x96" + struct.pack("<Q", claimed) + b".")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(DataError, match="t.pkl is not the table"):
        pickled_frame(Source(tmp_path), "t.pkl", ["ItemID"])
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < claimed / 1024 / 4
