"""The template letter by letter, and histories that fit their budget."""

import pytest

from bigrec_lib.files import StudyError
from bigrec_lib.method import prompts

MOVIES = prompts.DOMAINS["movies"]


def test_the_movie_prompt_is_the_authors_template():
    assert prompts.prompt(["Toy Story (1995)", "Heat (1995)"], MOVIES) == (
        "Below is an instruction that describes a task, paired with an input that provides "
        "further context. Write a response that appropriately completes the request.\n"
        "\n"
        "### Instruction:\n"
        "Given a list of movies the user has watched before, please recommend a new movie that "
        "the user likes to the user.\n"
        "\n"
        "### Input:\n"
        'The user has watched the following movies before:"Toy Story (1995)", "Heat (1995)"\n'
        "\n"
        "### Response:\n"
    )


def test_the_games_wording():
    text = prompts.prompt(["Tetris"], prompts.DOMAINS["games"])
    assert "Given a list of video games the user has played before, please recommend a new " in text
    assert 'The user has played the following video games before:"Tetris"\n' in text


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ('"Heat (1995)"', "Heat (1995)"),
        (' "Heat (1995)"\n"More"', "Heat (1995)"),
        ('"Heat', "Heat"),
        ("", ""),
        ("\n\n", ""),
        ('""', ""),
    ],
)
def test_title_of_takes_the_first_line_without_quotes(text, title):
    assert prompts.title_of(text) == title


def test_title_of_undoes_answer():
    assert prompts.title_of(prompts.answer("Ocean's Eleven (1960)")) == "Ocean's Eleven (1960)"


class Words:
    """A tokenizer for which every word is a token."""

    def __call__(self, text):
        return {"input_ids": text.split()}


def test_a_history_over_budget_loses_its_oldest_titles_first():
    titles = ["a b", "c d", "e f"]
    whole = len(prompts.prompt(titles, MOVIES).split())
    for budget, kept in ((whole, titles), (whole - 1, titles[1:]), (whole - 3, titles[2:])):
        text = prompts.fitted_prompt(Words(), titles, MOVIES, budget)
        assert text == prompts.prompt(kept, MOVIES)
    with pytest.raises(StudyError, match="'e f'"):
        prompts.fitted_prompt(Words(), titles, MOVIES, 10)
    with pytest.raises(StudyError, match="lower max_title") as error:
        prompts.fitted_prompt(Words(), ["var a; " * 900], MOVIES, 500)
    assert len(str(error.value)) < 200
    with pytest.raises(StudyError, match="history is empty"):
        prompts.fitted_prompt(Words(), [], MOVIES, 500)


def test_an_unknown_domain_names_the_known_ones():
    with pytest.raises(StudyError, match="movies, games"):
        prompts.domain("music videos")
