"""The Medical Segmentation Decathlon: a file of all channels per case, and a list of them.

Layout: ``Task05_Prostate/{imagesTr,labelsTr,imagesTs}/prostate_16.nii.gz`` and ``dataset.json``.
"""

from __future__ import annotations

from pathlib import Path

from fastcal.convert.found import FoundCase, FoundSet, Search, Source
from fastcal.core.doors import read_json
from fastcal.data import description


def read(search: Search) -> FoundSet:
    """Find the cases of a task.

    Args:
        search: Where to look.

    Raises:
        DataError: The task has no usable ``dataset.json``.
    """
    root = search.root
    described = description.read(root / "dataset.json")
    count = len(described.channel_names)
    cases = []
    for folder, tested in (("imagesTr", False), ("imagesTs", True)):
        if not (root / folder).is_dir():
            if not tested:
                search.note(root / folder, "no such folder")
            continue
        for path, name in search.volumes(root / folder):
            label = search.file(root / "labelsTr", name) if not tested else None
            frames = [None] if count == 1 else list(range(count))
            cases.append(
                FoundCase(
                    name,
                    tuple(Source(path, frame) for frame in frames),
                    None if label is None else Source(label),
                    "test" if tested else "train",
                    name,
                )
            )
    _check_listed(search, {case.images[0].path.name for case in cases})
    same = {value: value for value in described.labels.values()}
    return FoundSet(described.name, described.channel_names, described.labels, same, cases)


def _check_listed(search: Search, found: set[str]) -> None:
    """Note images that ``dataset.json`` lists and that are missing."""
    content = read_json(search.root / "dataset.json")
    entries = [*_list(content.get("training")), *_list(content.get("test"))]
    for entry in entries:
        image = entry.get("image") if isinstance(entry, dict) else entry
        if isinstance(image, str) and Path(image).name not in found:
            search.note(search.root / image, "no such file, but dataset.json lists it")


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else []
