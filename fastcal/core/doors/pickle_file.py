"""The gate of pickles that hold plain data, as nnU-Net's ``CASE.pkl`` does; none is executed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from fastcal.core.doors.bounds import MIB
from fastcal.core.doors.failures import one_error, shown
from fastcal.core.doors.opening import read_bytes
from fastcal.core.doors.pickle_machine import (
    Forbidden,
    Machine,
    Maker,
    Table,
    as_tree,
    hashable,
)
from fastcal.core.doors.schema import validated
from fastcal.core.errors import DataError

_PLAIN_NUMBER = re.compile(r"[?biuf]\d{0,2}")


def read_pickle(path: str | Path, model: Any = None, *, most_bytes: int = 64 * MIB) -> Any:
    """Read a pickle of plain data without executing any of it.

    Args:
        path: The file.
        model: What `validated` takes; None returns the plain values.
        most_bytes: Larger files are refused.

    Returns:
        Numbers, text, bytes, lists, tuples, sets, dicts, and NumPy arrays of plain numbers; an
        array of anything else is None. Nothing in it is shared.

    Raises:
        MissingFileError: There is no such file.
        DataError: It is damaged, asks for code (the name is given), or expands too far.

    Example:
        >>> read_pickle("fold_0/case_1.pkl")["sitk_stuff"]["spacing"]  # doctest: +SKIP
        (0.7, 0.7, 3.0)
    """
    content = read_bytes(path, most_bytes=most_bytes)
    with one_error(path, "a pickle of plain data"):
        try:
            value = as_tree(Machine(content, _TABLE).run(), _resolved)
        except Forbidden as error:
            raise DataError(path, str(error)) from None
    return value if model is None else validated(path, value, model)


class _Dtype:
    """Stands for ``numpy.dtype``."""

    def __init__(self, code: object, *_: object) -> None:
        self._code = code if isinstance(code, str) else ""
        self._order = "="

    def set_state(self, state: Any) -> None:
        self._order = state[1] if state[1] in ("<", ">") else "="

    @property
    def plain(self) -> np.dtype[Any] | None:
        """A real, integer or bool type; None for anything else (objects, text, records)."""
        if not _PLAIN_NUMBER.fullmatch(self._code):
            return None
        return np.dtype(self._code).newbyteorder(self._order)  # type: ignore[arg-type]


class _Array:
    """Stands for ``numpy.ndarray``: holds plain numbers, or nothing."""

    def __init__(self, *_: object) -> None:
        self.values: Any = None

    def set_state(self, state: Any) -> None:
        _, shape, dtype, fortran, raw = state
        self.fill(raw, dtype, shape, "F" if fortran else "C")

    def fill(self, raw: Any, dtype: Any, shape: Any, order: Any) -> None:
        plain = dtype.plain if isinstance(dtype, _Dtype) else None
        if isinstance(raw, str):  # bytes of Python 2
            raw = raw.encode("latin1")
        if plain is not None and isinstance(raw, bytes | bytearray):
            values = np.frombuffer(raw, plain).reshape(shape, order="F" if order == "F" else "C")
            self.values = values.astype(plain.newbyteorder("="))


def _from_buffer(raw: Any, dtype: Any, shape: Any, order: Any) -> _Array:
    array = _Array()
    array.fill(raw, dtype, shape, order)
    return array


def _scalar(dtype: Any, raw: Any = b"") -> Any:
    values = _from_buffer(raw, dtype, (), "C").values
    return None if values is None else values.item()


def _encoded(text: Any, encoding: str = "latin1") -> bytes:
    """Protocol 2 writes bytes as text that is to be encoded."""
    if encoding not in ("latin1", "latin-1") or not isinstance(text, str):
        raise Forbidden(f"asks for the codec {shown(encoding)}, which is not allowed")
    return text.encode("latin1")


def _dict(*items: Any) -> dict[Any, Any]:
    pairs = items[0] if items else ()
    return {hashable(key): value for key, value in pairs}


def _set(items: Any = ()) -> set[Any]:
    return {hashable(item) for item in items}


def _list(items: Any = ()) -> list[Any]:
    return list(_sequence(items))


def _tuple(items: Any = ()) -> tuple[Any, ...]:
    return tuple(_sequence(items))


def _sequence(items: Any) -> Any:
    if not isinstance(items, list | tuple):
        raise ValueError(f"must be a list or tuple, got {shown(items)}")
    return items


def _no_bytes() -> bytes:
    """Protocol 2 calls ``bytes()`` where they are empty."""
    return b""


def _path(*parts: Any) -> str:
    return "/".join(str(part) for part in parts if isinstance(part, str))


def _resolved(value: Any) -> Any:
    return value.values if isinstance(value, _Array) else None if _is_mark(value) else value


def _is_mark(value: Any) -> bool:
    return not isinstance(
        value, str | bytes | bytearray | bool | int | float | set | frozenset | None
    )


_NUMPY: dict[tuple[str, str], Maker] = {
    (f"numpy{core}.{module}", name): maker
    for core in (".core", "._core")
    for module, name, maker in (
        ("multiarray", "_reconstruct", _Array),
        ("multiarray", "scalar", _scalar),
        ("numeric", "_frombuffer", _from_buffer),
    )
}
_MAKERS: dict[tuple[str, str], Maker] = {
    **_NUMPY,
    ("numpy", "dtype"): _Dtype,
    ("numpy", "ndarray"): _Array,
    ("_codecs", "encode"): _encoded,
    ("collections", "OrderedDict"): _dict,
    **{
        (module, kind): maker
        for module in ("builtins", "__builtin__")
        for kind, maker in (
            ("dict", _dict),
            ("list", _list),
            ("tuple", _tuple),
            ("set", _set),
            ("frozenset", _set),
            ("bytes", _no_bytes),
        )
    },
    **{("pathlib", name): _path for name in ("PosixPath", "WindowsPath", "PurePosixPath")},
}
_TABLE = Table(
    makers=_MAKERS,
    constants={},
    persistent=None,
    attributes={
        _Dtype: lambda dtype, state: dtype.set_state(state),
        _Array: lambda array, state: array.set_state(state),
    },
)
