"""Execute one notebook, and make a record of it that is the same whenever it is made."""

from __future__ import annotations

import re
import sys
from base64 import b64decode, b64encode
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from bigrec_lib.files import StudyError

if TYPE_CHECKING:
    from nbformat import NotebookNode

BAR = re.compile(r"\d+%\|.*\||\d+(\.\d+)?\s?\S*it/s|\[\d+:\d+")  # a line that a progress bar wrote

WIDGET = "application/vnd.jupyter.widget-view+json"  # a progress bar in a live page

UP = "\x1b[A"  # with which a bar below another one goes back up

PLACE = re.compile(r'"/(?:[^"]*/)?([^"/]+)/?"')  # a quoted absolute path, its last part


class Tee:
    """A stream that also goes to a file; neither a closed terminal nor a full disk ends the job."""

    def __init__(self, *streams):
        self.streams = streams

    def write(self, text: str) -> int:
        for stream in self.streams:
            with suppress(OSError):
                stream.write(text)
                stream.flush()
        return len(text)

    def flush(self) -> None:
        pass


def execute(source: Path, output: Path, parameters: dict[str, object], log: Path) -> None:
    """Run a notebook through papermill, its progress shown here and in `log`, its outputs kept.

    Raises StudyError that names the notebook, the cell, the error and the executed notebook.
    """
    import papermill
    from nbclient.exceptions import DeadKernelError

    output.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "w", encoding="utf-8") as stream:
        try:
            papermill.execute_notebook(
                str(source),
                str(output),
                parameters=parameters,
                kernel_name="python3",
                progress_bar=False,
                stdout_file=Tee(sys.stdout, stream),
                stderr_file=Tee(sys.stderr, stream),
                extra_arguments=["--IPKernelApp.log_level=50"],
            )
        except papermill.PapermillExecutionError as error:
            raise StudyError(
                f"{source.stem}, cell {error.exec_count}: {error.ename.split('.')[-1]}: "
                f"{' '.join(error.evalue.split())} (see {output})"
            ) from None
        except DeadKernelError:
            raise StudyError(
                f"{source.stem}: its kernel was killed, perhaps for want of memory (see {output})"
            ) from None


def record(path: Path, project: Path) -> NotebookNode:
    """An executed notebook as it is kept: without times, random ids, progress bars (widgets among
    them) and paths of this machine, its pictures small."""
    import nbformat

    notebook = nbformat.read(path, as_version=4)
    for key in ("papermill", "widgets"):
        notebook.metadata.pop(key, None)
    for cell in notebook.cells:
        for field in ("papermill", "execution"):
            cell.metadata.pop(field, None)
        if "injected-parameters" in cell.metadata.get("tags", []):
            cell.id = "injected-parameters"
            cell.source = PLACE.sub(r'"…/\1"', cell.source)
        if cell.cell_type == "code":
            outputs = [output for output in cell.outputs if WIDGET not in output.get("data", {})]
            cell.outputs = [settled_output(output, project) for output in joined_streams(outputs)]
            cell.outputs = [output for output in cell.outputs if output.get("text") != ""]
    return notebook


def joined_streams(outputs: list[NotebookNode]) -> list[NotebookNode]:
    """Outputs with neighbouring pieces of one stream put together."""
    result: list[NotebookNode] = []
    for output in outputs:
        if result and output.get("name") == result[-1].get("name", ""):
            result[-1].text += output.text
        else:
            result.append(output)
    return result


def settled_output(output: NotebookNode, project: Path) -> NotebookNode:
    """One output without progress bars and paths of this machine, its picture small."""
    if output.output_type == "stream":
        lines = [(line.split("\r")[-1], UP in line) for line in output.text.split("\n")]
        text = "\n".join(line for line, up in lines if not (up or BAR.search(line)))
        output.text = text.replace(f"{project}/", "").replace(f"{sys.prefix}/", "")
        if not output.text.strip():
            output.text = ""
    elif "image/png" in output.get("data", {}):
        picture = small(b64decode(output.data["image/png"]))
        output.data["image/png"] = b64encode(picture).decode()
    return output


def small(png: bytes, description: str = "") -> bytes:
    """A PNG in 256 colours: enough for a figure, and less than half the size.

    description: what it shows, kept in the file under the PNG keyword "Description".
    """
    from PIL import Image, PngImagePlugin

    info = PngImagePlugin.PngInfo()
    if description:
        info.add_itxt("Description", description)
    buffer = BytesIO()
    with Image.open(BytesIO(png)) as image:
        picture = image.convert("RGB").quantize(256, dither=Image.Dither.NONE)
        picture.save(buffer, format="png", pnginfo=info)
    return buffer.getvalue()
