"""An executed notebook as a page: rendered by nbconvert's filters, made safe, and dressed.

Outputs may hold text of a data set, such as hostile titles, so only their TAGS and SPANS are kept:
no link, no image, no style, no script. Pictures become files.
"""

from __future__ import annotations

import re
from base64 import b64decode
from collections.abc import Callable
from copy import copy
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from urllib.parse import quote

from bs4 import BeautifulSoup, Tag

from bigrec_lib.findings import rules

TAGS = (
    "b blockquote br code dd del div dl dt em h1 h2 h3 h4 h5 h6 hr i li ol p pre s span "
    "strong sub sup table tbody td th thead tr ul"
).split()
SPANS = {cell: ["rowspan", "colspan"] for cell in ("td", "th")}
PROSE = {"a": ["href"], "pre": ["class"], "div": ["class"], "span": ["class"]} | SPANS
ASIDE = re.compile(r"<details><summary>(.*?)</summary>\n(.*?)\n</details>", re.S)
TABLE = re.compile(r"tables/\w+\.csv")
NUMBER = re.compile(r"[+\-−±~<≤>≥†∘–%,.:/\[\]()\s\d]*(?:e-?\d+)?[†∘\s]*")
LONG = 24  # characters: a column with more gets a least width on a phone
SAVED = re.compile(r'plots\.save\(\w+, p\.figures, "(\w+)"')  # the figure is among results, too
DPI = 110  # of the pictures in notebooks: `plots.style`
INCH = 96  # CSS pixels


@dataclass
class Picture:
    """A picture of an output. width, height: in CSS pixels, so that text has its true size."""

    png: bytes
    width: int
    height: int
    alt: str
    saved: str = ""  # name among the study's figures; '' for none


@dataclass
class Section:
    """A part of a page that has an address: for the table of contents and the search."""

    anchor: str
    title: str
    level: int
    text: str = ""
    framed: dict[str, int] = field(default_factory=dict)  # kind -> tables or figures so far


@dataclass
class Page:
    """A notebook, ready for its template. html: without its first heading, which is `title`."""

    name: str
    title: str
    html: str
    sections: list[Section] = field(default_factory=list)


def read(
    path: Path,
    jobs: list[str],
    render: Callable[..., str],
    place: Callable[[Picture], str],
    claims: set[str],
) -> Page:
    """The page of an executed notebook.

    jobs: all that have a page. render: the template of the cells. place: stores a picture and
    returns its address. claims: those that the notebook decides.
    """
    import nbformat

    notebook = nbformat.read(path, as_version=4)
    body = BeautifulSoup(render(cells=[cell_of(c, place) for c in notebook.cells]), "html.parser")
    heading = body.find("h1")
    title = heading.get_text().strip() if heading else path.stem
    if heading:
        heading.decompose()
    for link in body.find_all("a"):
        lead(link, path.stem, jobs)
    for tag in body.select(".output code"):
        lead_to_table(body, tag, path.parent.parent)
    fold_rule(body, claims)
    page = Page(path.stem, title, "")
    page.sections = dress(body, title)
    page.html = str(body)
    return page


def lead(link: Tag, job: str, jobs: list[str]) -> None:
    """Let a link of a notebook's prose lead to a page of the site, or make it plain text.

    A link to another notebook leads to its page, of the same run if it is a step. Nothing else of
    the repository is in the folder of the site.
    """
    name, _, anchor = str(link.get("href")).partition("#")
    if not name or name.startswith(("http:", "https:")):
        return
    stem = name.rpartition("/")[2].removesuffix(".ipynb")
    targets = [page for page in (stem, f"{job.rpartition('.')[0]}.{stem}") if page in jobs]
    if targets and name.endswith(".ipynb"):
        link["href"] = f"{quote(targets[0])}.html" + (f"#{anchor}" if anchor else "")
    else:
        link.unwrap()


def lead_to_table(body: BeautifulSoup, tag: Tag, results: Path) -> None:
    """Let the name of a published table, as `tables.view` prints it, lead to its file."""
    name = tag.get_text()
    if TABLE.fullmatch(name) and (results / name).exists():
        tag.wrap(body.new_tag("a", href=f"../{name}"))


def fold_rule(body: BeautifulSoup, claims: set[str]) -> None:
    """Show what the printed rule says of these claims, and fold the rule as a whole."""
    start = " ".join(rules.RULE.split("\n\n")[0].split())
    for output in body.select(".output"):
        paragraph = output.find("p")
        if not paragraph or " ".join(paragraph.get_text().split()) != start:
            continue
        details = output.wrap(body.new_tag("details"))
        summary = body.new_tag("summary")
        summary.string = "The rule in full, for every claim"
        details.insert(0, summary)
        excerpt = body.new_tag("ul")
        for line in output.find_all("li"):
            if line.get_text().partition(":")[0] in claims:
                excerpt.append(copy(line))
        if excerpt.contents:
            details.insert_before(excerpt)


def cell_of(cell, place: Callable[[Picture], str]) -> dict:
    """What the template shows of a cell: id, prose or code, outputs."""
    view: dict = {"id": cell.id, "kind": cell.cell_type}
    if cell.cell_type == "markdown":
        return view | {"html": prose(cell.source)}
    if cell.cell_type != "code":
        return view | {"html": ""}
    outputs = [output_of(output, cell, place) for output in cell.outputs]
    return view | {"html": code(cell.source), "outputs": [entry for entry in outputs if entry]}


def output_of(output, cell, place: Callable[[Picture], str]) -> dict:
    """An output in the richest form that it has; {} for progress bars and empty ones."""
    from nbconvert.filters import strip_ansi

    if output.output_type == "stream":
        return {"text": strip_ansi(output.text)} if output.name == "stdout" else {}
    if output.output_type == "error":
        return {"text": strip_ansi(f"{output.ename}: {output.evalue}")}
    data = output.data
    if "text/html" in data:
        return {"html": clean(without_style(data["text/html"]))}
    if "text/markdown" in data:
        return {"html": markdown(data["text/markdown"])}
    if "image/png" in data:
        picture = picture_of(output, cell)
        return {"picture": picture, "src": place(picture)}
    return {"text": strip_ansi(data.get("text/plain", ""))}


def picture_of(output, cell) -> Picture:
    """The picture of an output, with its size at 1:1 and its description."""
    from PIL import Image

    png = b64decode(output.data["image/png"])
    with Image.open(BytesIO(png)) as image:
        width, height = (round(pixels * INCH / DPI) for pixels in image.size)
    alt = output.metadata.get("image/png", {}).get("alt", "")
    call = SAVED.search(cell.source)
    return Picture(png, width, height, alt, call[1] if call else "")


def prose(text: str) -> str:
    """A cell of prose as HTML: Markdown with links, of which a part may be folded (`ASIDE`)."""
    pieces = [markdown(piece, [*TAGS, "a"], PROSE) for piece in ASIDE.split(text)]
    html = pieces[0]
    for title, content, rest in zip(pieces[1::3], pieces[2::3], pieces[3::3], strict=True):
        summary = BeautifulSoup(title, "html.parser").get_text().strip()
        html += f"<details><summary>{clean(summary)}</summary>{content}</details>{rest}"
    return html


def markdown(text: str, tags: list[str] = TAGS, attributes: dict = SPANS) -> str:
    """Markdown as HTML, with no other markup than `tags` and `attributes`.

    HTML in it is shown as text, a picture as its description, and a link as its text where links
    are not among the tags.
    """
    from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath

    html = MarkdownWithMath(renderer=IPythonRenderer(escape=True)).render(text)
    soup = BeautifulSoup(html, "html.parser")
    for image in soup.find_all("img"):
        image.replace_with(str(image.get("alt", "")))
    for link in soup.find_all("a"):
        if "anchor-link" in (link.get("class") or ""):
            link.decompose()
        elif "a" not in tags:
            link.unwrap()
    return clean(str(soup), tags, attributes)


def code(source: str) -> str:
    """Python with Pygments' classes."""
    from nbconvert.filters import Highlight2HTML

    return Highlight2HTML(pygments_lexer="ipython3")(source)


def clean(html: str, tags: list[str] = TAGS, attributes: dict = SPANS) -> str:
    """HTML with these tags and attributes only; other markup is shown as text.

    >>> clean("<b onclick='x()'>a</b><img src=x>")
    '<b>a</b>&lt;img src=x&gt;'
    """
    import bleach

    return bleach.clean(html, tags=set(tags), attributes=attributes, protocols={"http", "https"})


def without_style(html: str) -> str:
    """HTML without the style sheets that pandas puts before tables."""
    return re.sub(r"<style.*?</style>", "", html, flags=re.S)


# ------------------------------------------------------------------------------------- dressing


def dress(body: BeautifulSoup, title: str) -> list[Section]:
    """Give headings addresses, tables and figures captions; return the sections.

    ids are unique: those of cells stay, and a heading whose id is in use gets another.
    """
    ids = {str(tag["id"]) for tag in body.find_all(id=True)}
    numbers = {"Table": 0, "Figure": 0}
    sections = [Section("", title, 1)]
    for cell in body.find_all(class_="cell", recursive=False):
        if cell.decomposed:
            continue
        for tag in cell.find_all(["h1", "h2", "h3", "h4", "h5", "h6", "table", "figure"]):
            if tag.name == "table":
                frame_table(body, tag, caption("Table", sections[-1], numbers))
            elif tag.name == "figure":
                frame_figure(body, tag, caption("Figure", sections[-1], numbers), cell)
            else:
                sections.append(address(body, tag, ids, sections[-1].level))
    collect(body, sections)
    return sections


def caption(kind: str, section: Section, numbers: dict[str, int]) -> str:
    """The number of a table or figure and its section, with its number in it after the first."""
    numbers[kind] += 1
    section.framed[kind] = section.framed.get(kind, 0) + 1
    suffix = f" ({section.framed[kind]})" if section.framed[kind] > 1 else ""
    return f"{kind} {numbers[kind]}. {section.title}{suffix}"


def address(body: BeautifulSoup, heading: Tag, ids: set[str], level_above: int) -> Section:
    """Give a heading an id and a visible link to itself; no level is left out."""
    level = min(max(int(heading.name[1]), 2), level_above + 1)
    text = heading.get_text().strip()
    slug = re.sub(r"[^\w]+", "-", text.lower()).strip("-") or "section"
    anchor = next(name for name in numbered(slug) if name not in ids)
    ids.add(anchor)
    heading.name, heading["id"] = f"h{level}", anchor
    link = body.new_tag("a", href=f"#{anchor}", attrs={"class": "anchor"})
    link["aria-label"] = f"Link to “{text}”"
    link.string = "#"
    heading.append(" ")
    heading.append(link)
    return Section(anchor, text, level)


def numbered(slug: str):
    """slug, slug-2, slug-3, …"""
    yield slug
    n = 2
    while True:
        yield f"{slug}-{n}"
        n += 1


def frame_table(body: BeautifulSoup, table: Tag, text: str) -> None:
    """Put a table into a frame that scrolls, with a caption, and mark what its headers head.

    Prose in italics right below it becomes part of the caption.
    """
    mark_text(table)
    for header in table.find_all("th"):
        if not header.get_text().strip():
            header.name = "td"
        else:
            header["scope"] = "col" if header.find_parent("thead") else "row"
            allow_breaks(body, header)
    line = body.new_tag("caption")
    line.append(text if text[-1] in ".?!" else f"{text}.")
    note = table.find_next_sibling()
    if note and note.name == "p" and all_in_italics(note):
        for emphasis in note.find_all("em", recursive=False):
            line.append(" ")
            line.extend(list(emphasis.contents))
        note.decompose()
    table.insert(0, line)
    table.wrap(frame(body, text))


def allow_breaks(body: BeautifulSoup, header: Tag) -> None:
    """Let a name such as relative_low break after its underscores, so that columns stay narrow."""
    first, *rest = (header.string or "").split("_")
    if rest:
        header.string = first
        for part in rest:
            header.extend(["_", body.new_tag("wbr"), part])


def mark_text(table: Tag) -> None:
    """Give the cells of columns that hold text the class `text`, and `long` if it is long.

    Tables whose cells span several columns or rows stay as they are.
    """
    if table.select_one("[colspan], [rowspan]"):
        return
    rows = [row.find_all(["td", "th"], recursive=False) for row in table.find_all("tr")]
    for cells in zip(*rows, strict=False):
        texts = [cell.get_text().strip() for cell in cells if not cell.find_parent("thead")]
        if all(NUMBER.fullmatch(text) for text in texts):
            continue
        classes = ["long"] if max(map(len, texts)) > LONG else []
        for cell in cells:
            cell["class"] = ["text", *classes]


def frame_figure(body: BeautifulSoup, figure: Tag, text: str, cell: Tag) -> None:
    """Number a figure; prose in italics right below it becomes part of the caption."""
    line = body.new_tag("figcaption")
    line.append(text if text[-1] in ".?!" else f"{text}.")
    note = cell.find_next_sibling(class_="cell")
    if note and (emphasis := in_italics(note)):
        line.append(" ")
        line.extend(list(emphasis.contents))
        note.decompose()
    figure.append(line)
    for image in figure.find_all("img"):
        image["alt"] = image["alt"] or " ".join(line.get_text().split())
        image.wrap(frame(body, text))


def in_italics(cell: Tag) -> Tag | None:
    """The emphasis that is all of a cell's prose; None if there is more or none."""
    emphasis = cell.find("em")
    whole = emphasis and emphasis.get_text().strip() == cell.get_text().strip()
    return emphasis if whole else None


def all_in_italics(paragraph: Tag) -> bool:
    """Whether a paragraph is nothing but emphasis, one or several."""
    parts = [part for part in paragraph.children if str(part).strip()]
    return bool(parts) and all(isinstance(part, Tag) and part.name == "em" for part in parts)


def frame(body: BeautifulSoup, name: str) -> Tag:
    """A box that scrolls sideways and that the keyboard reaches."""
    return body.new_tag(
        "div", attrs={"class": "scroll", "tabindex": "0", "role": "group", "aria-label": name}
    )


def collect(body: BeautifulSoup, sections: list[Section]) -> None:
    """Give every section the text below its heading, without code."""
    by_anchor = {section.anchor: section for section in sections}
    current = sections[0]
    for piece in body.descendants:
        if isinstance(piece, Tag):
            current = by_anchor.get(str(piece.get("id") or "-"), current)
        elif not piece.find_parent(["details", "h2", "h3", "h4", "h5", "h6"]):
            current.text += f" {piece}"
    for section in sections:
        section.text = " ".join(section.text.split())
