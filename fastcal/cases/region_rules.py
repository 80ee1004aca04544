"""Regions of a volume as commands name them, and their masks for a case."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fastcal import regions
from fastcal.core.region_bits import Regions, check_names

MOST = 1e6
"""Largest margin, in mm and in slices: a kilometre."""
_FORMS = "box[:MM[:SLICES]], band:MM, foreground or prediction"


@dataclass(frozen=True, slots=True)
class RegionRule:
    """How the mask of a region is made from the labels of a case.

    Example:
        >>> RegionRule.parse("box:8:2")
        RegionRule(name='box:8:2', kind='box', mm=8.0, slices=2)
    """

    name: str
    """The word that was given."""
    kind: str
    """``"box"``, ``"band"``, ``"foreground"`` (of the reference) or ``"prediction"``."""
    mm: float = 8.0
    """Margin of a box within the slices, or distance of a band from the boundary, in mm."""
    slices: int = 2
    """Margin of a box across the slices, in slices."""

    @classmethod
    def parse(cls, name: str) -> RegionRule:
        """Return the rule that a word stands for.

        Raises:
            ValueError: The word is none of ``box[:MM[:SLICES]]``, ``band:MM``, ``foreground`` and
                ``prediction``.
        """
        kind, *numbers = name.split(":")
        most = {"box": 2, "band": 1, "foreground": 0, "prediction": 0}
        if kind not in most or len(numbers) > most[kind] or (kind == "band" and not numbers):
            raise ValueError(f"region must be {_FORMS}, got {name!r}")
        try:
            mm = float(numbers[0]) if numbers else 8.0
            slices = int(numbers[1]) if len(numbers) > 1 else 2
        except ValueError:
            raise ValueError(f"region must be {_FORMS}, got {name!r}") from None
        if not (0 <= mm <= MOST and 0 <= slices <= MOST):
            raise ValueError(
                f"region must have margins of at least 0 and at most {MOST:.0f}, got {name!r}"
            )
        if kind == "band" and mm == 0:
            raise ValueError(f"region must have a width above 0 where it is a band, got {name!r}")
        return cls(name, kind, mm, slices)

    def mask(
        self, reference: NDArray[Any], prediction: NDArray[Any] | None, affine: NDArray[Any]
    ) -> NDArray[np.bool_]:
        """Return the voxels of the region, ``[X, Y, Z]``.

        Args:
            reference: Labels ``[X, Y, Z]``, 0 for the background and for what is ignored.
            prediction: Predicted labels ``[X, Y, Z]``; only ``"prediction"`` needs them.
            affine: ``[4, 4]``, from voxel indices to mm.

        Raises:
            ValueError: The region is the prediction's, and there is no prediction.
        """
        if self.kind == "box":
            return regions.dilated_box(reference, self.mm, self.slices, affine=affine)
        if self.kind == "band":
            return regions.boundary_band(reference, self.mm, affine=affine)
        if self.kind == "foreground":
            return regions.foreground(reference)
        if prediction is None:
            raise ValueError("prediction must be a label map for the region 'prediction', got None")
        return regions.foreground(prediction)


def parse_rules(names: Sequence[str]) -> tuple[RegionRule, ...]:
    """Return the rules of several regions.

    Raises:
        TypeError: ``names`` are not words.
        ValueError: A word is not a region, there are more than eight, or one is named twice.
    """
    return tuple(RegionRule.parse(name) for name in check_names(names))


def case_regions(
    rules: Sequence[RegionRule],
    reference: NDArray[Any],
    kept: NDArray[np.bool_] | None,
    affine: NDArray[Any],
    prediction: NDArray[Any] | None = None,
) -> Regions | None:
    """Return the regions of a case, masks ``[X, Y, Z]``, or None where there are no rules.

    Args:
        rules: How each mask is made.
        reference: Labels ``[X, Y, Z]``.
        kept: Voxels that count, or None for all; the others are background to every rule.
        affine: ``[4, 4]``, from voxel indices to mm.
        prediction: Predicted labels ``[X, Y, Z]``, where a rule needs them.
    """
    if not rules:
        return None
    if kept is not None:
        reference = np.where(kept, reference, 0)
    return Regions.of(
        {rule.name: torch.from_numpy(rule.mask(reference, prediction, affine)) for rule in rules}
    )
