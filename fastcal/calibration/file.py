"""Files of calibration statistics: plain data, no pickle."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fastcal.core.atomic import atomic_path, write_json
from fastcal.core.doors import read_json, read_state
from fastcal.core.errors import DataError

_FORMAT = "fastcal calibration statistics"
_VERSION = 1
_LARGEST_TEXT = 1024**3
"""Bytes of a JSON file: fine cells of many cases take hundreds of MB."""


def write(path: Path, settings: Mapping[str, Any], state: Mapping[str, Any]) -> None:
    """Write settings and integers to ``.json`` or ``.npz``, whole or not at all.

    Args:
        path: The file.
        settings: Arguments of `CalibrationStatistics`.
        state: ``total``, ``case_rows`` (int64 arrays) and ``case_ids``.

    Raises:
        ValueError: The suffix is neither.
    """
    header = {"format": _FORMAT, "version": _VERSION, "settings": dict(settings)}
    suffix = _suffix(path)
    case_ids = list(state["case_ids"])
    if suffix == ".json":
        cases = dict(zip(case_ids, state["case_rows"].tolist(), strict=True))
        write_json(path, {**header, "total": state["total"].tolist(), "cases": cases})
        return
    with atomic_path(path) as temporary:
        np.savez_compressed(  # compressed, since most fine cells are empty
            temporary,
            header=np.array(json.dumps(header)),
            total=state["total"],
            case_rows=state["case_rows"],
            case_ids=np.array(case_ids, dtype=np.str_),
        )


def read(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return settings and integers of a file that `write` wrote.

    Raises:
        ValueError: The suffix is neither ``.json`` nor ``.npz``.
        DataError: The file is missing or damaged, or is something else.
    """
    reader = _read_json if _suffix(path) == ".json" else _read_npz
    try:
        header, state = reader(path)
        if header.get("format") != _FORMAT:
            raise DataError(path, f"is not a file of {_FORMAT}")
        if header.get("version") != _VERSION:
            raise DataError(path, f"version must be {_VERSION}, got {header.get('version')!r}")
        return dict(header["settings"]), state
    except DataError:
        raise
    except Exception as error:  # whatever content of another kind leads to
        raise DataError(path, f"cannot be read as {_FORMAT} ({error})") from error


def _suffix(path: Path) -> str:
    if path.suffix not in (".json", ".npz"):
        raise ValueError(f"path must end in .json or .npz, got {path}")
    return path.suffix


def _read_json(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    content = read_json(path, dict[str, Any], most_bytes=_LARGEST_TEXT)
    if content.get("format") != _FORMAT:
        return content, {}
    total = np.array(content["total"], dtype=np.int64)
    rows = np.array(list(content["cases"].values()), dtype=np.int64).reshape(-1, *total.shape)
    return content, {"total": total, "case_rows": rows, "case_ids": list(content["cases"])}


def _read_npz(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    found = read_state(path, format=_FORMAT, version=_VERSION)
    header = {"format": _FORMAT, "version": _VERSION, "settings": found.settings}
    rows = {"total": found.total, "case_rows": found.case_rows}
    return header, {**rows, "case_ids": found.case_ids}
