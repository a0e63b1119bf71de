"""Both packings of MovieLens-100K, titles, drops, and files that are not what they should be."""

import gzip

import pytest
from conftest import write_ml_100k

from bigrec_lib import datasets
from bigrec_lib.datasets import DataError, clean_title


def write_recbole(folder, ratings, films):
    """Write the two files of MovieLens-100K as RecBole packs them."""
    folder.mkdir(parents=True, exist_ok=True)
    head = "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
    rows = "".join("\t".join(map(str, row)) + "\n" for row in ratings)
    (folder / "ml-100k.inter").write_text(head + rows)
    head = "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n"
    rows = "".join("\t".join([*map(str, film), "Drama"]) + "\n" for film in films)
    (folder / "ml-100k.item").write_text(head + rows)
    return folder


RATINGS = [(2, 10, 3, 50), (1, 9, 5, 20), (1, 10, 4, 10), (2, 9, 1, 50), (1, 9, 5, 20)]


def test_recbole_titles_get_their_year_and_ids_sort_as_strings(tmp_path):
    films = [(9, "Heat", "1995"), (10, "Killers, The", "1946"), (8, "Unknown", "")]
    corpus = datasets.load("ml-100k", str(write_recbole(tmp_path, RATINGS, films)))
    assert corpus.items.item_id.tolist() == ["10", "8", "9"]
    assert corpus.items.title.tolist() == ["Killers, The (1946)", "Unknown", "Heat (1995)"]
    assert corpus.domain == "movies"


def test_interactions_are_in_time_order_and_equal_times_keep_the_files_order(tmp_path):
    films = [(9, "Heat", "1995"), (10, "Killers, The", "1946")]
    corpus = datasets.load("ml-100k", str(write_recbole(tmp_path, RATINGS, films)))
    rows = corpus.interactions[["user", "item", "time"]].to_numpy().tolist()
    assert rows == [[0, 0, 10], [0, 1, 20], [1, 0, 50], [1, 1, 50]]
    assert corpus.drops["repeated interactions"] == 1


def test_the_native_packing_reads_as_the_toy_corpus_was_written(toy_data):
    corpus = datasets.load("ml-100k", str(toy_data))
    assert len(corpus.interactions) == len((toy_data / "u.data").read_text().splitlines())
    assert len(corpus.items) == 50
    groups = corpus.items.title_group
    assert (groups != corpus.items.index).sum() == 1  # the last two are namesakes
    assert corpus.items.title[groups].tolist() == corpus.items.title.tolist()


def test_amazon_games_keep_their_order_and_their_split(tmp_path):
    with gzip.open(tmp_path / "interactions.tsv.gz", "wt") as file:
        file.write("user\tasin\tpos\tsplit\nu\tB2\t1\tvalid\nu\tB1\t0\ttrain\nv\tB1\t0\ttest\n")
    with gzip.open(tmp_path / "titles.tsv.gz", "wt") as file:
        file.write("asin\ttitle\nB2\tTom &amp; Jerry\nB1\tTetris\n")
    corpus = datasets.load("amazon-games-2018-split", str(tmp_path))
    assert corpus.domain == "games"
    assert corpus.items.title.tolist() == ["Tetris", "Tom & Jerry"]
    rows = corpus.interactions[["user", "item", "time", "split"]].to_numpy().tolist()
    assert rows == [[0, 0, 0, "train"], [0, 1, 1, "valid"], [1, 0, 0, "test"]]


def test_items_without_a_title_go_with_their_interactions_and_are_counted(tmp_path):
    films = [(9, "Heat", "1995"), (10, "None", "")]
    corpus = datasets.load("ml-100k", str(write_recbole(tmp_path, RATINGS, films)))
    assert corpus.drops == {
        "items without a title": 1,
        "interactions on items without a title": 2,
        "repeated interactions": 1,
    }
    assert len(corpus.items) == 1 and len(corpus.interactions) == 2


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("  Tom &amp; Jerry\t(1992) ", "Tom & Jerry (1992)"),
        ('The "Burbs', "The 'Burbs"),
        ("None", ""),
        (None, ""),
        (float("nan"), ""),
    ],
)
def test_clean_titles(raw, clean):
    assert clean_title(raw) == clean


def test_what_cannot_be_read_is_named(tmp_path):
    with pytest.raises(DataError, match="unknown data set 'ml-1'"):
        datasets.load("ml-1")
    with pytest.raises(DataError, match="cannot be fetched: set data_path"):
        datasets.load("amazon-games-2018-split")
    with pytest.raises(DataError, match="no folder .*absent"):
        datasets.load("ml-100k", str(tmp_path / "absent"))
    with pytest.raises(DataError, match="no file .*ml-100k.inter"):
        datasets.load("ml-100k", str(tmp_path))
    folder = write_ml_100k(tmp_path / "toy")
    (folder / "u.data").write_text("1\t2\t3\tyesterday\n")
    with pytest.raises(DataError, match="row 1 has time 'yesterday'"):
        datasets.load("ml-100k", str(folder))
    (folder / "u.data").write_text("1,2,3,4\n")
    with pytest.raises(DataError, match="not a table of user, item, rating, time"):
        datasets.load("ml-100k", str(folder))
    (folder / "u.data").write_text("")
    with pytest.raises(DataError, match="u.data"):
        datasets.load("ml-100k", str(folder))
    (folder / "u.data").write_text("1\t999\t3\t4\n")
    with pytest.raises(DataError, match="no interaction is left"):
        datasets.load("ml-100k", str(folder))
