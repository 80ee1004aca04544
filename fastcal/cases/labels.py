"""What the numbers of a label map mean: classes, or regions that overlap, and the ignore label."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fastcal.core.errors import DataError
from fastcal.data import description

if TYPE_CHECKING:
    from fastcal.data.description import Description


@dataclass(frozen=True, slots=True)
class LabelScheme:
    """Reading of label maps and probability channels, as nnU-Net's ``dataset.json`` declares it.

    Examples
    --------
    >>> scheme = LabelScheme.of_classes(3)
    >>> scheme.num_classes, scheme.foreground
    (3, {'1': (1,), '2': (2,)})
    """

    num_classes: int
    """Channels of the probabilities: labels with the background, or regions without it."""
    ignore_label: int | None = None
    label_groups: tuple[tuple[int, ...], ...] | None = None
    """Labels of each region, in the order of the channels; None for exclusive classes."""
    regions_class_order: tuple[int, ...] | None = None
    """Label written where a region's probability exceeds 0.5; later regions overwrite earlier."""
    structures: tuple[str, ...] = ()
    """Name of each scored structure; empty where no ``dataset.json`` gives them."""

    @classmethod
    def of_classes(cls, num_classes: int, *, ignore_label: int | None = None) -> LabelScheme:
        """Return the scheme of exclusive classes ``0 .. num_classes - 1``.

        One class alone is binary: the probability of label 1.
        """
        if num_classes < 1:
            raise ValueError(f"num_classes: got {num_classes}, expected at least 1")
        if num_classes == 1:
            return cls(1, ignore_label, label_groups=((1,),), regions_class_order=(1,))
        return cls(num_classes, ignore_label)

    @classmethod
    def read(cls, dataset_json: Path) -> LabelScheme:
        """Read a ``dataset.json`` (`fastcal.data.description.read`).

        Raises
        ------
        DataError
            If the file is missing, not JSON, or its labels make no sense.
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
        """Whether the channels are regions, each with a Bernoulli of its own."""
        return self.label_groups is not None

    @property
    def foreground(self) -> dict[str, tuple[int, ...]]:
        """Labels of every scored structure by nnU-Net's key for it: ``"1"`` or ``"(1, 2)"``."""
        if self.label_groups is not None:
            return {
                str(group if len(group) > 1 else group[0]): group for group in self.label_groups
            }
        return {str(label): (label,) for label in range(1, self.num_classes)}

    @property
    def names(self) -> dict[str, str]:
        """Name of every scored structure by its key in `foreground`, as far as it has one."""
        return dict(zip(self.foreground, self.structures, strict=False))

    @property
    def highest_label(self) -> int:
        """The largest label value that may occur, the ignore label left aside."""
        if self.label_groups is not None:
            return max(max(group) for group in self.label_groups)
        return self.num_classes - 1

    def check_channels(self, channels: int, source: Path) -> None:
        """Raise a `DataError` that names the file if its probabilities have another class count."""
        if channels != self.num_classes:
            kind = "regions" if self.multilabel else "classes"
            raise DataError(
                source, f"probabilities of {channels} {kind}, expected {self.num_classes}"
            )

    def check(self, labels: NDArray[Any], source: Path) -> None:
        """Raise a `DataError` that names the file and a value if a label is out of range."""
        known = labels if self.ignore_label is None else labels[labels != self.ignore_label]
        if known.size == 0 or (known.min() >= 0 and known.max() <= self.highest_label):
            return
        outside = known[(known < 0) | (known > self.highest_label)]
        values = np.unique(outside).tolist()
        found = ", ".join(map(str, values[:5])) + ", ..." * (len(values) > 5)
        raise DataError(
            source,
            f"label{'s' * (len(values) > 1)} {found} in the label map ({outside.size} voxels), "
            f"expected 0 to {self.highest_label}",
        )

    def kept(self, labels: NDArray[Any]) -> NDArray[np.bool_] | None:
        """Return the voxels that count, or None where all do."""
        return None if self.ignore_label is None else labels != self.ignore_label

    def target(self, labels: NDArray[Any]) -> NDArray[np.int16]:
        """Return what probabilities are compared with: ``[*S]``, or ``[C, *S]`` for regions."""
        if self.label_groups is None:
            return labels.astype(np.int16)
        return np.stack([np.isin(labels, group) for group in self.label_groups]).astype(np.int16)

    def segmentation(self, labels: NDArray[Any]) -> NDArray[np.integer[Any]]:
        """Return the label map to write, ``[*S]``, uint8 where that holds every label.

        ``labels`` are ``[*S]`` class indices, or ``[C, *S]`` of 0 and 1 for regions, which are
        painted in the order of ``regions_class_order`` as nnU-Net does.
        """
        if self.regions_class_order is None:
            return labels.astype(np.uint8 if self.num_classes <= 256 else np.uint16)
        small = max(self.regions_class_order) < 256
        painted = np.zeros(labels.shape[1:], dtype=np.uint8 if small else np.uint16)
        for region, label in zip(labels, self.regions_class_order, strict=True):
            painted[region > 0] = label
        return painted
