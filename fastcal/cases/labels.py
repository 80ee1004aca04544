"""What the numbers of a label map mean: classes or label groups, and what is ignored."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fastcal.core.doors import bounded
from fastcal.core.errors import DataError
from fastcal.data import description

if TYPE_CHECKING:
    from fastcal.data.description import Description

MOST_CLASSES = 32_767
"""What the signed 16-bit integers of targets hold."""


@dataclass(frozen=True, slots=True)
class LabelScheme:
    """Reading of label maps and probability channels, as nnU-Net's ``dataset.json`` declares it.

    Example:
        >>> scheme = LabelScheme.of_classes(3)
        >>> scheme.num_classes, scheme.foreground
        (3, {'1': (1,), '2': (2,)})
    """

    num_classes: int
    """Number of channels: labels with the background, or label groups without it."""
    ignore_label: int | None = None
    label_groups: tuple[tuple[int, ...], ...] | None = None
    """Labels of each group (nnU-Net's region), by channel; None for exclusive classes."""
    regions_class_order: tuple[int, ...] | None = None
    """Label written where a group's probability exceeds 0.5; later groups overwrite earlier."""
    structures: tuple[str, ...] = ()
    """Name of each scored structure; empty where no ``dataset.json`` gives them."""

    @classmethod
    def of_classes(cls, num_classes: int, *, ignore_label: int | None = None) -> LabelScheme:
        """Return the scheme of exclusive classes ``0 .. num_classes - 1``.

        A single class is binary: its channel is the probability of label 1.

        Raises:
            TypeError: ``num_classes`` is no integer.
            ValueError: ``num_classes`` is below 1, or more than 16-bit targets hold.
        """
        num_classes = bounded(num_classes, "num_classes", MOST_CLASSES)
        if num_classes == 1:
            return cls(1, ignore_label, label_groups=((1,),), regions_class_order=(1,))
        return cls(num_classes, ignore_label)

    @classmethod
    def read(cls, dataset_json: Path) -> LabelScheme:
        """Read a ``dataset.json``; see `fastcal.data.description.read`.

        Raises:
            DataError: The file is missing, is not JSON, or has labels that make no sense.
        """
        return cls.of(description.read(dataset_json))

    @classmethod
    def of(cls, described: Description) -> LabelScheme:
        """Return the scheme of a dataset's description."""
        return cls(
            described.num_classes,
            described.ignore_label,
            described.label_groups,
            described.regions_class_order,
            tuple(described.labels)[1:],
        )

    @property
    def multilabel(self) -> bool:
        """Whether the channels are label groups, each with a Bernoulli distribution of its own."""
        return self.label_groups is not None

    @property
    def foreground(self) -> dict[str, tuple[int, ...]]:
        """Labels of every scored structure, by nnU-Net's key: ``"1"`` or ``"(1, 2)"``."""
        if self.label_groups is not None:
            return {
                str(group if len(group) > 1 else group[0]): group for group in self.label_groups
            }
        return {str(label): (label,) for label in range(1, self.num_classes)}

    @property
    def names(self) -> dict[str, str]:
        """Names of the scored structures that have one, by their key in `foreground`."""
        return dict(zip(self.foreground, self.structures, strict=False))

    @property
    def highest_label(self) -> int:
        """The largest label value that may occur, apart from the ignore label."""
        if self.label_groups is not None:
            return max(max(group) for group in self.label_groups)
        return self.num_classes - 1

    def check_channels(self, channels: int, source: Path) -> None:
        """Raise a `DataError` that names the file if its channels are not those of the scheme."""
        if channels != self.num_classes:
            kind = "label groups" if self.multilabel else "classes"
            raise DataError(
                source, f"probabilities must be of {self.num_classes} {kind}, got {channels}"
            )

    def check(self, labels: NDArray[Any], source: Path) -> None:
        """Raise a `DataError` that names the file and the values if a label is out of range."""
        known = labels if self.ignore_label is None else labels[labels != self.ignore_label]
        if known.size == 0 or (known.min() >= 0 and known.max() <= self.highest_label):
            return
        outside = known[(known < 0) | (known > self.highest_label)]
        values = np.unique(outside).tolist()
        found = ", ".join(map(str, values[:5])) + ", ..." * (len(values) > 5)
        raise DataError(
            source,
            f"labels must be from 0 to {self.highest_label}, got {found} ({outside.size} voxels)",
        )

    def kept(self, labels: NDArray[Any]) -> NDArray[np.bool_] | None:
        """Return the voxels that count ``[*S]``, or None where all of them do."""
        return None if self.ignore_label is None else labels != self.ignore_label

    def target(self, labels: NDArray[Any]) -> NDArray[np.int16]:
        """Return what probabilities are compared with: ``[*S]``, or ``[C, *S]`` for groups."""
        if self.label_groups is None:
            return labels.astype(np.int16)
        return np.stack([np.isin(labels, group) for group in self.label_groups]).astype(np.int16)

    def segmentation(self, labels: NDArray[Any]) -> NDArray[np.integer[Any]]:
        """Return the label map to write ``[*S]``, as uint8 where that holds every label.

        Args:
            labels: ``[*S]`` class indices, or ``[C, *S]`` of 0 and 1 for label groups, which are
                painted in the order of ``regions_class_order`` as nnU-Net does.
        """
        if self.regions_class_order is None:
            return labels.astype(np.uint8 if self.num_classes <= 256 else np.uint16)
        small = max(self.regions_class_order) < 256
        painted = np.zeros(labels.shape[1:], dtype=np.uint8 if small else np.uint16)
        for group, label in zip(labels, self.regions_class_order, strict=True):
            painted[group > 0] = label
        return painted
