"""One self-contained page from the executed notebooks: their prose, tables and figures."""

import html
import re
from pathlib import Path
from urllib.parse import quote

from bigrec_lib.files import StudyError, write_text

TAGS = (
    "a b blockquote br code dd del div dl dt em h1 h2 h3 h4 h5 h6 hr i img li ol p pre s span "
    "strong sub sup table tbody td th thead tr ul"
).split()
SPANS = {cell: ["rowspan", "colspan"] for cell in ("td", "th")}
STYLE = """
body { font: 16px/1.55 Georgia, serif; color: #222; margin: 0 auto; max-width: 60rem;
       padding: 1rem 1.5rem 4rem; }
nav { font-family: sans-serif; font-size: .85rem; border-bottom: 1px solid #ccc;
      padding-bottom: .8rem; }
nav a { margin-right: 1rem; white-space: nowrap; }
section { border-top: 3px solid #0173b2; margin-top: 3rem; }
.source { font: .8rem sans-serif; color: #666; }
h1, h2, h3 { font-family: sans-serif; line-height: 1.25; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.25rem; } h3 { font-size: 1.05rem; }
table { border-collapse: collapse; font: .8rem/1.4 sans-serif; margin: 1rem 0;
        font-variant-numeric: tabular-nums; display: block; overflow-x: auto; }
thead th { border-bottom: 1.5px solid #222; border-top: 1.5px solid #222; }
tbody tr:last-child td, tbody tr:last-child th { border-bottom: 1.5px solid #222; }
th, td { padding: .25rem .5rem; text-align: right; vertical-align: top; }
pre { background: #f6f6f6; padding: .7rem; overflow-x: auto; font-size: .8rem;
      white-space: pre-wrap; }
img { max-width: 100%; }
.anchor-link, .jp-InputPrompt, .jp-OutputPrompt, .prompt { display: none; }
@media print { section { break-before: page; } }
"""


def write(results: Path, jobs: list[str]) -> Path:
    """Write `report.html` from the published notebooks of these jobs, and return its path.

    The page needs no network: figures are embedded, there is no script. Analyses come first, then
    the steps of one run for each data set. Raises StudyError if there is no notebook.
    """
    order = sorted(jobs, key=lambda job: (job.count("."), job))
    if not order:
        raise StudyError(f"{results}/notebooks is empty: run the study first")
    sections = [section(results / "notebooks" / f"{job}.ipynb") for job in order]
    links = "\n".join(f'<a href="#{quote(job)}">{html.escape(job)}</a>' for job in order)
    name = html.escape(results.name)
    page = f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>BIGRec study: {name}</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>{STYLE}</style></head><body>
<h1>BIGRec, study “{name}”</h1>
<p>What each part comes from (code, data, settings): <a href="manifests.json">manifests.json</a></p>
<nav>{links}</nav>
{"".join(sections)}
</body></html>
"""
    write_text(page, results / "report.html")
    return results / "report.html"


def section(path: Path) -> str:
    """An executed notebook as HTML without code and progress bars.

    Outputs may hold text of a data set, so only TAGS and SPANS of theirs are kept; prose is ours.
    """
    import nbformat
    from nbconvert import HTMLExporter
    from nbconvert.preprocessors.sanitize import SanitizeHTML

    class SanitizeOutputs(SanitizeHTML):
        def preprocess_cell(self, cell, resources, index):
            if cell.cell_type == "markdown":
                return cell, resources
            return super().preprocess_cell(cell, resources, index)

    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [without_style(o) for o in cell.outputs if o.get("name") != "stderr"]
    exporter = HTMLExporter(template_name="basic", exclude_input=True)
    exporter.register_preprocessor(SanitizeOutputs(tags=TAGS, attributes=SPANS), enabled=True)
    body, _ = exporter.from_notebook_node(notebook)
    name = html.escape(path.stem)
    source = f'<p class="source">notebooks/{html.escape(path.name)}</p>'
    return f'<section id="{name}">{source}\n{body}</section>\n'


def without_style(output):
    """A cell's output without the style sheets that pandas puts before tables."""
    data = output.get("data", {})
    if "text/html" in data:
        data["text/html"] = re.sub(r"<style.*?</style>", "", data["text/html"], flags=re.S)
    return output
