"""PROMISE12: T2-weighted prostates of four centres, some with an endorectal coil.

Layout: ``training_data/Case00.mhd`` with ``Case00.raw`` and ``Case00_segmentation.mhd``;
``test_data`` and ``livechallenge_test_data`` number their cases from 0 again.
"""

from __future__ import annotations

import re
from pathlib import Path

from fastcal.convert.found import FoundCase, FoundSet, Part, Search, Source
from fastcal.core.doors import itk_header
from fastcal.core.errors import DataError
from fastcal.data import images

LABELS = {"background": 0, "prostate": 1}


def read(search: Search) -> FoundSet:
    """Find the cases of all parts.

    Args:
        search: Where to look.
    """
    cases = []
    for folder in search.folders():
        where = search.within(folder)
        prefix = "live_" if "live" in where else "test_" if "test" in where else ""
        for path, stem in search.volumes(folder):
            if not re.fullmatch(r"Case\d+", stem):
                continue
            label = search.file(
                folder, f"{stem}_segmentation", endings=images.LOCATED, required=False
            )
            if label is None and not prefix:
                search.note(folder / f"{stem}_segmentation.mhd", "no such file")
            for file in filter(None, (path, label)):
                _check_raw(search, file)
            name = f"{prefix}{stem}"
            source = None if label is None else Source(label)
            part: Part = "test" if prefix else "train"
            cases.append(FoundCase(name, (Source(path),), source, part, name))
    return FoundSet("PROMISE12", ("T2",), LABELS, {0: 0, 1: 1}, cases)


def _check_raw(search: Search, path: Path) -> None:
    """Note a header whose voxels are missing, which the name alone does not show."""
    if path.suffix == ".mhd":
        try:
            itk_header(path)
        except DataError as error:
            search.problems.append(error)
