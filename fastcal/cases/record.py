"""``prediction.json`` records how a prediction folder was made, so that settings do not mix."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastcal.core import atomic
from fastcal.core.doors import MissingFileError, read_json
from fastcal.core.errors import DataError

FILE = "prediction.json"


def settle(folder: Path, settings: Mapping[str, Any], *, overwrite: bool) -> None:
    """Write the settings of a prediction folder, or compare them with those already there.

    A run that resumes, and every part of a sharded run, must find its own settings.

    Args:
        folder: The prediction folder.
        settings: Values by name.
        overwrite: Replace settings that differ.

    Raises:
        DataError: The folder was made with other settings and ``overwrite`` is False; the message
            names the first one that differs.
    """
    path = folder / FILE
    # As JSON gives them back: tuples are lists there.
    wanted = json.loads(json.dumps(settings))
    if path.exists() and not overwrite:
        known = _read(folder)
        for name, value in wanted.items():
            if name in known and known[name] != value:
                raise DataError(
                    path,
                    f"this folder was made with {name} = {known[name]!r}, but now it is {value!r}; "
                    "choose another folder, or overwrite",
                )
        wanted = {**known, **wanted}
        if wanted == known:
            return
    atomic.write_json(path, wanted)


def _read(folder: Path) -> dict[str, Any]:
    """Return the settings that a prediction folder was made with; empty if it has none."""
    try:
        content: dict[str, Any] = read_json(folder / FILE, dict[str, Any])
    except MissingFileError:
        return {}
    return content
