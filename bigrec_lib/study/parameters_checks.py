"""What checks parameters: types, and the base class of every notebook's parameters.

Everything a job works with lies in `runs/<study>`; what a study publishes in `results/<study>`.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from bigrec_lib.files import StudyError
from bigrec_lib.study import provenance
from bigrec_lib.study.row_keys import KEYS

Count = Annotated[int, Field(ge=1)]
Size = Annotated[int, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, lt=1)]
NAME = r"^\w[\w. -]*$"  # of a data set: it names folders, and "+" joins several


class Parameters(BaseModel):
    """What every notebook takes. A subclass per notebook adds its own and names its folders."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())
    notebook: ClassVar[str]
    makers: ClassVar[dict[str, tuple[str, ...]]] = {}
    """Work that costs minutes: its folder below `output` -> the functions that make it. It
    survives a rerun until their code, the parameters or the inputs change."""

    study: str = "quick"
    root: str = ""

    @classmethod
    def check(cls, names: dict[str, object]) -> Self:
        """Parameters from a notebook's `globals()`; unknown names and wrong types are refused.

        Call it in the first cell after the parameters, when nothing else is defined yet.
        """
        startup_names = names_from_startup() - set(cls.model_fields)
        values = {
            name: value
            for name, value in names.items()
            if isinstance(value, str | int | float | bool | list | dict | None)
            and not name.startswith("_")
            and name not in {"In", "Out"} | startup_names
        }
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise StudyError(f"{cls.notebook}: {explain(error)}") from None

    @property
    def project(self) -> Path:
        """The project's folder: `root`, else the nearest folder above that holds pyproject.toml."""
        if self.root:
            return Path(self.root)
        here = Path.cwd()
        for folder in (here, *here.parents):
            if (folder / "pyproject.toml").exists():
                return folder
        raise StudyError(
            f"no pyproject.toml in {here} or above: set `root` to the project's folder"
        )

    @property
    def runs(self) -> Path:
        """Where the study's jobs work; git ignores it."""
        return self.project / "runs" / self.study

    @property
    def results(self) -> Path:
        """Where the study is published."""
        return self.project / "results" / self.study

    @property
    def output(self) -> Path:
        """The folder this notebook writes, manifest included."""
        raise NotImplementedError

    @property
    def tables(self) -> Path:
        return self.output / "tables"

    @property
    def figures(self) -> Path:
        return self.output / "figures"

    @property
    def job(self) -> str:
        """A name for this notebook with these keys, for files and log lines."""
        return self.notebook

    @property
    def keys(self) -> dict[str, object]:
        """The values of `KEYS` that tell this job's results from those of the study's others."""
        return dict(KEYS)

    @property
    def inputs(self) -> dict[str, Path]:
        """Folders of finished artefacts this notebook reads, by the notebook that makes them."""
        return {}

    @property
    def materials(self) -> dict[str, str]:
        """What comes from outside the study: a hash of the contents, by parameter."""
        return {}

    def content(self, path: Path) -> str:
        return provenance.content(path, self.runs / "hashes.json")

    @property
    def sources(self) -> dict[str, str]:
        """Hashes of the notebook and of the library's code that it uses."""
        return provenance.sources(self.project / "notebooks" / f"{self.notebook}.ipynb")


def names_from_startup() -> set[str]:
    """Names that the user's own IPython startup files define in a kernel; none outside one."""
    if "IPython" not in sys.modules:
        return set()
    from IPython.core.getipython import get_ipython

    shell = get_ipython()
    return set(shell.user_ns_hidden) if shell else set()


def explain(error: ValidationError) -> str:
    """A pydantic error as one line: each parameter, what is wrong with it, what was given."""
    problems = []
    for item in error.errors():
        name = ".".join(str(part) for part in item["loc"])
        if item["type"] == "extra_forbidden":
            problems.append(f"unknown parameter {name!r}")
        elif item["type"] == "missing":
            problems.append(f"{name!r} is missing")
        else:
            problems.append(f"{name}: {item['msg']}, not {item['input']!r}")
    return "; ".join(problems)
