"""Begin a study of one's own table: `make new NAME=shop DATA=path.csv`.

It guesses the role of each column, first from its name, then from its values, and shows it; for
what it cannot guess it asks.
"""

from __future__ import annotations

import os
import re
import shlex
import unicodedata
from pathlib import Path

import pandas as pd
import yaml

from bigrec_lib.files import StudyError, write_text
from bigrec_lib.method.readers import TABLE
from bigrec_lib.study import data, expansion, plan, schema, studies
from bigrec_lib.study.data import Head
from bigrec_lib.study.parameters import PrepareData
from bigrec_lib.study.parameters_checks import Parameters

USAGE = "make new NAME=shop DATA=path.csv [TITLES=items.csv]"
N_TRAIN, N_HELD_OUT = 256, 200  # of studies/quick.yaml; fewer where a table has fewer rows
FEWEST = 20  # rows: with fewer, a split of 80 / 10 / 10 has next to nothing to hold out
TITLES = ("item", "title")  # columns of a table of titles
SHOWN = 3  # example values of a column

NAMES = {  # role -> column names, lower case without separators; the first that fits decides
    "split": r"^(split|fold|subset|partition)$",
    "rating": r"rating|stars|score|^overall$|bewertung|sterne",
    "time": r"(time|timestamp|date|datum|zeit|fecha|when)$|^(time|date|datum|fecha|pos|position|ts)"
    r"|(bought|ordered|created|played|seen|watched)(at|on)$",
    "user": r"user|customer|client|buyer|member|visitor|reviewer|player|account|session|kunde"
    r"|nutzer|usuario|utilisateur|^who$|^uid$",
    "title": r"title|titel|name|bezeichnung|titre|titulo|nombre|^nom",
    "item": r"item|product|sku|asin|isbn|article|artikel|movie|film|book|game|track|song|video"
    r"|recipe|produkt|produit|buch|libro|^what$|^iid$",
}
NUMBERED = r"\b(id|nr|no|num|key|code)$|(id|nr|nummer|number)$"  # an id, whatever else it says
ORDERS = ("time", "timestamp", "pos", "position", "ts", "when")  # columns that may hold any numbers
DOMAINS = {
    "movies": r"movie|film",
    "games": r"game|spiel",
    "books": r"book|buch",
    "music": r"music|song|track",
    "recipes": r"recipe|rezept",
    "products": r"product|produkt|artikel|shop",
}
DATE = r"\s*\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}([T ,].*)?"
EPOCHS = [(7e8 * unit, 4.1e9 * unit) for unit in (1, 1e3, 1e6, 1e9)]  # s to ns, 1992 to 2099
DAYS = (19_000_101, 20_991_231)  # 20240131

FILE = """\
# yaml-language-server: $schema=schema.json
# Made by `make new NAME={name}` and yours to change; `make study STUDY={name}` runs it.
datasets:
  {dataset}:
    reader: table
    data_path: {data}
{titles}\
    columns: {columns}  # what it is: its name
    domain: {domain}  # what the prompts call it; see 01_prepare_data
    first: any  # users with two rows or more give samples; full: only those with eleven or more
    n_valid: {held_out}  # validation examples, for γ and settings
    n_test: {held_out}  # test examples, for every number in the report
n_train: [{n_train}]  # training samples; [64, 256, 1024] gives a curve
seeds: [0]  # [0, 1, 2] shows how much is chance
llm: {{model: smollm2-135m-instruct, quantisation: nf4}}  # or a Hugging Face id, or a folder
baselines: {{}}  # conventional models on the same samples; which, see 06_train_baselines below
notebooks:
  02_tune_llm: {{epochs: 1, batch_size: 4}}
  03_generate_titles: {{beams: 4}}
  05_reweight_by_statistics: {{collaborative: sasrec-ce, comparator: item-knn}}
  06_train_baselines:
    models: [item-knn, markov, sasrec-ce]
    collaborative: [sasrec-ce, item-knn]
"""


def begin(name: str, path: str, titles_path: str = "", columns: str = "") -> None:
    """Look at a table, print what its columns seem to be, write `studies/<name>.yaml`, and plan.

    columns: what the user knows better, as "user=buyer,time=bought_at".
    Raises StudyError if the study exists already, if the table cannot be read, has too few rows, or
    does not show which columns are user, item, time and title; nothing is written then.
    """
    file = file_of(name)
    if not path:
        raise StudyError(f"DATA, the path of the table, is missing: {USAGE}")
    table = data.head_of(expanded(path))
    titles = data.head_of(expanded(titles_path)) if titles_path else None
    check_size_and_names(table)
    roles = guess(table, titles, roles_told(columns, table, titles))
    if titles:
        print_columns(
            path, table, {role: column for role, column in roles.items() if role != "title"}
        )
        print_columns(
            titles_path, titles, {role: column for role, column in roles.items() if role in TITLES}
        )
    else:
        print_columns(path, table, roles)
    if "item" in roles and roles["item"] == roles.get("title"):
        print(
            "No column seems to number the items, so the title does: what is called alike is one "
            'item. If a column does, say COLUMNS="item=COLUMN".'
        )
    missing = [role for role in TABLE[:4] if role not in roles]
    if missing:
        assignments = ",".join([*filter(None, [columns]), *(f"{role}=COLUMN" for role in missing)])
        option = f" TITLES={shlex.quote(titles_path)}" if titles_path else ""
        raise StudyError(
            f"which column is {' and which '.join(missing)}? Say it: make new NAME={name} "
            f'DATA={shlex.quote(path)}{option} COLUMNS="{assignments}"'
        )
    text = file_text(name, path_in_file(path), path_in_file(titles_path), roles, table)
    planned = jobs_of_text(name, text)
    warnings = data.check(planned)
    write_text(text, file)
    lines = text.splitlines()
    number = next(n for n, line in enumerate(lines) if line.startswith("    columns:"))
    print(f"\nwritten: {relative(file)}.", end=" ")
    print(f"If a column is not what it seems, change line {number + 1}:")
    print(lines[number].partition("  #")[0] + "\n")
    for warning in warnings:
        print(f"warning: {warning}")
    print(plan.table(plan.states(planned)))
    print(f"\nnext: make study STUDY={name}")


def file_of(name: str) -> Path:
    """Where a new study goes. Raises StudyError if the name is invalid or taken."""
    if not name:
        raise StudyError(f"NAME, what the study is to be called, is missing: {USAGE}")
    if not re.fullmatch(studies.NAME, name):
        raise StudyError(f"a study cannot be called {name!r}: take letters, digits, . - _")
    path = studies.ROOT / "studies" / f"{name}.yaml"
    if path.exists():
        raise StudyError(f"{relative(path)} exists: change it, delete it, or take another NAME")
    return path


def relative(path: Path) -> str:
    return path.relative_to(studies.ROOT).as_posix()


def expanded(path: str) -> Path:
    return Path(os.path.expanduser(os.path.expandvars(path)))


def path_in_file(path: str) -> str:
    """A path as a study file has it: relative inside the project, else absolute; ~ and $ stay."""
    if not path or path[0] == "~" or "$" in path:
        return path
    absolute = Path(path).resolve()
    inside = absolute.is_relative_to(studies.ROOT)
    return absolute.relative_to(studies.ROOT).as_posix() if inside else str(absolute)


def roles_told(columns: str, table: Head, titles: Head | None) -> dict[str, str]:
    """`user=buyer,time=bought_at` as role -> column. Raises StudyError for an unknown one.

    A mere number is ignored: shells keep the width of the terminal in COLUMNS.
    """
    roles = {}
    for part in filter(None, "" if columns.isdigit() else columns.split(",")):
        role, _, column = (word.strip() for word in part.partition("="))
        names = list((titles or table if role == "title" else table).values)
        if role not in TABLE:
            raise StudyError(f"COLUMNS: {role!r} is none of {', '.join(TABLE)}")
        if column not in names:
            raise StudyError(f"COLUMNS: no column {column!r} for {role}: one of {', '.join(names)}")
        roles[role] = column
    return roles


def check_size_and_names(table: Head) -> None:
    """Raise StudyError for a table that is too small, or whose first line seems to be data."""
    if table.rows is not None and table.rows < FEWEST:
        raise StudyError(f"{table.path} has {table.rows} rows: a study needs hundreds")
    values = [name for name in table.values if re.fullmatch(rf"-?\d[\d.]*|{DATE}", name)]
    if values and not any(map(role_of, table.values)):
        raise StudyError(
            f"{table.path}: {values[0]!r} in its first line is no name of a column: put a line "
            "such as user,item,time,title on top"
        )


Columns = dict[str, pd.Series]  # name -> values, without missing ones


def columns_of(table: Head) -> Columns:
    return {name: table.values[name].dropna() for name in table.values}


def guess(table: Head, titles: Head | None, preset: dict[str, str]) -> dict[str, str]:
    """Role (readers.TABLE) -> column, as far as it can be guessed; preset: what the user has said.

    Names decide first; then dates, texts, and ids that repeat, if only one remaining column
    fits. Titles may stand in a table of their own, whose item column has the same name.
    """
    columns = columns_of(table)
    title_columns = columns_of(titles) if titles else columns
    shared = {name: values for name, values in columns.items() if name in title_columns}
    if not shared:
        raise StudyError(
            f"{table.path} and the file of titles have no column of one name: call that of the "
            "items the same in both"
        )
    choices = dict.fromkeys(NAMES, columns) | {"item": shared, "title": title_columns}
    roles = dict(preset)
    for role in NAMES:
        name = by_name(role, columns_left(choices[role], roles))
        if name and role not in roles:
            roles[role] = name
    for role in ("time", "title", "item", "user"):
        rows = (titles if titles and role == "item" else table).values
        names = [
            name
            for name, values in columns_left(choices[role], roles).items()
            if seems_to_hold(role, name, values, rows, roles)
        ]
        if role not in roles and len(names) == 1:
            roles[role] = names[0]
    if not titles and "title" not in roles and is_text(columns.get(roles.get("item", ""))):
        roles["title"] = roles["item"]
    if not titles and "item" not in roles and "title" in roles:
        roles["item"] = roles["title"]
    return {role: roles[role] for role in TABLE if role in roles}


def columns_left(columns: Columns, roles: dict[str, str]) -> Columns:
    """The columns that have no role yet."""
    return {name: values for name, values in columns.items() if name not in roles.values()}


def by_name(role: str, columns: Columns) -> str:
    """The column whose name best fits a role that its values allow; '' if none fits."""
    names = [
        n for n, values in columns.items() if role_of(n) == role and allows_role(role, n, values)
    ]

    def worse(name: str) -> tuple:
        if role in ("user", "item"):
            return not re.search(NUMBERED, plain_name(name)), len(name)
        if role == "title":
            flaws = "name" in plain_name(name), not re.search(NAMES["item"], plain_name(name))
            return *flaws, len(name)
        return (not is_time(columns[name]),)

    return min(names, key=worse, default="")


def plain_name(name: str) -> str:
    """A column's name in small letters without accents, its words separated by spaces.

    >>> plain_name("Künstler-Name"), plain_name("userId")
    ('kunstler name', 'user id')
    """
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", plain)
    return " ".join(re.split(r"[\W_]+", words.lower())).strip()


def role_of(name: str) -> str:
    """The role of a column by its name; '' if that says nothing.

    >>> [role_of(name) for name in ("CustomerID", "product_name", "Bestelldatum", "ArtikelNr", "x")]
    ['user', 'title', 'time', 'item', '']
    """
    words = plain_name(name)
    compact = words.replace(" ", "")
    roles = [role for role, pattern in NAMES.items() if re.search(pattern, compact)]
    if re.search(NUMBERED, words):
        roles = [role for role in roles if role not in ("rating", "time")]
        roles = ["item" if role == "title" else role for role in roles]  # title_id
    return (roles or [""])[0]


def allows_role(role: str, name: str, values: pd.Series) -> bool:
    """Whether a column's values allow the role that its name suggests."""
    if role == "split":
        return bool(values.isin(["train", "valid", "test"]).all())
    if role == "rating":
        return is_number(values)
    if role == "time":
        return is_time(values) or not is_number(values) or plain_name(name) in ORDERS
    if role == "title":
        return not (is_number(values) or is_time(values))
    repeats = values.nunique() < len(values)
    return repeats and (is_number(values) or not is_time(values))


def seems_to_hold(
    role: str, name: str, values: pd.Series, rows: pd.DataFrame, roles: dict[str, str]
) -> bool:
    """Whether a column whose name says nothing holds times, titles, or ids of items or users.

    An item has one title; a column with one value per item, such as a brand, is no user.
    """
    if role == "time":
        return is_time(values)
    if role == "title":
        return is_text(values)
    if role == "item":
        return is_id(values) and "title" in roles and decides(name, roles["title"], rows)
    return is_id(values) and "item" in roles and not decides(roles["item"], name, rows)


def decides(name: str, other: str, rows: pd.DataFrame) -> bool:
    """Whether equal values in one column go with equal values in another."""
    return bool((rows.groupby(name)[other].nunique() <= 1).all())


def is_number(values: pd.Series) -> bool:
    return len(values) > 0 and bool(pd.to_numeric(values, errors="coerce").notna().all())


def is_time(values: pd.Series) -> bool:
    """Whether values are dates, or numbers that could be times since 1970 in some unit."""
    if not len(values):
        return False
    if is_number(values):
        numbers = pd.to_numeric(values)
        return any(numbers.between(*bounds).all() for bounds in [*EPOCHS, DAYS])
    return bool(values.str.fullmatch(DATE).all())


def is_text(values: pd.Series | None) -> bool:
    """Whether most values have several words."""
    if values is None or not len(values) or is_time(values):
        return False
    return values.str.contains(r"[^\W\d_]\S*\s+\S").mean() > 0.5


def is_id(values: pd.Series) -> bool:
    """Whether values repeat, yet many are distinct, and are no texts, times or fractions."""
    many = len(values) / 100 < values.nunique() < len(values)
    fractions = is_number(values) and bool((pd.to_numeric(values) % 1 != 0).any())
    return many and not (fractions or is_time(values) or is_text(values))


def print_columns(path: str, table: Head, roles: dict[str, str]) -> None:
    """Print what each column of a table seems to be, with a few of its values."""
    size = "" if table.rows is None else f", {table.rows:,} rows"
    print(f"{path}{size}")
    width = max(map(len, table.values))
    for name in table.values:
        label = " + ".join(role for role, column in roles.items() if column == name)
        print(f"  {label or '-':6}  {name:{width}}  {examples(table.values[name])}".rstrip())


def examples(values: pd.Series) -> str:
    """A few values of a column, for reading."""
    return " | ".join(f"{value:.30}" for value in values.dropna().drop_duplicates()[:SHOWN])


def file_text(name: str, path: str, titles_path: str, roles: dict[str, str], table: Head) -> str:
    """The text of a study file."""
    titles = f"    titles_path: {inline(titles_path)}\n" if titles_path else ""
    words = plain_name(f"{table.path.stem} {roles['item']} {roles['title']}")
    domains = [domain for domain, pattern in DOMAINS.items() if re.search(pattern, words)]
    samples = most_samples(table, roles["user"])
    return FILE.format(
        name=name,
        dataset=inline(name),
        data=inline(path),
        titles=titles,
        columns=inline(roles),
        domain=(domains or ["items"])[0],
        held_out=min(N_HELD_OUT, max(1, samples // 10)),
        n_train=min(N_TRAIN, max(1, samples // 2)),
    )


def most_samples(table: Head, user: str) -> int:
    """The most samples that a table can give; 10^9 if it is too large for its rows to be counted.

    Where the head is the whole table, a user with two rows or more gives one, or one for each row
    that has a full history (sequences.examples, first='any').
    """
    if table.rows != len(table.values):
        return 10**9 if table.rows is None else table.rows
    counts = table.values[user].value_counts()
    return int((counts - PrepareData().history).clip(lower=1)[counts > 1].sum())


def inline(value: object) -> str:
    """A value in one line of YAML."""
    text = yaml.safe_dump(
        value, default_flow_style=True, allow_unicode=True, sort_keys=False, width=10**6
    )
    return text.removesuffix("...\n").strip()


def jobs_of_text(name: str, text: str) -> dict[str, Parameters]:
    """The jobs of a study file that is not written yet."""
    study = schema.Study(**yaml.safe_load(text))
    studies.check(name, study)
    return expansion.jobs(name, study)
