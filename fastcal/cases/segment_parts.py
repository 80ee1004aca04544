"""The scores of the parts of a sharded run, put together."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from fastcal.cases.parts import check_tables
from fastcal.cases.segments import SEGMENTS, add_tables
from fastcal.core.errors import DataError
from fastcal.core.lock import sole_use

_PART = re.compile(rf"{SEGMENTS}\.part-(\d+)-of-(\d+)\.json")


def merge_segments(parts: str | Path | Sequence[str | Path], out: str | Path) -> Path | None:
    """Put the scores of the parts of a sharded run together.

    Args:
        parts: Prediction folders of the parts, often one folder for all. Paths of files are passed
            over, since `fastcal.predict.merge_statistics` takes state files too.
        out: Prediction folder that receives ``segments.json`` and ``segments.csv``.

    Returns:
        The JSON file, or None where no part has scores.

    Raises:
        DataError: A part is missing or given twice, a case is in two parts, the structures differ,
            parts were made from different things, the inputs of a case have changed since, a part
            is older than its cases, a file cannot be read, or ``out`` holds something else or is in
            use. The message names it.
        OSError: The error of the disk.

    Example:
        >>> merge_segments("predictions", "predictions")  # doctest: +SKIP
    """
    files = parts_in([parts] if isinstance(parts, str | Path) else parts)
    if not files:
        return None
    seen: dict[tuple[int, int], Path] = {}
    for file in files:
        match = _PART.fullmatch(file.name)
        assert match is not None
        key = int(match[2]), int(match[1])
        if key in seen:
            raise DataError(file, f"this is the same part as {seen[key]}")
        seen[key] = file
    for num_parts, part_id in list(seen):
        for other in range(num_parts):
            if (num_parts, other) not in seen:
                raise DataError(seen[num_parts, part_id], f"part {other} of {num_parts} is missing")
    folder = Path(out)
    check_tables(files, folder)
    with sole_use(folder, "command"):
        written, _ = add_tables(files).write(folder / SEGMENTS)
    return written


def parts_in(places: Iterable[str | Path]) -> list[Path]:
    """Return the files of parts in these folders, sorted within each."""
    return [
        file
        for place in places
        if Path(place).is_dir()
        for file in sorted(Path(place).glob("*.json"))
        if _PART.fullmatch(file.name)
    ]
