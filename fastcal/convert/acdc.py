"""ACDC: the end-diastolic and the end-systolic frame of each patient's heart.

Layout: ``database/{training,testing}/patient001/`` with ``Info.cfg``, ``patient001_4d.nii.gz``,
``patient001_frame01.nii.gz`` and ``patient001_frame01_gt.nii.gz``; frames count from 1.
"""

from __future__ import annotations

import re
from pathlib import Path

from fastcal.convert.found import FoundCase, FoundSet, Search, Source
from fastcal.core.doors import read_text
from fastcal.core.errors import DataError

LABELS = {"background": 0, "RV": 1, "myocardium": 2, "LV": 3}


def read(search: Search) -> FoundSet:
    """Find the frames of all patients.

    Args:
        search: Where to look.
    """
    cases: list[FoundCase] = []
    for folder in search.folders():
        if re.fullmatch(r"patient\d{3}", folder.name):
            cases += _patient(search, folder)
    same = {value: value for value in LABELS.values()}
    return FoundSet("ACDC", ("cineMRI",), LABELS, same, cases, balanced="group")


def _patient(search: Search, folder: Path) -> list[FoundCase]:
    try:
        info = _info(folder / "Info.cfg")
        frames = {phase: int(info[phase]) for phase in ("ED", "ES")}
    except DataError as error:
        search.problems.append(error)
        return []
    except (KeyError, ValueError):
        search.note(folder / "Info.cfg", "must have the lines ED and ES with numbers of frames")
        return []
    tested = "testing" in search.within(folder)
    cases = []
    for phase, number in frames.items():
        name = f"{folder.name}_frame{number:02d}"
        image = _frame(search, folder, name, number)
        label = search.file(folder, f"{name}_gt", required=not tested)
        if image is not None:
            columns = {"phase": phase} | {
                key.lower(): info[key] for key in ("Group", "Height", "Weight") if key in info
            }
            cases.append(
                FoundCase(
                    name,
                    (image,),
                    None if label is None else Source(label),
                    "test" if tested else "train",
                    folder.name,
                    columns,
                )
            )
    return cases


def _frame(search: Search, folder: Path, name: str, number: int) -> Source | None:
    """The file of a frame, or its place in the file of all frames."""
    alone = search.file(folder, name, required=False)
    if alone is not None:
        return Source(alone)
    whole = search.file(folder, f"{folder.name}_4d", required=False)
    if whole is None:
        search.note(folder / f"{name}.nii.gz", f"no such file, nor {folder.name}_4d.nii.gz")
        return None
    return Source(whole, number - 1)


def _info(path: Path) -> dict[str, str]:
    lines = (line.partition(":") for line in read_text(path).splitlines())
    return {key.strip(): value.strip() for key, _, value in lines}
