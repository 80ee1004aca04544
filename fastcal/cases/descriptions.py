"""The ``dataset.json`` of a prediction folder, by which nnU-Net's programs read the folder."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastcal.core import atomic
from fastcal.core.doors import read_json
from fastcal.data import description
from fastcal.data.description import Description

if TYPE_CHECKING:
    from fastcal.cases.labels import LabelScheme


def copy_description(dataset_json: Path, folder: Path, file_ending: str) -> None:
    """Copy a ``dataset.json``, if it exists, into a prediction folder, as nnU-Net does.

    Where the files of the folder end otherwise than it says, ``file_ending`` is rewritten, and the
    choice of a reader (``overwrite_image_reader_writer``) is left out: nnU-Net's evaluator finds
    files and reader by them. A file of version 1 becomes one of version 2.

    Args:
        dataset_json: The file to copy.
        folder: The prediction folder.
        file_ending: Ending of the label maps in it.
    """
    if not dataset_json.is_file():
        return
    content: dict[str, Any] = read_json(dataset_json, dict[str, Any])
    if "channel_names" not in content:
        count = content.get("numTraining", 0)
        content = description.to_json(description.read(dataset_json), num_training=count)
    elif content.get("file_ending") == file_ending:
        with atomic.atomic_path(folder / "dataset.json") as temporary:
            shutil.copyfile(dataset_json, temporary)
        return
    content.pop("overwrite_image_reader_writer", None)
    atomic.write_json(folder / "dataset.json", {**content, "file_ending": file_ending})


def write_description(scheme: LabelScheme, folder: Path, file_ending: str) -> None:
    """Write a ``dataset.json`` for predictions that came without one, for nnU-Net's programs.

    Args:
        scheme: What the channels mean; structures without a name get their label's.
        folder: The prediction folder.
        file_ending: Ending of the label maps in it.
    """
    structures = scheme.structures or tuple(f"label {key}" for key in scheme.foreground)
    values = scheme.regions_class_order or range(1, scheme.num_classes)
    described = Description(
        name="predictions",
        channel_names=("unknown",),
        labels={"background": 0, **dict(zip(structures, values, strict=True))},
        ignore_label=scheme.ignore_label,
        label_groups=scheme.label_groups,
        regions_class_order=scheme.regions_class_order,
        file_ending=file_ending,
    )
    atomic.write_json(folder / "dataset.json", description.to_json(described, num_training=0))
