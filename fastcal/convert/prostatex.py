"""PROSTATEx: transversal T2-weighted prostates, with whole-gland labels of other groups.

Images: ``ProstateX-0004/.../t2_tse_tra.nrrd`` or NIfTI. Labels: PROSTATEx-Seg-HiRes of Meyer et
al., of 0.5 mm on a grid of their own; ``Seg-0000.nrrd`` of ProstateZones; PROSTATEx_masks in NIfTI.
The archive's own DICOM files must have been converted before.
"""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path

from fastcal.convert.found import FoundCase, FoundSet, Search, Source
from fastcal.convert.promise12 import LABELS

_PATIENT = re.compile(r"prostatex-?(\d{4})|\bseg-?(\d{4})")
_LABEL = re.compile(r"seg|mask|label")
_OTHER_LABEL = re.compile(r"lesion|[_-](pz|tz|adc)\b|finding")


def read(search: Search) -> FoundSet:
    """Find the patients that have an image.

    Every value above 0 becomes the prostate, for some labels tell its zones apart.

    Args:
        search: Where to look.
    """
    images: dict[str, list[Path]] = defaultdict(list)
    labels: dict[str, list[Path]] = defaultdict(list)
    dicom = False
    for folder in search.folders():
        dicom = dicom or any(folder.glob("*.dcm"))
        for path, stem in search.volumes(folder):
            words = f"{search.within(folder)}/{stem}".lower()
            matches = _PATIENT.findall(words)
            if not matches:
                continue
            patient = "".join(matches[-1])
            below = words.partition("/")[2]  # the name of the root says nothing of a file
            if not _LABEL.search(below):
                images[patient].append(path)
            elif not _OTHER_LABEL.search(below):
                labels[patient].append(path)
    if not images and dicom:
        search.note(
            search.root, "holds DICOM files, which must be converted to NIfTI or NRRD first"
        )
    cases = []
    for patient in sorted(images.keys() | labels.keys()):
        name = f"ProstateX-{patient}"
        image = _one(search, name, "transversal T2 image", _transversal(images[patient]))
        label = _one(search, name, "label map", labels[patient])
        if image is None:
            if not images[patient]:
                search.note(labels[patient][0], f"is a label map of {name}, which has no image")
            continue
        source = None if label is None else Source(label)
        cases.append(FoundCase(name, (Source(image),), source, "train", name))
    return FoundSet("PROSTATEx", ("T2",), LABELS, None, cases)


def _transversal(found: list[Path]) -> list[Path]:
    """The transversal ones of a patient's images, by their names; all if there is one alone."""
    if len(found) == 1:
        return found
    return [path for path in found if re.search(r"t2.*tra|tra.*t2", str(path).lower())]


def _one(search: Search, name: str, what: str, found: list[Path]) -> Path | None:
    if len(found) > 1:
        listed = " and ".join(str(path.relative_to(search.root)) for path in found)
        search.note(search.root, f"must have one {what} of {name}, got {listed}")
    return found[0] if found else None
