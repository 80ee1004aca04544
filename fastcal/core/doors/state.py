"""The gate of fastcal's own state files: a described header and integers, in an npz."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fastcal.core.doors.bounds import MIB
from fastcal.core.doors.failures import clean
from fastcal.core.doors.json_text import parse_json
from fastcal.core.doors.npz import open_npz
from fastcal.core.doors.schema import validated
from fastcal.core.errors import DataError

Integers = npt.NDArray[np.int64]

_NAMES = frozenset({"header", "total", "case_rows", "case_ids"})


@dataclass(frozen=True, eq=False)
class StateFile:
    """What a state file holds. Whether its counts agree with each other is not looked at here."""

    settings: dict[str, Any]
    total: Integers
    """The integers of the whole, of any shape."""
    case_rows: Integers
    """``[n_cases, *total.shape]``: those of each case."""
    case_ids: list[str]
    """``n_cases`` names, each once."""


def read_state(
    path: str | Path, *, format: str, version: int, most_bytes: int | None = None
) -> StateFile:
    """Read a state file.

    Args:
        path: The ``.npz`` file.
        format: What its header must call it.
        version: The version that its header must have.
        most_bytes: The most that the caller expects of each array.

    Raises:
        MissingFileError: There is no such file.
        DataError: It is damaged, of another program or version, or its parts do not belong
            together.
    """
    from fastcal.core.doors.state_schema import Header

    with open_npz(path) as arrays:
        if not arrays.names >= _NAMES:
            missing = ", ".join(sorted(_NAMES - arrays.names))
            raise DataError(path, f"not a file of {format}: {missing} is missing")
        try:
            content = parse_json(arrays.text("header", most_bytes=16 * MIB))
        except (ValueError, RecursionError) as error:
            raise DataError(path, f"its header is not JSON ({clean(str(error))})") from error
        header = validated(path, content, Header, where="its header")
        if header.format != format:
            raise DataError(path, f"not a file of {format}")
        if header.version != version:
            raise DataError(path, f"the version must be {version}, got {header.version}")
        total = arrays.array("total", kinds="i", most_bytes=most_bytes)
        rows = arrays.array("case_rows", kinds="i", most_bytes=most_bytes)
        ids = arrays.array("case_ids", kinds="U", most_bytes=most_bytes)
        for name, array in (("total", total), ("case_rows", rows)):
            if array.dtype != np.int64:
                raise DataError(path, f"{name} must be int64, got {array.dtype}")
        if ids.ndim != 1 or rows.shape != (len(ids), *total.shape):
            raise DataError(
                path,
                f"case_rows must have the shape {(*ids.shape, *total.shape)}, got {rows.shape}",
            )
        names: list[str] = ids.tolist()
        if len(set(names)) < len(names):
            raise DataError(path, "a case stands twice in it")
    return StateFile(header.settings, total, rows, names)
