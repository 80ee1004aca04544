"""Where the voxels of a NIfTI file lie: which of its forms counts, and what a millimetre is.

A header may say it three times: in the sform, in the qform, and in pixdim, which has the sizes of
the voxels alone. The rule:

1. All numbers become millimetres by the header's unit. An unknown unit is millimetres.
2. The sform counts where it is set and gives voxels of pixdim's sizes.
3. Where its sizes differ from pixdim's by more than 1 %, or where it is singular or not finite, the
   qform counts, which has pixdim's sizes by definition. A `DataWarning` says so. SimpleITK, and so
   nnU-Net, takes the sizes of pixdim too.
4. Without a qform, the sform's directions and origin count with pixdim's sizes. If it is singular,
   pixdim alone counts; if it is not finite, the file is refused.
5. Without either form, the axes run to the left, to the back and up from the origin, as SimpleITK
   has it. Such a file says nothing about its place, and is compared with others by size alone.

`affine_from` makes the sform or the qform count instead.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from fastcal.core.arrays import Floats
from fastcal.core.errors import DataError, DataWarning

Rule = Literal["auto", "sform", "qform"]
RULES: tuple[Rule, ...] = get_args(Rule)

SIZE_TOLERANCE = 0.01
"""Relative difference between the sizes of the sform and those of pixdim that is rounding, or the
shear of a tilted gantry."""

_MILLIMETRES = {1: 1000.0, 2: 1.0, 3: 1e-3}
"""By the code of the unit (nifti1.h): metre, millimetre, micron."""
_UNIT_BITS = 7
_QFORM = ("quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z")
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0])

_rule: list[Rule] = ["auto"]
_told: set[tuple[Path, str]] = set()


@contextmanager
def affine_from(rule: str) -> Iterator[None]:
    """Choose the form that counts in NIfTI files, within a block, for the whole process.

    Args:
        rule: ``"sform"`` or ``"qform"``, which counts wherever it is usable, whatever pixdim says;
            or ``"auto"``, the rule of this module.

    Raises:
        ValueError: ``rule`` is none of these.

    Example:
        >>> with affine_from("qform"):
        ...     affine_rule()
        'qform'
    """
    if rule not in RULES:
        raise ValueError(f"affine must be one of {', '.join(RULES)}, got {rule!r}")
    before, _rule[0] = _rule[0], rule
    try:
        yield
    finally:
        _rule[0] = before


def affine_rule() -> Rule:
    """The form that counts at present.

    Example:
        >>> affine_rule()
        'auto'
    """
    return _rule[0]


@dataclass(frozen=True, eq=False)
class Place:
    """Where the voxels of a file lie."""

    affine: Floats
    """Voxel index to RAS mm, regular."""
    others: tuple[Floats, ...]
    """What other readers may take from the same header."""
    stated: bool
    """Whether the header has a form; otherwise the place and the directions are arbitrary."""
    mended: bool
    """Whether the header contradicts `affine` or itself; `mend` makes one that does not."""


def place(header: Any, shape: tuple[int, ...], path: Path) -> Place:
    """Say where the voxels of a file lie, by the rule of this module.

    Args:
        header: A `nibabel.Nifti1Header` or ``Nifti2Header``, which need not be valid.
        shape: Of the file. An axis that it lacks is a millimetre thick where nothing is said.
        path: The file, for the messages.

    Raises:
        DataError: The header gives no usable affine.
    """
    factor = _factor(header)
    n_axes = min(len(shape), 3)
    sizes = np.abs(np.array(header["pixdim"][1:4], dtype=np.float64)) * factor
    sizes[~(np.isfinite(sizes) & (sizes > 0))] = np.nan
    sizes[n_axes:] = np.where(np.isnan(sizes[n_axes:]), 1.0, sizes[n_axes:])

    has_sform, has_qform = int(header["sform_code"]) > 0, int(header["qform_code"]) > 0
    sform = _sform(header, factor, n_axes, sizes) if has_sform else None
    qform = _qform(header, factor, sizes) if has_qform else None
    resized = None
    contradiction = ""
    if sform is not None:
        steps = voxel_sizes(sform)
        wrong = np.abs(steps - sizes)[:n_axes] > SIZE_TOLERANCE * sizes[:n_axes]
        if wrong.any():
            contradiction = f"{_times(steps[:n_axes])} of its sform and {_times(sizes[:n_axes])}"
            resized = sform.copy()
            resized[:3, :3] *= sizes / steps

    chosen, why = _chosen(sform, qform, resized)
    if chosen is None:
        if np.isnan(sizes).any() or not _is_finite(header, has_sform, has_qform):
            raise DataError(
                path, "its header gives no usable affine: neither sform, qform nor pixdim"
            )
        chosen = np.eye(4)
        chosen[:3, :3] = _LPS_TO_RAS * sizes
    unusable = (has_sform and sform is None) or (has_qform and qform is None)
    asked = {"sform": sform, "qform": qform}.get(_rule[0])
    if contradiction and (asked is None or chosen is not asked):
        _tell(
            path,
            f"voxels of {contradiction} mm by pixdim; {why} (--affine sform takes the sform)",
        )
    elif unusable and sform is None:
        form = "sform" if has_sform else "qform"
        _tell(path, f"its {form} is singular or not finite; {why}")
    others = tuple(one for one in (sform, qform, resized) if one is not None and one is not chosen)
    stated = sform is not None or qform is not None
    return Place(chosen, others, stated, bool(contradiction or unusable or np.isnan(sizes).any()))


def mend(header: Any, found: Place) -> Any:
    """A copy of a header whose forms and pixdim all say the affine that counts, in its unit."""
    mended = header.copy()
    if not found.stated:
        mended["sform_code"] = mended["qform_code"] = 0
        for row in "xyz":
            mended[f"srow_{row}"] = 0
        return mended
    raw = found.affine.copy()
    raw[:3] /= _factor(header)
    mended["pixdim"][1:4] = 1
    mended.set_sform(raw, code=max(int(header["sform_code"]), 1))
    mended.set_qform(raw, code=max(int(header["qform_code"]), 1))
    return mended


def voxel_sizes(affine: Floats) -> Floats:
    """Lengths of the columns of an affine: the extents of a voxel along its three axes.

    Args:
        affine: ``[4, 4]``.

    Example:
        >>> voxel_sizes(np.diag([-1.5, 1.5, 4.0, 1.0])).tolist()
        [1.5, 1.5, 4.0]
    """
    sizes: Floats = np.sqrt((affine[:3, :3] ** 2).sum(axis=0))
    return sizes


def is_regular(affine: Floats) -> bool:
    """Whether an affine is finite and gives each axis a direction of its own."""
    if affine.shape != (4, 4) or not np.isfinite(affine).all():
        return False
    sizes = voxel_sizes(affine)
    if not (sizes > 0).all():
        return False
    return bool(abs(np.linalg.det(affine[:3, :3] / sizes)) > 1e-3)


def same_place(
    one: Floats,
    other: Floats,
    shape: tuple[int, ...],
    *,
    tolerance: float = 0.1,
) -> bool:
    """Whether two affines put every corner of an array within ``tolerance`` voxels of each other.

    Files that went through different tools differ in the last digits of their affines. A tenth of
    the smallest voxel edge is invisible, and flips no label. An axis of extent 1 has no length: how
    thick a single slice is said to be makes no difference.

    Args:
        one: An affine.
        other: Another affine.
        shape: Extents of the array.
        tolerance: Distance in units of the smallest voxel edge of ``one``.
    """
    extents = (*shape, 1, 1)[:3]
    ends = [(0, max(extent - 1, 0)) for extent in extents]
    corners = np.array([(x, y, z, 1.0) for x in ends[0] for y in ends[1] for z in ends[2]])
    distance = np.linalg.norm((corners @ (one - other).T)[:, :3], axis=1).max()
    return bool(distance <= tolerance * _smallest_edge(one, extents))


def same_sizes(
    one: Floats, other: Floats, shape: tuple[int, ...], *, tolerance: float = 0.1
) -> bool:
    """Whether the voxels of two affines are as large, so that no edge differs by ``tolerance``.

    Args:
        one: An affine.
        other: Another affine.
        shape: Extents of the array, over which differences add up.
        tolerance: Distance in units of the smallest voxel edge of ``one``.
    """
    extents = np.array((*shape, 1, 1)[:3])
    distance = (np.abs(voxel_sizes(one) - voxel_sizes(other)) * (extents - 1)).max()
    return bool(distance <= tolerance * _smallest_edge(one, tuple(extents)))


def _factor(header: Any) -> float:
    return _MILLIMETRES.get(int(header["xyzt_units"]) & _UNIT_BITS, 1.0)


def _smallest_edge(affine: Floats, extents: tuple[int, ...]) -> float:
    long = [axis for axis in range(3) if extents[axis] > 1] or [0, 1, 2]
    return float(voxel_sizes(affine)[long].min())


def _chosen(
    sform: Floats | None, qform: Floats | None, resized: Floats | None
) -> tuple[Floats | None, str]:
    """The affine that counts, None for pixdim alone, and the words for it where it is odd."""
    if _rule[0] == "sform" and sform is not None:
        return sform, ""
    if _rule[0] == "qform" and qform is not None:
        return qform, "the qform counts"
    if sform is not None and resized is None:
        return sform, ""
    if qform is not None:
        return qform, "the qform counts"
    if resized is not None:
        return resized, "the sform's directions count with the sizes of pixdim"
    return None, "pixdim alone counts"


def _sform(header: Any, factor: float, n_axes: int, sizes: Floats) -> Floats | None:
    affine = np.eye(4)
    affine[:3] = [np.array(header[f"srow_{row}"], dtype=np.float64) for row in "xyz"]
    affine[:3] *= factor
    return _completed(affine, n_axes, sizes)


def _is_finite(header: Any, has_sform: bool, has_qform: bool) -> bool:
    """Whether the forms that are set hold numbers: some writers leave zeros, none leaves NaN."""
    sform = np.concatenate([header[f"srow_{row}"] for row in "xyz"])
    qform = [float(header[field]) for field in _QFORM]
    return not (
        (has_sform and not np.isfinite(sform).all()) or (has_qform and not np.isfinite(qform).all())
    )


def _completed(affine: Floats, n_axes: int, sizes: Floats) -> Floats | None:
    """A regular affine, in which axes that the file lacks get a direction; None for no affine."""
    if is_regular(affine):
        return affine
    if (
        n_axes > 2
        or not np.isfinite(affine[:, :n_axes]).all()
        or not np.isfinite(affine[:, 3]).all()
    ):
        return None
    known = affine[:3, :n_axes]
    if not (np.sqrt((known**2).sum(axis=0)) > 0).all():
        return None
    # Directions that are orthogonal to the known ones complete them to a right-handed frame.
    basis, _ = np.linalg.qr(np.concatenate([known, np.eye(3)], axis=1))
    rest = basis[:, n_axes:] * sizes[n_axes:]
    completed = affine.copy()
    completed[:3, :3] = np.concatenate([known, rest], axis=1)
    if np.linalg.det(completed[:3, :3]) < 0:
        completed[:3, 2] *= -1
    return completed if is_regular(completed) else None


def _qform(header: Any, factor: float, sizes: Floats) -> Floats | None:
    """The affine of quaternion, offset and pixdim (nifti1.h, method 2)."""
    from nibabel.quaternions import quat2mat

    b, c, d = (float(header[f"quatern_{letter}"]) for letter in "bcd")
    precision = float(np.finfo(header["quatern_b"].dtype).eps)
    offset = np.array([float(header[f"qoffset_{axis}"]) for axis in "xyz"]) * factor
    square = b * b + c * c + d * d
    if not np.isfinite(offset).all() or not square < 1.001 or np.isnan(sizes).any():
        return None
    affine = np.eye(4)
    # As in nibabel: of half a turn, what the type cannot hold would remain as an angle.
    real = 0.0 if 1 - square < 3 * precision else math.sqrt(1 - square)
    rotation: Any = quat2mat((real, b, c, d))  # type: ignore[no-untyped-call]
    affine[:3, :3] = rotation * sizes
    # The sign of pixdim[0] turns the third axis in a left-handed file.
    if float(header["pixdim"][0]) < 0:
        affine[:3, 2] *= -1
    affine[:3, 3] = offset
    return affine if is_regular(affine) else None


def _tell(path: Path, problem: str) -> None:
    """Warn once for each folder and problem, since the files of a folder share their faults."""
    key = (path.parent, problem)
    if key not in _told:
        _told.add(key)
        warnings.warn(DataWarning(path, problem), stacklevel=2)


def _times(sizes: Floats) -> str:
    return " x ".join(f"{size:.6g}" for size in sizes)
