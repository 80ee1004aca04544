"""What quality prediction and detection of unlike cases say, read from the files they write."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from pydantic import BaseModel

from fastcal.core.doors import read_json
from fastcal.core.errors import DataError

QUALITY, OOD = "quality.json", "ood.json"


class _Structure(BaseModel):
    case: str
    structure: str
    dice: float
    low: float | None = None
    high: float | None = None
    reason: str = ""


class _Quality(BaseModel):
    structures: list[_Structure]


class _Judged(BaseModel):
    case: str
    flagged: list[str]


class _Ood(BaseModel):
    cases: list[_Judged]


POOR = 0.7
"""Predicted Dice below it is a warning: the usual limit of good overlap (Zijdenbos, 1994)."""


def case_warnings(places: Iterable[Path]) -> tuple[dict[str, tuple[str, ...]], list[Path]]:
    """Return the warnings of each case, and the files that they were read from.

    Args:
        places: Files of ``fastcal quality predict`` or ``fastcal ood predict``, or folders that may
            hold them.

    Raises:
        DataError: A file that was named is missing, damaged or something else.
    """
    found: dict[str, list[str]] = {}
    read: list[Path] = []
    for place in places:
        named = [place / name for name in (QUALITY, OOD)] if place.is_dir() else [place]
        for file in named:
            if place.is_dir() and not file.exists():
                continue
            if file.name == OOD:
                content: _Ood = read_json(file, _Ood)
                for judged in content.cases:
                    if judged.flagged:
                        names = ", ".join(judged.flagged).replace("_", " ")
                        found.setdefault(judged.case, []).append(f"unlike the training: {names}")
            elif file.name == QUALITY:
                predicted: _Quality = read_json(file, _Quality)
                for one in predicted.structures:
                    _add_quality(found, one)
            else:
                raise DataError(file, f"must be {QUALITY} or {OOD}, or a folder with one of them")
            read.append(file)
    return {case: tuple(dict.fromkeys(texts)) for case, texts in found.items()}, read


def _add_quality(found: dict[str, list[str]], one: _Structure) -> None:
    if one.reason:
        found.setdefault(one.case, []).append(f"{one.structure}: {one.reason}")
    if one.dice < POOR:
        found.setdefault(one.case, []).append(
            f"{one.structure}: predicted Dice {one.dice:.2f} is low"
        )
