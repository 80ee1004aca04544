"""The file of settings that makes a folder one experiment's own."""

from __future__ import annotations

import hashlib
import reprlib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastcal.core import atomic
from fastcal.core.doors import MissingFileError, read_json
from fastcal.core.errors import DataError
from fastcal.models.run import DATASET

if TYPE_CHECKING:
    from fastcal.data.dataset import Dataset


def identity(dataset: Dataset) -> str:
    """Return a name of a dataset's content, wherever its folder lies and a study's folder does.

    It holds the hash of ``dataset.json`` and of the names and sizes of the files of every case.
    """
    found = hashlib.sha256((dataset.folder / DATASET).read_bytes())
    for case in dataset.cases:
        files = [*case.images, *([] if case.label is None else [case.label])]
        for path in files:
            size = path.stat().st_size if path.exists() else -1  # told when the case is read
            found.update(f"{case.name}/{path.name}:{size}\n".encode(errors="surrogateescape"))
    return f"{dataset.name} ({found.hexdigest()[:16]})"


_SHORT = reprlib.Repr()
_SHORT.maxstring = 120  # long enough for a path


def claim(
    file: Path, settings: Mapping[str, Any], *, free: Collection[str] = ()
) -> dict[str, Any] | None:
    """Make a folder this experiment's own, so that files of another one never mix with it.

    Args:
        file: Where the settings are kept. It is written where it is missing.
        settings: Everything that results depend on, as JSON gives it back.
        free: Names of settings that may differ from those that are there.

    Returns:
        The settings that are there, or None where there were none.

    Raises:
        DataError: The folder holds an experiment with other settings; the first one is named.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        present: dict[str, Any] = read_json(file, dict[str, Any])
    except MissingFileError:
        atomic.write_json(file, settings)
        return None
    for name, value in settings.items():
        if name not in free and present.get(name) != value:
            held, asked = _SHORT.repr(present.get(name)), _SHORT.repr(value)
            raise DataError(
                file,
                f"holds an experiment whose {name} must be {asked}, got {held}; choose another "
                "folder",
            )
    return present
