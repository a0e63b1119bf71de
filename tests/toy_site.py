"""A small published study whose titles are hostile, and its site."""

from base64 import b64encode
from io import BytesIO

import nbformat
import pandas as pd
import toy_results
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from PIL import Image

from bigrec_lib.findings import claims, evidence, rules, site

HOSTILE = '<img src="http://evil.test/x.png" onerror="alert(1)"><script>alert(2)</script>'
ALSO = '"><a href="javascript:alert(3)">[x](http://evil.test) | **b** ![y](http://evil.test/y.png)'
JOBS = ["films.01_prepare_data", "films.n128-s0.03_generate_titles", "07_overall_performance"]
LINKS = (
    "[out](https://example.org), [on](03_generate_titles.ipynb#claims), [to](07_overall_performance"
    ".ipynb), [no](../docs/method.md), [none](12_llm_size.ipynb)"
)
EXERCISE = """## Exercise

How many?

<details><summary>A *solution* <script>alert(4)</script></summary>

```python
print("<details>")
```

It has [links](https://example.org).

</details>

After."""
SIZE = (660, 330)


def cut() -> str:
    """A table as `tables.view` prints it, cut, with a caption, of a file that is published."""
    names = ["a name of a method that is long", "-", "3 of 4"]
    table = pd.DataFrame({"method": names, "gain": ["+0.1 [−0.2, +0.3]", "–", "1e-05 ∘"]})
    below = "*The first 3 of 9 rows: all of them are in `tables/long.csv`.* *Means.*"
    return f"{table.to_markdown(index=False, disable_numparse=True)}\n\n{below}\n"


def picture() -> str:
    drawn = BytesIO()
    Image.new("RGB", SIZE, "white").save(drawn, format="png")
    return b64encode(drawn.getvalue()).decode()


def shown(**data):
    return new_output("display_data", {name.replace("_", "/"): text for name, text in data.items()})


def cells(title: str) -> list:
    """Prose, a table in HTML and in Markdown, a figure and progress, with hostile titles."""
    table = pd.DataFrame({"title": [HOSTILE, ALSO], "rank": [1, 2]})
    both = pd.DataFrame({("a", "x"): [1, 2], ("a", "y"): [3, 4]})
    both.index = pd.MultiIndex.from_tuples([("games", "p"), ("games", "q")])
    progress = new_output("stream", name="stderr", text="50%|###")
    said = new_output("stream", name="stdout", text=f"read {HOSTILE}")
    figure = new_output("display_data", {"image/png": picture()})
    figure.metadata["image/png"] = {"alt": "Two lines, from 0.1 to 0.4"}
    return [
        new_markdown_cell(f"# {title}\n\nProse, {LINKS} and `code`.", id="q"),
        new_code_cell("p = secret_name()  # a comment", id="check", outputs=[progress]),
        new_markdown_cell("## Claims\n\nA word: quetzalcoatl.", id="worked"),
        new_code_cell("table", id="claims", outputs=[shown(text_html=table.to_html()), said]),
        new_markdown_cell("## Claims", id="again"),
        new_code_cell("both", id="both", outputs=[
            shown(text_html=both.to_html()), shown(text_html=both.style.to_html()),
            shown(text_markdown=table.to_markdown()),
            shown(text_markdown=f"### What *{HOSTILE}* is\n\n- {ALSO}"),
        ]),
        new_code_cell("draw()", id="figure", outputs=[figure]),
        new_markdown_cell("*Left: what is seen.*", id="below"),
        new_markdown_cell(EXERCISE, id="exercise"),
        new_code_cell("rule", id="rule", outputs=[shown(text_markdown=rules.RULE)]),
        new_code_cell("long", id="long", outputs=[shown(text_markdown=cut()) for _ in range(2)]),
    ]  # fmt: skip


def publish(results, hostile=True):
    """The planted study with claims, notebooks and a figure; the files of its site."""
    toy_results.write(results)
    if hostile:
        poison(results)
    test, valid = (evidence.read_scores(results, split) for split in ("test", "valid"))
    items, examples = (evidence.read_data(results, name) for name in ("items", "examples"))
    gains = evidence.personal_gains(evidence.read_lists(results), items, examples)
    rows = claims.judged(claims.c1(test, valid, gains), "07_overall_performance#claims", "abc")
    rows.to_csv(results / "claims.csv", index=False)
    (results / "figures").mkdir()
    Image.new("RGB", SIZE, "white").save(results / "figures" / "overall.png")
    (results / "tables").mkdir(exist_ok=True)
    (results / "tables" / "long.csv").write_text("method,gain\n")
    (results / "notebooks").mkdir()
    for n, job in enumerate(JOBS):
        book = new_notebook(cells=cells(f"Question {n} of {HOSTILE if hostile else 'all'}?"))
        nbformat.write(book, results / "notebooks" / f"{job}.ipynb")
    return site.write(results, JOBS)


def poison(results):
    """Every third title, and every text that was written, is hostile."""
    path = results / "items.parquet"
    items = pd.read_parquet(path)
    third = items["item"] % 3 == 0
    items["title"] = items.title.mask(third, HOSTILE).mask(items["item"] % 3 == 1, ALSO)
    items.to_parquet(path)
    path = results / "generations.parquet"
    pd.read_parquet(path).assign(text=f'"{HOSTILE}"').to_parquet(path)
