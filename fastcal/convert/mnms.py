"""M&Ms: two frames of each patient's heart, from four vendors.

Layout: ``OpenDataset/{Training/Labeled,Training/Unlabeled,Validation,Testing}/ID/ID_sa.nii.gz`` and
``ID_sa_gt.nii.gz``, both of four axes, and a table whose ``ED`` and ``ES`` count frames from 0.
"""

from __future__ import annotations

from pathlib import Path

from fastcal.convert.acdc import LABELS
from fastcal.convert.found import FoundCase, FoundSet, Part, Search, Source, read_table, visible

_LABEL_MAP = {0: 0, 1: 3, 2: 2, 3: 1}
"""LV 1 and RV 3 in the files: the reverse of ACDC, whose values are written."""

_CODE = "External code"


def read(search: Search) -> FoundSet:
    """Find the frames of all patients.

    Args:
        search: Where to look.
    """
    table = _table(search)
    cases: list[FoundCase] = []
    for folder in search.folders():
        name = f"{folder.name}_sa"
        # A folder of a patient; others, such as those above, have no image of their name.
        image = search.file(folder, name, required=folder.name in table)
        if image is not None:
            cases += _patient(search, folder, image, table)
    return FoundSet("MnMs", ("cineMRI",), LABELS, _LABEL_MAP, cases, group="vendor")


def _patient(
    search: Search, folder: Path, image: Path, table: dict[str, dict[str, str]]
) -> list[FoundCase]:
    row = table.get(folder.name)
    if row is None:
        search.note(folder, f"has no row in the table (column {_CODE})")
        return []
    try:
        frames = {phase: _whole(row[phase]) for phase in ("ED", "ES")}
    except (KeyError, ValueError):
        search.note(folder, "must have numbers of frames in the columns ED and ES of the table")
        return []
    where = search.within(folder)
    part: Part = "val" if "validation" in where else "test" if "testing" in where else "train"
    needed = part == "train" and "unlabeled" not in where
    label = search.file(folder, f"{folder.name}_sa_gt", required=needed)
    known = {"vendor": "Vendor", "vendor_name": "VendorName", "centre": "Centre"}
    known |= {"pathology": "Pathology", "sex": "Sex", "age": "Age"}
    columns = {name: row[column] for name, column in known.items() if row.get(column)}
    return [
        FoundCase(
            f"{folder.name}_frame{frame:02d}",
            (Source(image, frame),),
            None if label is None else Source(label, frame),
            part,
            folder.name,
            {"phase": phase, **columns},
        )
        for phase, frame in frames.items()
    ]


def _whole(text: str) -> int:
    """Read the number of a frame, which some tables write as 12.0."""
    value = float(text)
    if not value.is_integer():
        raise ValueError(f"frame must be a whole number, got {text!r}")
    return int(value)


def _table(search: Search) -> dict[str, dict[str, str]]:
    """Rows of the table by the code of the patient; it lies in the dataset's folder or above."""
    places = [*search.folders(), search.root.resolve().parent]
    tables = (path for place in places for path in sorted(place.glob("*.csv")))
    for path in (path for path in tables if visible(path.name)):
        rows = read_table(path)
        if rows and _CODE in rows[0]:
            found: dict[str, dict[str, str]] = {}
            for row in rows:
                if row.get(_CODE) in found:
                    search.note(path, f"has the patient {row[_CODE]} twice (column {_CODE})")
                if _CODE in row:
                    found[row[_CODE]] = row
            return found
    search.note(search.root, f"has no table *.csv with the column {_CODE}")
    return {}
