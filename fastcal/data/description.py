"""nnU-Net's ``dataset.json``, versions 1 and 2, as one typed description."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from os.path import expandvars
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, Field

from fastcal.core.doors import read_json, validated
from fastcal.core.errors import DataError

LabelGroup = tuple[int, ...]
"""Label values that one channel stands for; nnU-Net calls such a group a region."""


class _Entry(BaseModel):
    """What the key ``dataset`` holds for a case."""

    images: Annotated[list[str], Field(min_length=1)]
    label: str


@dataclass(frozen=True)
class ListedCase:
    """A case whose files ``dataset.json`` lists itself, under nnU-Net's key ``dataset``."""

    images: tuple[Path, ...]
    """One file per channel, or one of all channels."""
    label: Path


@dataclass(frozen=True)
class Description:
    """What ``dataset.json`` says about channels and labels."""

    name: str
    channel_names: tuple[str, ...]
    labels: dict[str, int]
    """Values of the labels by name, background 0 first, without the ignore label.

    With label groups, the value that the channel of each group writes (``regions_class_order``)."""
    ignore_label: int | None
    """Voxels of this value were left unannotated; they count in no loss and no metric."""
    label_groups: tuple[LabelGroup, ...] | None
    """The label values that each channel of a multilabel (sigmoid) model stands for, or None."""
    regions_class_order: tuple[int, ...] | None
    """Value that each label group writes into a label map, in nnU-Net's order; or None."""
    file_ending: str
    listed_cases: tuple[str, ...] | None = None
    """Training cases that a file of version 1 lists (``training``); None where the files in the
    folder decide, as in version 2, which does not read that list."""
    dataset: dict[str, ListedCase] | None = None
    """The files of each training case, which may lie anywhere; or None where the folder decides."""

    @property
    def num_classes(self) -> int:
        """Channels of a probability map: one per label, or one per label group (no background)."""
        return len(self.labels) if self.label_groups is None else len(self.label_groups)

    @property
    def label_values(self) -> tuple[int, ...]:
        """Every value a label map may hold, the ignore label included, in ascending order."""
        values = set(self.labels.values())
        for group in self.label_groups or ():
            values.update(group)
        if self.ignore_label is not None:
            values.add(self.ignore_label)
        return tuple(sorted(values))


def find(*folders: Path) -> Path | None:
    """Return the first ``dataset.json`` in one of the folders, or up to two levels above it.

    Two, because nnU-Net keeps it beside predictions, or above ``fold_0/validation``.
    """
    for folder in folders:
        for place in (folder, *folder.resolve().parents[:2]):
            path = place / "dataset.json"
            # What is no regular file is refused by name when it is read.
            if path.exists() or path.is_symlink():
                return path
    return None


def read(path: Path) -> Description:
    """Read a ``dataset.json`` of nnU-Net v2, nnU-Net v1 or the Medical Segmentation Decathlon.

    Format: nnU-Net's ``documentation/dataset_format.md`` and ``region_based_training.md``.

    Raises:
        DataError: The file is missing, is not JSON, or its labels or channels are inconsistent.
    """
    content = read_json(path)
    if not isinstance(content, dict):
        raise DataError(path, f"must hold a JSON object, got {type(content).__name__}")
    try:
        return _parse(content, path)
    except DataError:
        raise
    except Exception as error:  # whatever content of another kind leads to
        raise DataError(path, str(error) or type(error).__name__) from error


def to_json(description: Description, *, num_training: int) -> dict[str, Any]:
    """Return the version 2 ``dataset.json`` of a description, as a JSON object.

    Args:
        description: The description.
        num_training: Number of training cases.
    """
    labels: dict[str, Any] = dict(description.labels)
    if description.label_groups is not None:
        foreground = (name for name in description.labels if name != "background")
        labels = {"background": 0}
        labels.update(
            (name, list(group))
            for name, group in zip(foreground, description.label_groups, strict=True)
        )
    if description.ignore_label is not None:
        labels["ignore"] = description.ignore_label
    content: dict[str, Any] = {
        "name": description.name,
        "channel_names": {str(i): name for i, name in enumerate(description.channel_names)},
        "labels": labels,
        "numTraining": num_training,
        "file_ending": description.file_ending,
    }
    if description.regions_class_order is not None:
        content["regions_class_order"] = list(description.regions_class_order)
    return content


def _parse(content: Mapping[str, Any], path: Path) -> Description:
    channels = content.get("channel_names", content.get("modality"))
    if not isinstance(channels, Mapping) or not channels:
        raise ValueError("must have 'channel_names' (version 2) or 'modality' (version 1)")
    order = sorted(channels, key=int)
    if [int(index) for index in order] != list(range(len(order))):
        raise ValueError(f"channels must be numbered 0 to {len(order) - 1}, got {order}")

    labels, ignore = _labels(content.get("labels"))
    label_groups: tuple[LabelGroup, ...] | None = None
    class_order: tuple[int, ...] | None = None
    if any(len(values) > 1 for values in labels.values()):
        foreground = {name: values for name, values in labels.items() if set(values) != {0}}
        class_order = tuple(
            _label(value, "regions_class_order")
            for value in content.get("regions_class_order") or ()
        )
        if len(class_order) != len(foreground):
            raise ValueError(
                "'regions_class_order' must hold one value per label group: "
                f"{len(foreground)}, got {len(class_order)}"
            )
        label_groups = tuple(foreground.values())
        names = {"background": 0, **dict(zip(foreground, class_order, strict=True))}
    else:
        names = {name: values[0] for name, values in labels.items()}
        names = dict(sorted(names.items(), key=lambda item: item[1]))
        if list(names.values()) != list(range(len(names))):
            raise ValueError(
                f"label values must be 0 to {len(names) - 1}, got {list(names.values())}"
            )

    return Description(
        name=str(content.get("name") or path.parent.name),
        channel_names=tuple(str(channels[index]) for index in order),
        labels=names,
        ignore_label=ignore,
        label_groups=label_groups,
        regions_class_order=class_order,
        file_ending=_file_ending(content),
        listed_cases=_listed_cases(content),
        dataset=_dataset(content, path),
    )


def _labels(raw: object) -> tuple[dict[str, LabelGroup], int | None]:
    """Return values by name, and the ignore label; version 1 maps values to names instead."""
    if not isinstance(raw, Mapping) or not raw:
        raise ValueError("must have 'labels'")
    if all(isinstance(name, str) for name in raw.values()):
        raw = {name: value for value, name in raw.items()}
    labels = {
        str(name): tuple(_label(v, name) for v in value)
        if isinstance(value, list | tuple)
        else (_label(value, name),)
        for name, value in raw.items()
    }
    ignored = labels.pop("ignore", None)
    if ignored is not None and len(ignored) != 1:
        raise ValueError(f"the ignore label must be a single value, got {list(ignored)}")
    if (0,) not in labels.values():
        raise ValueError("labels must include a background of value 0, got none")
    if not all(labels.values()):
        raise ValueError(f"labels must have at least one value each, got {list(labels.values())}")
    if ignored is not None and any(ignored[0] in values for values in labels.values()):
        raise ValueError(
            f"the ignore label must be no label of a class, got {ignored[0]} beside "
            f"{list(labels.values())}"
        )
    return labels, None if ignored is None else ignored[0]


_MOST_LABELS = 65_535
"""What 16 bits of a label map hold."""


def _label(value: object, name: object) -> int:
    """A whole number, as which nnU-Net also takes 1.0 and "1"."""
    plain = not isinstance(value, bool)
    if plain and isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 6:
        value = int(value)
    if plain and isinstance(value, int | float) and 0 <= value <= _MOST_LABELS:
        number = int(value)
        if number == value:
            return number
    raise ValueError(
        f"the label of {name!r} must be a whole number from 0 to {_MOST_LABELS}, got {value!r}"
    )


def _file_ending(content: Mapping[str, Any]) -> str:
    ending = content.get("file_ending", ".nii.gz")
    if not isinstance(ending, str) or not re.fullmatch(r"(\.\w+)+", ending):
        raise ValueError(f"'file_ending' must be like .nii.gz, got {ending!r}")
    return ending


def _listed_cases(content: Mapping[str, Any]) -> tuple[str, ...] | None:
    """Return the cases of a version 1 ``training`` list of ``{"image": path, "label": path}``.

    nnU-Net's version 2 does not read this list, which may be stale: a file with
    ``channel_names`` is of version 2.
    """
    training = content.get("training")
    if "channel_names" in content or not isinstance(training, list) or not training:
        return None
    ending = _file_ending(content)
    names = []
    for entry in training:
        path = entry.get("label") if isinstance(entry, Mapping) else entry
        if not isinstance(path, str):
            raise ValueError("'training' must list the image and the label of each case")
        names.append(Path(path).name.removesuffix(ending))
    return tuple(sorted(names))


def _dataset(content: Mapping[str, Any], path: Path) -> dict[str, ListedCase] | None:
    """Return the files under nnU-Net's key ``dataset``.

    As in ``nnunetv2/utilities/utils.py``, paths are relative to the folder of the file, and
    environment variables in them are expanded.
    """
    if "dataset" not in content:
        return None
    entries = validated(path, content["dataset"], dict[str, _Entry], where="dataset")
    if not entries:
        raise ValueError("'dataset' must list at least one case, got none")

    def place(name: str) -> Path:
        return path.parent / expandvars(name)

    return {
        name: ListedCase(tuple(map(place, entry.images)), place(entry.label))
        for name, entry in sorted(entries.items())
    }
