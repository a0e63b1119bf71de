"""The one prompt of BIGRec, for tuning and for inference alike (docs/method.md, section 3).

The authors' tuning and inference prompts differ by a space; here one template serves both.
A history that does not fit its token budget loses its oldest titles, never the answer.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from bigrec_lib.files import StudyError

PREAMBLE = (
    "Below is an instruction that describes a task, paired with an input that provides further "
    "context. Write a response that appropriately completes the request."
)


@dataclass(frozen=True)
class Domain:
    """The words a prompt uses for what is recommended."""

    one: str
    many: str
    consumed: str

    @property
    def instruction(self) -> str:
        return (
            f"Given a list of {self.many} the user has {self.consumed} before, please recommend "
            f"a new {self.one} that the user likes to the user."
        )

    @property
    def lead(self) -> str:
        return f"The user has {self.consumed} the following {self.many} before:"


DOMAINS = {
    "movies": Domain("movie", "movies", "watched"),
    "games": Domain("video game", "video games", "played"),
    "books": Domain("book", "books", "read"),
    "music": Domain("song", "songs", "listened to"),
    "recipes": Domain("recipe", "recipes", "cooked"),
    "products": Domain("product", "products", "bought"),
    "items": Domain("item", "items", "chosen"),
}


def domain(name: str) -> Domain:
    """The wording for a domain. Raises StudyError for a name that is not in DOMAINS."""
    if name not in DOMAINS:
        raise StudyError(f"unknown domain {name!r}: choose one of {', '.join(DOMAINS)}")
    return DOMAINS[name]


def alpaca(instruction: str, context: str = "") -> str:
    """An alpaca-format prompt up to and including the line before the response."""
    section = f"### Input:\n{context}\n\n" if context else ""
    return f"{PREAMBLE}\n\n### Instruction:\n{instruction}\n\n{section}### Response:\n"


def prompt(titles: Sequence[str], words: Domain) -> str:
    """The prompt for a history of clean titles, oldest first.

    >>> print(prompt(["Heat (1995)", "Fargo (1996)"], DOMAINS["movies"]).split("### ")[2].strip())
    Input:
    The user has watched the following movies before:"Heat (1995)", "Fargo (1996)"
    """
    return alpaca(words.instruction, words.lead + ", ".join(f'"{title}"' for title in titles))


def answer(title: str) -> str:
    """What the tuned LLM writes for a title, before the end-of-sequence token.

    >>> answer("Heat (1995)")
    '"Heat (1995)"'
    """
    return f'"{title}"'


def encode_answers(tokenizer, answers: Sequence[str]) -> list[list[int]]:
    """The token ids of each answer as they follow a prompt's, with the end of sequence.

    An answer is tokenised behind the last line of a prompt, because some tokenizers treat the
    beginning of a text differently. Where a token would stretch over both, the answer is tokenised
    alone: generation reads a prompt that ends with its line, and goes on from there.
    """
    line = alpaca("").splitlines(keepends=True)[-1]
    start = tokenizer(line)["input_ids"]
    encoded = []
    for text in answers:
        ids = tokenizer(line + text)["input_ids"]
        if ids[: len(start)] == start:
            ids = ids[len(start) :]
        else:
            ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        if tokenizer.eos_token_id in ids:  # a title in which its name stands
            plain = {"add_special_tokens": False, "split_special_tokens": True}
            ids = tokenizer(text, **plain)["input_ids"]
        encoded.append([*ids, tokenizer.eos_token_id])
    return encoded


def decode(tokenizer, tokens: Sequence[int]) -> str:
    """The text of generated tokens, with every space that was written."""
    return tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)


def title_of(text: str) -> str:
    """The title in generated text: its first line, stripped of quotes and spaces at both ends.

    >>> title_of('"Heat (1995)"\\nThe user')
    'Heat (1995)'
    """
    lines = text.strip().splitlines()
    return lines[0].strip(' "') if lines else ""


def fitted_prompt(tokenizer, titles: Sequence[str], words: Domain, max_tokens: int) -> str:
    """The prompt with the longest run of newest titles that takes at most `max_tokens` tokens.

    Raises StudyError if the prompt is too long even with the newest title alone.
    """
    for oldest in range(len(titles)):
        text = prompt(titles[oldest:], words)
        if len(tokenizer(text)["input_ids"]) <= max_tokens:
            return text
    raise StudyError(
        f"a prompt with the one title {titles[-1]!r:.60} takes more than {max_tokens} tokens: "
        "raise max_tokens, or lower max_title of 01_prepare_data"
        if titles
        else "a history is empty: every example needs at least one title"
    )
