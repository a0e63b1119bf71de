"""The reader's site of a study: the findings page, all evidence, and a page a notebook.

`results/<study>/index.html` and, for code hosts, `README.md` say what was found;
`results/<study>/site` holds everything else. It opens from disk, asks no host for anything, and is
the same to the byte whenever it is made from the same results. `study` runs it as a process of its
own: `python -m bigrec_lib.findings.site results/quick JOB …`.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
from functools import partial
from pathlib import Path
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from bigrec_lib.files import StudyError, atomic, write_text
from bigrec_lib.findings import front, pages, summary
from bigrec_lib.study import run_names
from bigrec_lib.study.parameters import NOTEBOOKS, TryIt

TEMPLATES = Path(__file__).with_name("templates")
FOLDER = "site"
ASSETS = ("style.css", "site.js")
PRINTED = 150  # dots per inch of the figures among results: `plots.style`


def write(results: Path, jobs: list[str]) -> list[Path]:
    """Write the site from the published notebooks of these jobs; return its files.

    A page is named after its job. Raises StudyError if there is no notebook.
    """
    if not jobs:
        raise StudyError(f"{results}/notebooks is empty: run the study first")
    templates = environment()
    contents = front.contents(results)
    order = sorted(jobs, key=reading_order)
    notebook_pages, files = read_pages(results, order, templates, decided(contents["rows"]))
    links = [link_of(page) for page in notebook_pages]
    contents["lacks"] += unpublished(links)
    common = contents | {
        "study": results.name,
        "links": links,
        "groups": grouped(links),
        "there": {link["job"] for link in links},
        "overall": overall(results, contents["levels"]),
        "explorer": (results / "explorer.html").exists(),
    }

    def render(template: str, name: str, **extra) -> None:
        values = common | {"up": "../" * name.count("/")} | extra
        write_text(templates.get_template(template).render(values), results / name)
        files.append(results / name)

    render("index.html.j2", "index.html")
    render("README.md.j2", "README.md")
    render("evidence.html.j2", f"{FOLDER}/evidence.html")
    neighbours = zip([None, *links], [*links[1:], None], strict=False)
    for page, link, (before, after) in zip(notebook_pages, links, neighbours, strict=True):
        context = {"page": page, "link": link, "before": before, "after": after}
        render("notebook.html.j2", f"{FOLDER}/{page.name}.html", **context)
    entries = in_pages(notebook_pages, links) + in_front(contents)
    files.append(write_search(entries, results / FOLDER / "search.js"))
    for name in ASSETS:
        files.append(copy(TEMPLATES / name, results / FOLDER / name))
    return files


def read_pages(
    results: Path, jobs: list[str], templates: Environment, claims: dict[str, set[str]]
) -> tuple[list[pages.Page], list[Path]]:
    """The pages of these jobs, and the files of their pictures.

    claims: job -> those that it decides. A picture that is among the study's figures is linked
    there.
    """
    files: list[Path] = []
    cells = templates.get_template("cells.html.j2").render

    def place(picture: pages.Picture, page: str) -> str:
        if picture.saved and (results / "figures" / f"{picture.saved}.png").exists():
            return f"../figures/{picture.saved}.png"
        n = sum(path.name.startswith(f"{page}.") for path in files) + 1
        path = results / FOLDER / "pictures" / f"{page}.{n}.png"
        with atomic(path) as unfinished:
            unfinished.write_bytes(picture.png)
        files.append(path)
        return f"pictures/{quote(path.name)}"

    notebook_pages = []
    for job in jobs:
        path = results / "notebooks" / f"{job}.ipynb"
        job_claims = claims.get(job, set())
        notebook_pages.append(pages.read(path, jobs, cells, partial(place, page=job), job_claims))
    return notebook_pages, files


def decided(rows: list[front.Row]) -> dict[str, set[str]]:
    """Job -> the claims of its rows."""
    claims: dict[str, set[str]] = {}
    for row in rows:
        claims.setdefault(row.where.partition("#")[0], set()).add(row.claim)
    return claims


def copy(source: Path, target: Path) -> Path:
    with atomic(target) as unfinished:
        shutil.copyfile(source, unfinished)
    return target


def unpublished(links: list[dict[str, str]]) -> list[str]:
    """Which steps of the path, 01 to 06, have no page; 00 publishes nothing."""
    published = {link["notebook"] for link in links} | {TryIt.notebook}
    return [f"a page of {name}" for name in NOTEBOOKS if name < "07" and name not in published]


def grouped(links: list[dict[str, str]]) -> dict[str, list[dict[str, str]]]:
    """Group -> its links, in reading order."""
    groups = dict.fromkeys(link["group"] for link in links)
    return {group: [link for link in links if link["group"] == group] for group in groups}


def environment() -> Environment:
    """Templates that escape their values; those of Markdown have the filter `as_text` for it."""
    templates = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=lambda name: name is not None and name.endswith(".html.j2"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters["slug"] = lambda text: re.sub(r"[^\w]+", "-", text.lower()).strip("-")
    templates.filters["address"] = quote
    templates.filters["as_text"] = as_text
    templates.globals["signed"] = summary.signed
    return templates


def as_text(text: str) -> str:
    r"""Text that Markdown shows as it is.

    >>> as_text("<b>*A* | [x](y)")
    '&lt;b>\\*A\\* \\| \\[x\\](y)'
    """
    escaped = re.sub(r"([\\`*_\[\]|~#])", r"\\\1", " ".join(text.split()))
    return escaped.replace("&", "&amp;").replace("<", "&lt;")


def overall(results: Path, levels: list[summary.Level]) -> dict | None:
    """Size in CSS pixels and description of the figure of all methods; None without it."""
    from PIL import Image

    path = results / "figures" / "overall.png"
    if not path.exists():
        return None
    with Image.open(path) as image:
        width, height = (round(pixels * pages.INCH / PRINTED) for pixels in image.size)
    return {"width": width, "height": height, "alt": summary.overall(levels)}


def reading_order(job: str) -> tuple:
    """Steps first, one data set after the other; then the analyses, by number."""
    dataset, _, notebook = run_names.parts_of(job)
    return (0, "+" in dataset, dataset, notebook) if dataset else (1, job)


def link_of(page: pages.Page) -> dict[str, str]:
    """What navigation says of a page: job, href, title, notebook, group and, of a step, its run."""
    dataset, run, notebook = run_names.parts_of(page.name)
    details = [dataset]
    if adapter := run_names.adapter_run(run):
        n_train, seed, special = adapter
        details += [f"{n_train:,} samples", f"seed {seed}", special.removeprefix("as-")]
    return {
        "job": page.name,
        "href": f"{FOLDER}/{quote(page.name)}.html",
        "title": page.title,
        "notebook": notebook or page.name,
        "group": f"The path, on {dataset}" if dataset else "Findings",
        "run": ", ".join(filter(None, details)),
    }


def in_pages(notebook_pages: list[pages.Page], links: list[dict[str, str]]) -> list[dict[str, str]]:
    """Entries of the search: one a section of a page."""
    return [
        {
            "page": f"{page.title} ({link['run']})" if link["run"] else page.title,
            "title": section.title,
            "text": section.text,
            "href": link["href"] + (f"#{section.anchor}" if section.anchor else ""),
        }
        for page, link in zip(notebook_pages, links, strict=True)
        for section in page.sections
    ]


def in_front(contents: dict) -> list[dict[str, str]]:
    """Entries of the search: one a row of evidence, one a worked example.

    A claim without a verdict has no rows on the page of evidence, but a line on the front page.
    """
    judged = {claim.name for claim in contents["claims"]}
    rows = [
        {"page": "All evidence", "title": f"{row.claim} on {row.dataset}: {row.verdict}",
         "text": f"{row.statement} {row.metric} {row.value} {row.reason}",
         "href": f"{FOLDER}/evidence.html#row-{row.number}" if row.claim in judged
                 else f"index.html#{row.claim}"}
        for row in contents["rows"]
    ]  # fmt: skip
    examples = [
        {"page": "Findings", "title": f"Worked example: {example.kind}",
         "href": "index.html#examples",
         "text": " · ".join([*example.history, example.text, *example.grounded, example.target])}
        for example in contents["examples"]
    ]  # fmt: skip
    in_short = {"page": "Findings", "title": "In short", "href": "index.html",
                "text": " ".join(contents["summary"])}  # fmt: skip
    return [in_short, *rows, *examples]


def write_search(entries: list[dict[str, str]], path: Path) -> Path:
    """The index of the search, as a script: a page that lies on a disk may not fetch JSON."""
    text = json.dumps(entries, ensure_ascii=False, separators=(",", ":"))
    write_text(f"window.searchEntries = {text};\n", path)
    return path


def main(arguments: list[str]) -> int:
    """Write a study's site and print its files as JSON, which no encoding of a terminal spoils."""
    results, *jobs = arguments
    try:
        files = write(Path(results), jobs)
    except (StudyError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    print(json.dumps([path.relative_to(results).as_posix() for path in files]))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
