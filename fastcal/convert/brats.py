"""BraTS 2017 to 2023: four MRI channels per case, labels of glioma.

Layouts: one folder per case, ``{HGG,LGG}/Brats17_CBICA_AAB_1/Brats17_CBICA_AAB_1_t1.nii.gz`` up to
2019, ``BraTS20_Training_001``, ``BraTS2021_00000`` (2021 and 2022), and in 2023
``BraTS-GLI-00000-000/BraTS-GLI-00000-000-t1n.nii.gz``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fastcal.convert.found import FoundCase, FoundSet, Search, Source, read_table

CHANNELS = ("T1", "T1CE", "T2", "FLAIR")
LABELS = {"background": 0, "edema": 1, "non-enhancing": 2, "enhancing": 3}
"""As nnU-Net numbers them (``nnunetv2/dataset_conversion/Dataset043_BraTS19.py``)."""


@dataclass(frozen=True, slots=True)
class _Year:
    """How the folders of a year are named."""

    folder: str
    """Pattern of a case's folder."""
    words: tuple[str, str, str, str] = ("t1", "t1ce", "t2", "flair")
    """Ends of file names by channel."""
    mark: str = "_"
    """What stands before them."""
    enhancing: int = 4
    """Value of the enhancing tumour in the files; no year has the values between."""


_YEARS = {
    2017: _Year(r"brats17_.+"),
    2018: _Year(r"brats18_.+"),
    2019: _Year(r"brats19_.+"),
    2020: _Year(r"brats20_(training|validation)_\d{3}"),
    2021: _Year(r"brats2021_\d{5}"),
    2022: _Year(r"brats2021_\d{5}"),
    2023: _Year(r"brats-gli-\d{5}-\d{3}", ("t1n", "t1c", "t2w", "t2f"), "-", enhancing=3),
}
YEARS = tuple(_YEARS)


def read(search: Search, year: int) -> FoundSet:
    """Find the cases of a year.

    Args:
        search: Where to look.
        year: One of `YEARS`.
    """
    named = _YEARS[year]
    mapping = _name_mapping(search, year)
    cases = [
        _case(search, folder, named, mapping.get(folder.name, {}))
        for folder in search.folders()
        if re.fullmatch(named.folder, folder.name, re.IGNORECASE)
    ]
    found = [case for case in cases if case is not None]
    label_map = {0: 0, 2: 1, 1: 2, named.enhancing: 3}
    return FoundSet(f"BraTS{year}", CHANNELS, LABELS, label_map, found, group="institution")


def _case(search: Search, folder: Path, year: _Year, mapped: Mapping[str, str]) -> FoundCase | None:
    name = folder.name
    images = [search.file(folder, f"{name}{year.mark}{word}") for word in year.words]
    where = search.within(folder)
    tested = "validation" in where or "testing" in where
    label = search.file(folder, f"{name}{year.mark}seg", required=False) or _misnamed(
        search, folder
    )
    if label is None and not tested:
        search.note(folder / f"{name}{year.mark}seg.nii.gz", "no such file")
    present = tuple(Source(path) for path in images if path is not None)
    if len(present) < len(images):
        return None
    return FoundCase(
        name,
        present,
        None if label is None else Source(label),
        "test" if tested else "train",
        _patient(name),
        _columns(name, folder, mapped),
    )


def _misnamed(search: Search, folder: Path) -> Path | None:
    """The labels of case 355 of 2020 are called ``W39_1998.09.19_Segm.nii`` in most copies."""
    found = [path for path, stem in search.volumes(folder) if stem.lower().endswith("_segm")]
    return found[0] if len(found) == 1 else None


def _patient(name: str) -> str:
    """The patient of a case, whose name may end in the number of a scan."""
    scan = re.fullmatch(r"(brats1[789]_.+)_\d+|(brats-gli-\d{5})-\d{3}", name, re.IGNORECASE)
    return next(filter(None, scan.groups())) if scan else name


def _columns(name: str, folder: Path, mapped: Mapping[str, str]) -> dict[str, str]:
    columns = {}
    grade = next((part for part in folder.parts if part in ("HGG", "LGG")), mapped.get("Grade"))
    if grade:
        columns["grade"] = grade
    # Up to 2019 the second word is the centre; the table of 2020 has the name of 2019.
    old = name if re.match(r"brats1[789]_", name, re.IGNORECASE) else mapped.get("old", "")
    words = old.split("_")
    if len(words) > 2:
        letters = re.match(r"[A-Za-z]+", words[1])
        columns |= {"centre": words[1], "institution": letters[0] if letters else words[1]}
    return columns


def _name_mapping(search: Search, year: int) -> dict[str, dict[str, str]]:
    """Read ``name_mapping.csv``, which 2019 and 2020 have: rows by the name of this year's case."""
    rows: dict[str, dict[str, str]] = {}
    tables = (path for folder in search.folders() for path in folder.glob("name_mapping*.csv"))
    for path in sorted(tables):
        for row in read_table(path):
            if name := row.get(f"BraTS_{year}_subject_ID"):
                rows[name] = {**row, "old": row.get("BraTS_2019_subject_ID", "")}
    return rows
