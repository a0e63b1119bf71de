"""A study of one's own table: columns are guessed from names and values, or asked for."""

import json

import numpy as np
import pandas as pd
import pytest
import yaml

from bigrec_lib.files import StudyError
from bigrec_lib.method import readers, sequences
from bigrec_lib.study import batch, data, expansion, new, plan, studies

TITLES = [
    f"{a} {n}" for a in ("Red", "Old", "Last") for n in ("River, The", 'King\'s "Moon"', "Sea")
]


def events(n=400, users=25):
    """user, item, time, title and columns that are none of them, in the order of time."""
    rng = np.random.default_rng(0)
    item = rng.integers(0, len(TITLES), n)
    return pd.DataFrame(
        {
            "order": np.arange(n) + 70_000,
            "u": [f"{u:05}" for u in rng.integers(1, users, n)],
            "i": [f"{i:03}" for i in item],
            "t": 1_600_000_000 + np.cumsum(rng.integers(1, 10_000, n)),
            "price": rng.random(n).round(2),
            "n": [TITLES[i] for i in item],
        }
    )


def renamed(**names):
    return events().rename(columns=names)


def guessed(tmp_path, frame, titles=None, **known):
    frame.to_csv(tmp_path / "log.csv", index=False)
    if titles is not None:
        titles.to_csv(tmp_path / "titles.csv", index=False)
    listed = None if titles is None else data.head_of(tmp_path / "titles.csv")
    return new.guess(data.head_of(tmp_path / "log.csv"), listed, known)


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project without studies, in the current folder."""
    for module in (batch, plan, studies):
        monkeypatch.setattr(module, "ROOT", tmp_path)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "studies").mkdir()
    return tmp_path


@pytest.mark.parametrize(
    "names",
    [
        ("user", "item", "time", "title"),
        ("CustomerID", "productId", "unixReviewTime", "product_name"),
        ("Kunde", "Artikel", "Bestelldatum", "Artikelbezeichnung"),
        ("Kunden-Nr.", "Artikel-Nr.", "Datum", "Titel"),
        ("visitor", "title_id", "created_at", "title"),
        ("username", "asin", "timestamp", "name"),
        ("user_id", "movie_id", "watched on", "movie"),
    ],
)
def test_names_say_what_columns_are(tmp_path, names):
    user, item, time, title = names
    frame = renamed(u=user, i=item, t=time, n=title, order="order_id")
    frame["country"] = "DE"
    roles = dict(zip(("user", "item", "time", "title"), names, strict=True))
    assert guessed(tmp_path, frame) == roles


def test_names_that_only_sound_like_it_do_not_mislead(tmp_path):
    """A price of items, a name of users, numbers of bookings, a time that is no moment."""
    frame = renamed(u="customer_id", i="item_id", t="ordered_at", n="item_name", price="item_price")
    frame = frame.rename(columns={"order": "book_id"})
    frame.insert(0, "playtime", 3.5)
    frame.insert(0, "customer_name", "Ann Lee")
    assert guessed(tmp_path, frame) == {
        "user": "customer_id", "item": "item_id", "time": "ordered_at", "title": "item_name"
    }  # fmt: skip


def test_values_say_what_names_do_not(tmp_path):
    assert guessed(tmp_path, renamed(u="a", i="b", t="c", n="d")) == {
        "user": "a", "item": "b", "time": "c", "title": "d"
    }  # fmt: skip


def test_what_two_columns_could_be_is_not_guessed(tmp_path):
    frame = renamed(u="a", i="b", t="c", n="d")
    frame["e"] = frame.a.to_numpy()[::-1]
    assert "user" not in guessed(tmp_path, frame)
    assert guessed(tmp_path, frame, user="e")["user"] == "e"


def test_titles_may_be_the_ids_of_items(tmp_path):
    frame = renamed(u="user", n="product", t="date").drop(columns=["i", "order"])
    assert guessed(tmp_path, frame) == {
        "user": "user", "item": "product", "time": "date", "title": "product"
    }  # fmt: skip


def test_rating_and_split_are_taken_if_they_hold_such(tmp_path):
    frame = renamed(u="user", i="item", t="time", n="title")
    frame["stars"], frame["split"] = 4, "train"
    roles = guessed(tmp_path, frame)
    assert (roles["rating"], roles["split"]) == ("stars", "split")
    frame["stars"], frame["split"] = "good", "a"
    assert set(guessed(tmp_path, frame)) == {"user", "item", "time", "title"}


def test_titles_of_another_file_are_joined_by_a_column_of_one_name(tmp_path):
    frame = renamed(u="user", i="sku", t="time").drop(columns="n")
    titles = pd.DataFrame(
        {"sku": [f"{i:03}" for i in range(9)], "colour": "red", "designation": TITLES}
    )
    assert guessed(tmp_path, frame, titles) == {
        "user": "user", "item": "sku", "time": "time", "title": "designation"
    }  # fmt: skip
    with pytest.raises(StudyError, match="no column of one name"):
        guessed(tmp_path, frame, titles.rename(columns={"sku": "id"}))


@pytest.mark.parametrize(
    ("values", "time"),
    [
        (["2024-01-02", "2024-01-03T10:00:00Z"], True),
        (["31.12.2023 10:00", "1.1.2024 9:30"], True),
        (["1700000000", "1700000001.5"], True),
        (["1700000000000", "1700000001000"], True),
        (["20240131", "20231201"], True),
        (["1", "2"], False),
        (["2024-01-02", "soon"], False),
        ([], False),
    ],
)
def test_what_looks_like_a_time(values, time):
    assert new.is_time(pd.Series(values, dtype=object)) == time


@pytest.mark.parametrize("ending", ["csv", "tsv", "csv.gz", "parquet", "jsonl", "cp1252", "utf-16"])
def test_heads_of_all_kinds_of_tables(tmp_path, ending):
    frame = renamed(n="Titel").astype(str)
    frame.loc[3, "Titel"] = "Süden; ein\nRoman"
    path = tmp_path / f"log.{ending if '-' not in ending and ending != 'cp1252' else 'csv'}"
    if ending == "parquet":
        frame.astype({"u": "category"}).to_parquet(path)
    elif ending == "jsonl":
        frame.to_json(path, orient="records", lines=True)
    else:
        encoding = ending if ending in ("cp1252", "utf-16") else "utf-8"
        sep = {"tsv": "\t", "cp1252": ";"}.get(ending, ",")
        path.parent.mkdir(exist_ok=True)
        frame.to_csv(path, index=False, sep=sep, encoding=encoding, lineterminator="\r\n")
    head = data.head_of(path)
    pd.testing.assert_frame_equal(head.values, frame, check_dtype=False, check_column_type=False)
    extra = 0 if ending in ("parquet", "jsonl") else 1  # a line end within quotes
    assert head.rows == (None if ending == "csv.gz" else len(frame) + extra)


@pytest.mark.parametrize("encoding", ["utf-8", "cp1252", "utf-16"])
def test_only_the_head_of_a_large_table_is_read(tmp_path, monkeypatch, encoding):
    monkeypatch.setattr(data, "HEAD", 2_000)
    frame = renamed(n="title").astype(str)
    frame["title"] = 'Süd "und"\nNord'
    frame.to_csv(tmp_path / "log.csv", index=False, encoding=encoding)
    head = data.head_of(tmp_path / "log.csv")
    assert 5 < len(head.values) < 60 and head.rows == 2 * len(frame)
    pd.testing.assert_frame_equal(
        head.values, frame[: len(head.values)], check_dtype=False, check_column_type=False
    )
    monkeypatch.setattr(data, "COUNTED", 100)
    assert data.count(tmp_path / "log.csv") is None


@pytest.mark.parametrize("text", ["", "\n\n"])
def test_an_empty_table_is_refused_as_such(tmp_path, text):
    path = tmp_path / "log.csv"
    path.write_text(text)
    with pytest.raises(StudyError, match=r"log\.csv is no table with a line of names on top"):
        data.head_of(path)


def test_json_lines_end_with_a_line_feed_alone_and_may_be_empty(tmp_path):
    record = {"user": "1", "item": "2", "time": 3, "title": "Sea\u2028Side"}
    line = json.dumps(record, ensure_ascii=False)
    path = tmp_path / "log.JSONL"
    path.write_text(f"{line}\n\n{line}\n", encoding="utf-8")
    head = data.head_of(path)
    assert head.values.title.tolist() == ["Sea\u2028Side"] * 2
    assert readers.read_table(path, path, {}).events.title.tolist() == ["Sea\u2028Side"] * 2


def test_a_head_of_one_day_says_nothing_against_a_table(tmp_path, monkeypatch):
    """It need not show anyone twice: what is odd in a part may be right in the whole."""
    monkeypatch.setattr(data, "HEAD", 200)
    frame = pd.DataFrame({"user": range(300), "item": "7", "time": "2024-01-02", "title": "Sea"})
    later = frame.assign(time="2024-01-03")
    path = tmp_path / "log.csv"
    pd.concat([frame, later]).to_csv(path, index=False)
    assert data.check_table(path, path, {}) == 600


def test_a_new_study_differs_from_quick_in_its_data_alone(project, capsys):
    renamed(u="buyer", i="sku", t="bought_at", n="name").to_csv("log.csv", index=False)
    assert batch.main(["new", "shop", "log.csv"]) == 0
    said = capsys.readouterr().out
    assert "  user    buyer" in said and "| 000" in said
    assert "11 to do" in said and said.endswith("next: make study STUDY=shop\n")
    text = (project / "studies" / "shop.yaml").read_text()
    study = yaml.safe_load(text)
    given = study["datasets"]["shop"]
    corpus = readers.load("table", "log.csv", columns=given["columns"])
    samples = len(sequences.examples(corpus, 10, "any"))
    assert 100 < samples < 200
    assert study["datasets"].pop("shop") == {
        "reader": "table",
        "data_path": "log.csv",
        "columns": {"user": "buyer", "item": "sku", "time": "bought_at", "title": "name"},
        "domain": "items",
        "first": "any",
        "n_valid": samples // 10,
        "n_test": samples // 10,
    }
    quick = (new.Path(__file__).parent.parent / "studies" / "quick.yaml").read_text()
    assert text.splitlines()[0] == quick.splitlines()[0]
    wanted = {**yaml.safe_load(quick), "datasets": {}, "n_train": [samples // 2]}
    assert wanted.pop("adapters") == [0] and study == wanted  # nobody has asked to publish one
    number = int(said.partition("change line ")[2].partition(":")[0])
    assert "columns: {user: buyer" in text.splitlines()[number - 1]


def test_a_study_that_is_there_stays(project, capsys):
    path = project / "studies" / "shop.yaml"
    path.write_text("mine")
    assert batch.main(["new", "shop", "log.csv"]) == 1
    assert "studies/shop.yaml exists: change it, delete it" in capsys.readouterr().err
    assert path.read_text() == "mine"


def test_what_cannot_be_told_is_asked_for_with_the_command(project, capsys):
    frame = renamed(u="a", i="b", t="c", n="name")
    frame["e"] = frame.a.to_numpy()[::-1]
    frame.to_csv("my log.csv", index=False)
    assert batch.main(["new", "shop", "my log.csv", "--columns", "time=c"]) == 1
    out, err = capsys.readouterr()
    assert "  -       a" in out and "  item    b" in out
    assert err == (
        "error: which column is user? Say it: make new NAME=shop DATA='my log.csv' "
        'COLUMNS="time=c,user=COLUMN"\n'
    )
    assert not (project / "studies" / "shop.yaml").exists()
    assert batch.main(["new", "shop", "my log.csv", "--columns", "time=c,user=a"]) == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["shop", ""], "DATA, the path of the table, is missing: make new NAME=shop"),
        (["", "log.csv"], "NAME, what the study is to be called, is missing: make new"),
        (["a/b", "log.csv"], "cannot be called 'a/b'"),
        (["shop", "no.csv"], "no file no.csv"),
        (["shop", "small.csv"], "small.csv has 5 rows"),
        (["shop", "bare.csv"], "'00001' in its first line is no name of a column"),
        (["shop", "array.json"], "array.json, line 1: not one JSON object a line"),
        (["shop", "text.parquet"], "is no Parquet file"),
        (["shop", "log.csv", "--columns", "buyer=u"], "COLUMNS: 'buyer' is none of user, item"),
        (["shop", "log.csv", "--columns", "user=x"], "no column 'x' for user: one of order, u"),
        (["shop", "log.csv", "--columns", "user"], "no column '' for user"),
        (["shop", "odd.csv"], "time '1. May"),
        (["shop", "food.zip"], "food.zip is no .csv, .tsv, .jsonl or .parquet"),
    ],
)
def test_what_is_wrong_is_one_line_and_nothing_is_written(project, capsys, words, message):
    frame = renamed(i="item", t="time", n="title")
    frame.to_csv("log.csv", index=False)
    frame[:5].to_csv("small.csv", index=False)
    frame[["u", "item", "time"]].replace("00024", "00001").to_csv("bare.csv", index=False, header=0)
    (project / "bare.csv").write_text("00001,2,3\n" * 30)
    (project / "array.json").write_text('[\n{"a": 1}]')
    (project / "text.parquet").write_text("a,b")
    (project / "food.zip").write_text("PK")
    frame.rename(columns={"u": "user"}).assign(time="1. May").to_csv("odd.csv", index=False)
    assert batch.main(["new", *words]) == 1
    err = capsys.readouterr().err
    assert err.startswith("error: ") and message in err and err.count("\n") == 1
    assert list((project / "studies").iterdir()) == []


def test_a_name_that_yaml_takes_for_a_value_is_one_all_the_same(project):
    renamed(u="user", i="item", t="time", n="no").to_csv("log.csv", index=False)
    assert batch.main(["new", "on", "log.csv"]) == 0
    assert studies.load("on").datasets["on"]["columns"]["title"] == "no"


def test_the_width_of_the_terminal_is_no_column(project):
    renamed(u="user", i="item", t="time", n="title").to_csv("log.csv", index=False)
    assert batch.main(["new", "shop", "log.csv", "--columns", "80"]) == 0


def test_titles_stand_for_items_that_have_no_number_and_that_is_said(project, capsys):
    renamed(u="user", t="time", n="title").drop(columns=["i", "order"]).to_csv("log.csv")
    assert batch.main(["new", "shop", "log.csv"]) == 0
    assert "what is called alike is one item" in capsys.readouterr().out


def test_quotes_that_quote_nothing_are_shown_as_they_are(project, capsys):
    frame = renamed(u="user", i="item", t="time", n="title")
    frame["title"] = frame.title.where(frame.index % 7 > 0, '"' + frame.title)
    lines = frame.astype(str).agg("\t".join, axis=1)
    text = "\n".join(["\t".join(frame), *lines, ""])
    (project / "log.tsv").write_text(text)
    assert batch.main(["new", "shop", "log.tsv"]) == 0
    out = capsys.readouterr().out
    assert f"log.tsv, {len(frame)} rows" in out and f"title   title  {frame.title[0]:.30}" in out
    assert "\t" not in out.partition("written")[0]


def test_paths_stay_as_they_can_be_found_again(project, monkeypatch):
    monkeypatch.setenv("HOME", str(project / "home"))
    (project / "home").mkdir()
    renamed(u="user", i="item", t="time", n="title").to_csv("home/log.csv", index=False)
    monkeypatch.chdir(project / "studies")
    assert new.path_in_file("../home/log.csv") == "home/log.csv"
    assert new.path_in_file("../../log.csv") == str(project.parent / "log.csv")
    assert new.path_in_file("~/log.csv") == "~/log.csv"
    monkeypatch.chdir(project)
    assert batch.main(["new", "shop", "~/log.csv"]) == 0
    prepare = expansion.jobs("shop", studies.load("shop"))["shop.01_prepare_data"]
    assert prepare.expanded(prepare.data_path) == str(project / "home" / "log.csv")
