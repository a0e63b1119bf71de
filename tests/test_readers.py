"""Every reader on small files in its native format; damaged and hostile input."""

import gzip
import json
import lzma
import os
import pickle
import shutil
import zipfile
from collections import Counter
from contextlib import suppress
from pathlib import Path
from time import perf_counter

import numpy as np
import pandas as pd
import pytest
from toy_datasets import (
    DOMAINS,
    EVENTS,
    FILMS,
    NATIVE,
    TABLE_HEAD,
    WANTED,
    check_corpus,
    lines,
    load_tables,
    put,
    seqrec_frames,
    shown,
    write_1m,
    write_100k,
    write_2014,
    write_amazon,
    write_csv,
    write_frame,
    write_seqrec,
    write_tables,
)

from bigrec_lib import files
from bigrec_lib.method import assets, readers, sequences, sources
from bigrec_lib.method.corpus import DataError
from bigrec_lib.study import expansion, parameters, provenance, schema

REAL = os.environ.get("BIGREC_SEQREC", "")  # a folder of the real zips, to read them by hand


@pytest.mark.parametrize("name", NATIVE)
@pytest.mark.parametrize("packed", [False, True])
def test_every_native_format_gives_the_same_corpus(tmp_path, name, packed):
    reader, write = NATIVE[name]
    write(tmp_path / "data", FILMS, EVENTS)
    path = tmp_path / "data"
    if packed:
        path = shutil.make_archive(str(tmp_path / "data"), "zip", tmp_path, "data")
    corpus = readers.load(reader, str(path))
    check_corpus(corpus)
    assert shown(corpus) == WANTED
    assert corpus.items.title.tolist() == [
        "Killers, The (1946)", "Star Wars: Episode IV (1977)", "Amélie (2001)", "Heat (1995)",
    ]  # fmt: skip
    assert corpus.domain == DOMAINS.get(reader, "movies") and corpus.unit == "s"
    assert corpus.drops["repeated interactions"] == 1
    assert corpus.drops.get("listed items without a review", 1) == 1
    assert "split" not in corpus.interactions


def test_a_study_takes_every_name_of_the_registry():
    study = schema.Study(datasets={name: {} for name in readers.READERS}, n_train=[1], seeds=[0])
    planned = expansion.jobs("any", study).values()
    prepared = [job for job in planned if isinstance(job, parameters.PrepareData)]
    assert {job.dataset for job in prepared} == set(readers.READERS)
    assert set(assets.DATA) <= set(readers.READERS)


@pytest.mark.parametrize("kind", ["csv", "csv.gz", "tsv", "jsonl", "json.gz", "parquet"])
def test_a_table_of_ones_own(tmp_path, kind):
    write_tables(tmp_path, kind)
    corpus = load_tables(tmp_path, kind)
    check_corpus(corpus)
    assert shown(corpus) == WANTED and corpus.domain == "items"


def test_a_table_with_titles_in_it_our_names_dates_and_a_split(tmp_path):
    text = 'user,item,time,title,fold\nu,b,2020-01-02,"Two, ""2""\n",test\nu,a,2020-01-01,One,train'
    put(tmp_path / "log.csv", text)
    corpus = readers.load("table", str(tmp_path / "log.csv"), columns={"split": "fold"})
    assert corpus.items.title.tolist() == ["One", "Two, '2'"]
    assert shown(corpus) == [(0, "a", 1_577_836_800), (0, "b", 1_577_923_200)]
    assert corpus.interactions.split.tolist() == ["train", "test"]
    days = pd.to_datetime(["2020-01-01", "2020-01-02"])
    frame = pd.DataFrame({"user": [7, 7], "item": [2, 1], "time": days, "title": ["A", "B"]})
    for time in (frame.time, frame.time.dt.tz_localize("UTC"), frame.time.dt.date):
        frame.assign(time=time).to_parquet(tmp_path / "log.parquet")
        corpus = readers.load("table", str(tmp_path / "log.parquet"))
        assert shown(corpus) == [(0, "2", 1_577_836_800), (0, "1", 1_577_923_200)]


def test_a_pickle_is_read_without_running_it(tmp_path):
    class Hostile:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path}/done",)

    with lzma.open(tmp_path / "movielens.pkl.compress", "wb") as file:
        pickle.dump(Hostile(), file)
    with pytest.raises(DataError, match=r"asks for posix.system: .* refused"):
        readers.load("ml-latest-small", str(tmp_path))
    assert not (tmp_path / "done").exists()
    with lzma.open(tmp_path / "movielens.pkl.compress", "wb") as file:
        pickle.dump({"_mgr": 1}, file)
    with pytest.raises(DataError, match="not the table of movieId, .* it should be"):
        readers.load("ml-latest-small", str(tmp_path))


def test_the_zips_of_seqrec_are_read_without_running_them(tmp_path):
    """Another class, another pickle, another table: refused, with the names of file and class."""
    write_seqrec(tmp_path, FILMS, EVENTS)
    good = (tmp_path / "item2title.pkl").read_bytes()

    def refused(content, message, file="item2title.pkl"):
        (tmp_path / file).write_bytes(content)
        path = shutil.make_archive(str(tmp_path.parent / "bad"), "zip", tmp_path)
        for place in (path, str(tmp_path)):
            with pytest.raises(DataError, match=message):
                readers.load("food", place)
        (tmp_path / file).write_bytes(good)

    class Hostile:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path}/done",)

    refused(pickle.dumps(Hostile()), "item2title.pkl asks for posix.system: .* refused")
    assert not (tmp_path / "done").exists()
    renamed = good.replace(b"BlockManager", b"BlockMonager")
    refused(renamed, r"item2title.pkl asks for pandas.core.internals.managers.BlockMonager")
    refused(good.replace(b"\x05numpy\x94", b"\x05posix\x94"), "asks for posix.dtype")
    refused(pickle.dumps(["a", "list"]), "not the table of ItemID, Title it should be")
    refused(good[:-50], "not the table of ItemID, Title it should be")
    refused((tmp_path / "user2item.pkl").read_bytes(), "it should be: KeyError.'Title'")
    refused(b"\x80\x05K\x01r\xff\xff\xff\xff.", "not the table")  # place 2^32 of its memory
    frame = pd.DataFrame({"ItemID": [1, 2], "Title": ["A", "B"]})
    refused(pickle.dumps(frame), "item2title.pkl asks for pandas")  # as pandas 3 names its classes
    lists, _ = seqrec_frames(FILMS, EVENTS)
    good = (tmp_path / "user2item.pkl").read_bytes()
    for changed, message in [
        (lists.assign(ItemID=["10", [9], [8]]), "user2item.pkl: ItemID does not hold a list"),
        (
            lists.assign(Timestamp=[[1], [2], [3]]),
            "3 of 3 users, 11 among them, have not as many",
        ),
        (lists.map(lambda v: [None] * len(v) if isinstance(v, list) else v), "ItemID holds None"),
        (lists.assign(UserID=[1.0, 2.0, 3.0]), "user2item.pkl: UserID holds 1.0, not whole numb"),
    ]:
        write_frame(tmp_path / "changed.pkl", changed)
        refused((tmp_path / "changed.pkl").read_bytes(), message, "user2item.pkl")
    (tmp_path / "changed.pkl").unlink()
    assert len(readers.load("food", str(tmp_path)).interactions) == len(WANTED)


def test_a_data_set_of_seqrec_is_as_large_as_its_summary_says(tmp_path):
    for what, wrong in [("user_size", 4), ("item_size", 3), ("interactions", 7)]:
        write_seqrec(tmp_path, FILMS, EVENTS, **{what: wrong})
        with pytest.raises(
            DataError, match=f"summary.json says .*'{what}': {wrong}.* tables hold "
        ):
            readers.load("seqrec", str(tmp_path))
    for text in ("[]", "{", '{"user_size": 3}', "1", "[" * 100_000):
        put(tmp_path / "summary.json", text)
        with pytest.raises(DataError, match="summary.json has no numbers of user_size, item_size"):
            readers.load("seqrec", str(tmp_path))
    (tmp_path / "summary.json").unlink()
    with pytest.raises(DataError, match="no file .*summary.json"):
        readers.load("seqrec", str(tmp_path))


@pytest.mark.skipif(not REAL, reason="BIGREC_SEQREC is not set to a folder of the real zips")
@pytest.mark.parametrize("name", ["movielens-1m", "amazon2018-game", "food"])
def test_the_real_zips_of_seqrec_are_read_within_seconds(name):
    path, start = Path(REAL, f"{name}.zip"), perf_counter()
    assert assets.DATA[name].digest == files.sha256(path)
    corpus = readers.load(name, str(path))
    seconds = perf_counter() - start
    with zipfile.ZipFile(path) as archive:
        summary = json.loads(archive.read("summary.json"))
    sizes = corpus.interactions.user.nunique(), len(corpus.items), len(corpus.interactions)
    print(f"{name}: {sizes} in {seconds:.1f} s, peak so far {provenance.peak_memory_gb():.2f} GB")
    assert sizes == tuple(summary[what] for what in ("user_size", "item_size", "interactions"))


def test_titles_and_ids_of_seqrec_may_be_texts_and_numbers(tmp_path):
    write_seqrec(tmp_path, FILMS, EVENTS)
    titles = pd.DataFrame({"ItemID": [7, 8, 9, 10], "Title": [1917, None, "  A &amp;\n B ", 2.5]})
    write_frame(tmp_path / "item2title.pkl", titles)
    corpus = readers.load("seqrec", str(tmp_path))
    assert corpus.items.title.tolist() == ["2.5", "1917", "A & B"]
    assert corpus.drops["items without a title"] == 1
    lists, titles = seqrec_frames(FILMS, EVENTS)
    lists["ItemID"] = lists["ItemID"].map(lambda items: [f"0{item}" for item in items])
    write_frame(tmp_path / "user2item.pkl", lists.assign(UserID=["a", "b", "c"]))
    write_frame(
        tmp_path / "item2title.pkl", titles.assign(ItemID=("0" + titles.ItemID.astype(str)))
    )
    assert readers.load("seqrec", str(tmp_path)).items.item_id.tolist() == ["010", "07", "08", "09"]


def test_lists_of_equal_lengths_stay_lists(tmp_path):
    events = [(user, item, 5, 900_000_000 + int(item)) for user in "123" for item in ("9", "10")]
    write_seqrec(tmp_path, FILMS, events)
    assert len(readers.load("seqrec", str(tmp_path)).interactions) == 6


def test_python_literals_are_not_evaluated(tmp_path):
    write_2014(tmp_path, FILMS, EVENTS)
    done = tmp_path / "done"
    put(tmp_path / "meta_Movies_and_TV.json.gz", f"{{'asin': open({str(done)!r}, 'w')}}\n")
    with pytest.raises(DataError, match=r"meta_Movies_and_TV.json.gz, line 1: no JSON object"):
        readers.load("amazon-2014", str(tmp_path))
    assert not done.exists()
    write_amazon(tmp_path / "2018", FILMS, EVENTS)
    put(tmp_path / "2018" / "meta_Movies_and_TV.json.gz", "{'asin': '9', 'title': 'Heat'}\n")
    with pytest.raises(DataError, match="line 1: no JSON object"):
        readers.load("amazon-2018", str(tmp_path / "2018"))


def test_an_amazon_folder_says_its_category_and_prefers_the_5_core(tmp_path):
    write_amazon(tmp_path, FILMS, EVENTS, ending="json")
    put(tmp_path / "Movies_and_TV.json", "not read\n")
    assert len(readers.load("amazon-2018", str(tmp_path)).interactions) == len(WANTED)
    put(tmp_path / "meta_Books.json", "{}\n")
    with pytest.raises(DataError, match="one file meta_<Category>.json.gz should be in"):
        readers.load("amazon-2018", str(tmp_path))
    (tmp_path / "meta_Books.json").unlink()
    put(tmp_path / "meta_Movies_and_TV.json", '{"asin": "77", "title": "Never reviewed"}')
    with pytest.raises(DataError, match="there is no item at all"):
        readers.load("amazon-2018", str(tmp_path))
    put(tmp_path / "meta_Books.json", "{}")
    (tmp_path / "meta_Movies_and_TV.json").unlink()
    with pytest.raises(DataError, match=r"no file Books_5.json.gz"):
        readers.load("amazon-2018", str(tmp_path))


def test_half_an_emoji_in_a_title_does_no_harm(tmp_path):
    write_amazon(tmp_path, FILMS, EVENTS)
    titles = [{"asin": i, "title": f"\ud83d {i}"} for i in FILMS]
    put(tmp_path / "meta_Movies_and_TV.json.gz", lines(([json.dumps(row)] for row in titles), ""))
    assert readers.load("amazon-2018", str(tmp_path)).items.title[0] == "? 10"


def test_the_native_packing_reads_as_the_toy_corpus_was_written(toy_data):
    corpus = readers.load("ml-100k", str(toy_data))
    check_corpus(corpus)
    assert len(corpus.interactions) == len((toy_data / "u.data").read_text().splitlines())
    groups = corpus.items.title_group
    assert (groups != corpus.items.index).sum() == 1  # the last two are namesakes


def test_what_cannot_be_read_is_named(tmp_path):
    with pytest.raises(DataError, match="unknown data set 'ml-1'"):
        readers.load("ml-1")
    with pytest.raises(DataError, match="cannot be fetched: set data_path"):
        readers.load("amazon-2018")
    with pytest.raises(DataError, match="no folder or zip .*absent"):
        readers.load("ml-100k", str(tmp_path / "absent"))
    with pytest.raises(DataError, match="no file of ratings in .*u.data, ratings.dat"):
        readers.load("ml-100k", str(tmp_path))
    with pytest.raises(DataError, match="for the reader 'table', not for ml-100k"):
        readers.load("ml-100k", str(tmp_path), columns={"user": "u"})
    write_100k(tmp_path, FILMS, EVENTS)
    (tmp_path / "u.item").unlink()
    with pytest.raises(DataError, match=r"no file .*u.item"):
        readers.load("ml-100k", str(tmp_path))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1\t2\t3\tyesterday\n", "row 1 has time 'yesterday'"),
        ("1\t9\t3\t4\n1\t9\t3\tinf\n", "row 2 has time 'inf'"),
        ("1\t9\t3\t4\n1\t9\t3\t\n", "u.data: row 2 has no time \\(missing in 1 of 2 rows"),
        ("1\t9\t3\t4\n\t9\t3\t5\n", "row 2 has no user"),
        ("1\t\t3\t4\n", "row 1 has no item"),
        ("1,2,3,4\n", "not a table of user, item, rating, time separated by"),
        ("1\t9\t3\t4\n1\t9\t3\n", "Expected 4 columns, got 3"),
        ("", r"u\.data"),
        ("1\t999\t3\t4\n", "no interaction is left"),
    ],
)
def test_bad_rows_are_named(tmp_path, text, message):
    write_100k(tmp_path, FILMS, EVENTS)
    put(tmp_path / "u.data", text)
    with pytest.raises(DataError, match=message):
        readers.load("ml-100k", str(tmp_path))


def test_other_bad_files_are_named(tmp_path):
    write_1m(tmp_path / "dat", FILMS, EVENTS)
    put(tmp_path / "dat" / "ratings.dat", "1:2:3:4:5:6:7\n")
    with pytest.raises(DataError, match=r"ratings.dat is not a table .*'::'"):
        readers.load("ml-10m", str(tmp_path / "dat"))
    write_csv(tmp_path / "csv", FILMS, EVENTS)
    put(tmp_path / "csv" / "movies.csv", "movieId,name\n9,Heat\n")
    with pytest.raises(DataError, match=r"movies.csv is not a table of item, title .*title"):
        readers.load("ml-20m", str(tmp_path / "csv"))
    write_csv(tmp_path / "csv", FILMS, [])
    with pytest.raises(DataError, match=r"ratings.csv holds no rows"):
        readers.load("ml-20m", str(tmp_path / "csv"))
    put(tmp_path / "log.csv", "user,item,time,title,part\nu,9,1,Heat,dev\n")
    with pytest.raises(DataError, match="unknown split 'dev'"):
        readers.load("table", str(tmp_path / "log.csv"), columns={"split": "part"})
    for line, message in [
        ('{"reviewerID": "u"}', "line 1: asin is None"),
        ('{"reviewerID": ["u"], "asin": "9"}', r"line 1: reviewerID is \['u'\]"),
        ("[]", "line 1: no JSON object"),
        ("[" * 100_000, "line 1: no JSON object"),
        ('{"reviewerID": "u", "asin": "9"}', "row 1 has no time"),
        ("", "holds no rows"),
    ]:
        write_amazon(tmp_path / "amazon", FILMS, EVENTS)
        put(tmp_path / "amazon" / "Movies_and_TV_5.json.gz", line)
        with pytest.raises(DataError, match=message):
            readers.load("amazon-2018", str(tmp_path / "amazon"))


def test_one_user_with_too_little_is_named(tmp_path):
    put(tmp_path / "log.csv", lines([("u", i, i, f"T{i}") for i in range(5)], ",", TABLE_HEAD))
    corpus = readers.load("table", str(tmp_path / "log.csv"))
    with pytest.raises(DataError, match="no user has 11 interactions.*lower `history`"):
        sequences.examples(corpus)
    with pytest.raises(DataError, match="4 examples are too few to split: valid is empty"):
        sequences.split(sequences.examples(corpus, 1))


def test_bad_tables_are_named(tmp_path):
    for kind in ("csv", "parquet"):
        log, _ = write_tables(tmp_path, kind)
        with pytest.raises(DataError, match=f"log.{kind} is not a table of .*user"):
            readers.load("table", str(log))
    with pytest.raises(DataError, match="columns: users is none of user, item"):
        readers.load("table", str(log), columns={"users": "who"})
    with pytest.raises(DataError, match=r"no .csv, .tsv, .jsonl or .parquet"):
        readers.load("table", str(tmp_path))
    with pytest.raises(DataError, match="no file .*absent.csv"):
        readers.load("table", str(tmp_path / "absent.csv"))
    frame = pd.DataFrame({"user": [["a"]], "item": ["9"], "time": [1], "title": ["Heat"]})
    frame.to_parquet(tmp_path / "lists.parquet")
    with pytest.raises(DataError, match=r"lists.parquet is not a table"):
        readers.load("table", str(tmp_path / "lists.parquet"))


@pytest.mark.parametrize("name", ["../u.data", "/u.data", "ml/../../u.data", "..\\u.data"])
def test_a_zip_that_leaves_its_folder_is_refused(tmp_path, name):
    with zipfile.ZipFile(tmp_path / "bad.zip", "w") as archive:
        archive.writestr(name, "1\t2\t3\t4\n")
    with pytest.raises(DataError, match="no safe archive"):
        readers.load("ml-100k", str(tmp_path / "bad.zip"))


def test_decompression_bombs_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "ROOM", 100_000)
    bomb = "1\t9\t3\t4\n" * 100_000
    write_100k(tmp_path / "data", FILMS, EVENTS)
    put(tmp_path / "data" / "u.data", bomb)
    path = shutil.make_archive(str(tmp_path / "data"), "zip", tmp_path, "data")
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.write(tmp_path / "data" / "u.data", "u.data")
    with pytest.raises(DataError, match=r"u.data unpacks to far more than its size"):
        readers.load("ml-100k", path)
    write_amazon(tmp_path / "amazon", FILMS, EVENTS)
    put(tmp_path / "amazon" / "Movies_and_TV_5.json.gz", " " * 1_000_000)
    with pytest.raises(DataError, match=r"Movies_and_TV_5.json.gz unpacks to far more"):
        readers.load("amazon-2018", str(tmp_path / "amazon"))
    write_seqrec(tmp_path / "seqrec", FILMS, EVENTS)
    (tmp_path / "seqrec" / "user2item.pkl").write_bytes(bytes(1_000_000))
    path = str(tmp_path / "seqrec.zip")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in (tmp_path / "seqrec").iterdir():
            archive.write(file, file.name)
    with pytest.raises(DataError, match=r"user2item.pkl unpacks to far more"):
        readers.load("seqrec", path)
    with lzma.open(tmp_path / "movielens.pkl.compress", "wb") as file:
        file.write(bytes(1_000_000))
    with pytest.raises(DataError, match=r"movielens.pkl.compress unpacks to far more"):
        readers.load("ml-latest-small", str(tmp_path))


def mutated(data: bytes, rng) -> bytes:
    """Bytes with one to three random changes: flips, cuts, repeats, insertions."""
    for _ in range(rng.integers(1, 4)):
        at, size = int(rng.integers(0, len(data) + 1)), int(rng.integers(1, 20))
        piece = data[at : at + size]
        new = [
            bytes(rng.integers(0, 256, len(piece), dtype=np.uint8)),
            b"",
            piece * 3,
            bytes(rng.choice(list(b"\t,:|\"'{}[]\\\n\r\x00-.9eNa"), size).astype(np.uint8)) + piece,
        ][rng.integers(0, 4)]
        data = data[:at] + new + data[at + size :]
        if rng.random() < 0.1:
            data = data[:at]
    return data


PACKERS = {
    ".gz": (gzip.decompress, gzip.compress),
    ".compress": (lzma.decompress, lzma.compress),
}


def damage(file: Path, rng) -> None:
    """Change a file's bytes, or (half of the time) those inside its compression."""
    data = file.read_bytes()
    unpack, pack = PACKERS.get(file.suffix, (None, None))
    inside = unpack and rng.random() < 0.7
    file.write_bytes(pack(mutated(unpack(data), rng)) if inside else mutated(data, rng))


def outcome(read) -> str:
    """'corpus' or 'refused'; anything else fails. A corpus is cut into examples as well."""
    try:
        corpus = read()
    except DataError as error:
        assert str(error)
        return "refused"
    check_corpus(corpus)
    with suppress(DataError):  # too few examples to split
        sequences.check(sequences.split(sequences.examples(corpus, 2, "any")), corpus)
    return "corpus"


@pytest.mark.parametrize("name", [*NATIVE, "zip", "csv", "tsv", "jsonl", "parquet"])
def test_a_damaged_file_gives_a_corpus_or_a_clear_refusal(tmp_path, name):
    rng = np.random.default_rng(sum(name.encode()))
    films, seen = FILMS | {"6": ("Se7en", 1995)}, Counter()
    events = [*EVENTS, *(("3", item, 4, 900_000_100 + int(item)) for item in films)]
    for turn in range(100):
        folder = tmp_path / str(turn)
        if name in ("csv", "tsv", "jsonl", "parquet"):
            damaged = rng.choice(write_tables(folder, name, films, events))
            damage(damaged, rng)
            seen[outcome(lambda at=folder: load_tables(at, name))] += 1
            continue
        reader, write = NATIVE["ml-20m" if name == "zip" else name]
        write(folder, films, events)
        if name == "zip":
            folder = Path(shutil.make_archive(str(folder), "zip", folder))
            damage(folder, rng)
        else:
            damage(rng.choice(sorted(folder.iterdir())), rng)
        seen[outcome(lambda at=folder, reader=reader: readers.load(reader, str(at)))] += 1
    assert seen["refused"] > 5, seen
