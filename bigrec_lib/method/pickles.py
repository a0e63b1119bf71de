"""Pickled tables, read without running anything that a pickle asks for."""

from __future__ import annotations

import io
import pickle
import struct
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from bigrec_lib.method.sources import Source
from bigrec_lib.method.values import DataError

KINDS = ("<i8", ">i8", "<f8", ">f8")


class Inert:
    """Stands in for every class or function a pickle names: keeps its arguments, does nothing."""

    args: tuple = ()
    state: Any = None

    def __new__(cls, *args):
        instance = object.__new__(cls)
        instance.args = args
        return instance

    def __setstate__(self, state):
        self.state = state


class InertUnpickler(pickle._Unpickler):  # the one in C allocates any memory a pickle claims
    """Reads a pickled DataFrame into Inert objects; any name but those it needs is refused."""

    allowed = {  # as pandas 2 calls them
        "builtins.slice",
        "numpy.dtype",
        "numpy.ndarray",
        "pandas._libs.internals._unpickle_block",
        "pandas.core.frame.DataFrame",
        "pandas.core.indexes.base.Index",
        "pandas.core.indexes.base._new_Index",
        "pandas.core.indexes.range.RangeIndex",
        "pandas.core.internals.managers.BlockManager",
        *(
            f"numpy.{core}.{function}"  # of numpy 1, of numpy 2
            for core in ("core", "_core")
            for function in ("multiarray._reconstruct", "numeric._frombuffer")
        ),
    }

    def __init__(self, content: bytes, file: str):
        super().__init__(io.BytesIO(content))
        self.file = file

    read: Callable[[int], bytes]  # set by `load`, as is `append`
    append: Callable[[object], None]

    def load_bytearray8(self) -> None:
        """A bytearray of as many bytes as there are, not of as many as the pickle claims."""
        (size,) = struct.unpack("<Q", self.read(8))
        content = self.read(size)
        if len(content) < size:
            raise EOFError
        self.append(bytearray(content))

    dispatch: ClassVar[dict] = pickle._Unpickler.dispatch | {pickle.BYTEARRAY8[0]: load_bytearray8}

    def find_class(self, module: str, name: str) -> type[Inert]:
        if f"{module}.{name}" not in self.allowed:
            raise DataError(
                f"{self.file} asks for {module}.{name}: that is no table as pandas 2 pickles it, "
                "and it is refused"
            )
        return Inert


def pickled_frame(source: Source, file: str, columns: list[str]) -> pd.DataFrame:
    """The named columns of a DataFrame that pandas 2 pickled: int64, float64 or objects.

    Raises DataError if the file asks for any other class or function, or is damaged.
    """
    with source.open(file) as stream:
        content = stream.read()
    try:
        blocks, (header, _) = InertUnpickler(content, file).load().state["_mgr"].args
        labels = np.array(header.args[1]["data"].state[4])
        frame = {}
        for block in blocks:
            values, places, _ = block.args
            index = slice(*places.args) if len(places.args) == 3 else array_of(places)
            for label, row in zip(labels[index], array_of(values), strict=True):
                frame[label] = row
        return pd.DataFrame({column: frame[column] for column in columns})
    except DataError:
        raise
    except Exception as error:  # a damaged pickle fails in any way there is
        raise DataError(
            f"{file} is not the table of {', '.join(columns)} it should be: {error!r}"
        ) from None


def array_of(values: Inert) -> np.ndarray:
    """The (columns, rows) array that a pickled block holds."""
    if values.state:  # numpy.ndarray.__setstate__: version, shape, dtype, order, list
        _, shape, _, fortran, content = values.state
        objects = np.fromiter(content, dtype=object, count=len(content))
        return objects.reshape(shape, order="F" if fortran else "C")
    content, dtype, shape, order = values.args  # of numpy's _frombuffer
    kind = dtype.state[1] + dtype.args[0]
    if kind not in KINDS:
        raise ValueError(f"numbers of kind {kind}")
    return np.frombuffer(content, kind).astype(kind[1:]).reshape(shape, order=order)
