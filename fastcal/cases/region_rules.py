"""Regions as commands name them, and their masks of a case."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fastcal import regions
from fastcal.core.region_bits import Regions, check_names

_FORMS = "box[:MM[:SLICES]], band:MM, foreground or prediction"


@dataclass(frozen=True, slots=True)
class RegionRule:
    """How the mask of a region is made of a case's labels.

    Examples
    --------
    >>> RegionRule.parse("box:8:2")
    RegionRule(name='box:8:2', kind='box', mm=8.0, slices=2)
    """

    name: str
    """As it was given."""
    kind: str
    """``"box"``, ``"band"``, ``"foreground"`` of the reference, or of the ``"prediction"``."""
    mm: float = 8.0
    """Margin of a box in-plane, distance of a band."""
    slices: int = 2
    """Margin of a box across the slices."""

    @classmethod
    def parse(cls, name: str) -> RegionRule:
        """Return the rule that a command's word stands for.

        Raises
        ------
        ValueError
            The word is none of ``box[:MM[:SLICES]]``, ``band:MM``, ``foreground``, ``prediction``.
        """
        kind, *numbers = name.split(":")
        most = {"box": 2, "band": 1, "foreground": 0, "prediction": 0}
        if kind not in most or len(numbers) > most[kind] or (kind == "band" and not numbers):
            raise ValueError(f"region: got {name!r}, expected {_FORMS}")
        try:
            mm = float(numbers[0]) if numbers else 8.0
            slices = int(numbers[1]) if len(numbers) > 1 else 2
        except ValueError:
            raise ValueError(f"region: got {name!r}, expected {_FORMS}") from None
        if not (0 <= mm < math.inf and slices >= 0):
            raise ValueError(f"region: got {name!r}, expected margins of 0 or more")
        return cls(name, kind, mm, slices)

    def mask(
        self, reference: NDArray[Any], prediction: NDArray[Any] | None, affine: NDArray[Any]
    ) -> NDArray[np.bool_]:
        """Return the voxels of the region, ``[X, Y, Z]``.

        Parameters
        ----------
        reference, prediction
            Labels ``[X, Y, Z]``, 0 for the background and for what is ignored.
        affine
            ``[4, 4]``, voxel indices to mm.
        """
        if self.kind == "box":
            return regions.dilated_box(reference, self.mm, self.slices, affine=affine)
        if self.kind == "band":
            return regions.boundary_band(reference, self.mm, affine=affine)
        if self.kind == "foreground":
            return regions.foreground(reference)
        if prediction is None:
            raise ValueError("region 'prediction': there is no label map of the prediction")
        return regions.foreground(prediction)


def parse_rules(names: Sequence[str]) -> tuple[RegionRule, ...]:
    """Return the rules of several regions.

    Raises
    ------
    ValueError
        A word is no region, there are more than eight, or one is named twice.
    """
    return tuple(RegionRule.parse(name) for name in check_names(names))


def rules_of_references(names: Sequence[str], labels: object | None) -> tuple[RegionRule, ...]:
    """Return the rules of regions that are made from labels, before there is a prediction.

    Raises
    ------
    ValueError
        As `parse_rules`; there are no labels, or a region is made from the prediction.
    """
    rules = parse_rules(names)
    if rules and labels is None:
        raise ValueError(f"regions: got {list(names)}, which need labels")
    if any(rule.kind == "prediction" for rule in rules):
        raise ValueError(
            "region 'prediction' is known when everything is predicted: `fastcal evaluate` has it"
        )
    return rules


def case_regions(
    rules: Sequence[RegionRule],
    reference: NDArray[Any],
    kept: NDArray[np.bool_] | None,
    affine: NDArray[Any],
    prediction: NDArray[Any] | None = None,
) -> Regions | None:
    """Return the regions of a case ``[X, Y, Z]``, or None where there are no rules."""
    if not rules:
        return None
    if kept is not None:
        reference = np.where(kept, reference, 0)
    return Regions.of(
        {rule.name: torch.from_numpy(rule.mask(reference, prediction, affine)) for rule in rules}
    )
