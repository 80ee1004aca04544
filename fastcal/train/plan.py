"""What the settings of preprocessing leave to the data: axis, spacing, size, windows, patch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

from fastcal.core.errors import DataError
from fastcal.data import nifti
from fastcal.data.intensities import Normalisation, Window, foreground_windows
from fastcal.data.nifti import Geometry
from fastcal.data.prepared import threads
from fastcal.data.preprocess import Preprocessing
from fastcal.data.resample import Interpolation, LabelInterpolation

if TYPE_CHECKING:
    import numpy.typing as npt

    from fastcal.data.dataset import Case, Dataset

# Spacings this close are equal: headers store them in float32.
SPACING_TOLERANCE = 1e-3
# Foreground voxels a case gives to the windows of "ct".
WINDOW_VOXELS = 100_000
# The largest patches that plan_patch proposes, by dimensions.
PATCH_VOXELS = {2: 512**2, 3: 128**3}


class PreprocessingConfig(BaseModel):
    """Settings of preprocessing; the defaults are the paper's slices.

    Example:
        >>> PreprocessingConfig(dims=3, spacing="median", normalisation="zscore").spacing
        'median'
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    dims: Literal[2, 3] = 2
    slice_axis: Literal[0, 1, 2, "auto"] = "auto"
    """Axis the slices are stacked along; ``"auto"``: that of the largest median spacing, the last
    one of equals."""
    reorient: bool | None = None
    """Turn the axes to RAS; None: in three dimensions."""
    spacing: tuple[float, ...] | Literal["median"] | None = None
    """mm, one for each axis of an item; ``"median"``: over the cases, axis by axis."""
    size: tuple[int, ...] | None = None
    """Extents to crop and pad to. None: where patches are drawn, each case's own; otherwise the
    largest of the cases, rounded up to what the poolings divide."""
    normalisation: Normalisation | tuple[Normalisation, ...] | Literal["auto"] = "percentile"
    """``"percentile"``, ``"zscore"``, ``"ct"``, or one a channel; ``"auto"``: nnU-Net's, ``"ct"``
    for channels named CT and ``"zscore"`` for others."""
    percentiles: tuple[float, float] = (1.0, 99.0)
    nonzero: bool = False
    """Normalise by the voxels that are not 0, and leave the others 0."""
    crop_to_nonzero: bool = False
    """Training keeps the box of the voxels that are not 0; only with patches."""
    interpolation: Interpolation = "linear"
    label_interpolation: LabelInterpolation | None = None
    """None: nearest in two dimensions, as it was; linear in three, as nnU-Net."""


def plan_preprocessing(
    dataset: Dataset,
    cases: Sequence[Case],
    config: PreprocessingConfig,
    *,
    divisor: int,
    patches: bool = False,
) -> Preprocessing:
    """Settle what the settings leave to the data.

    Headers are read, and the voxels too where a channel's window has to be found. Cases that cannot
    be read have no say; `fastcal.data.prepared.prepare_cases` names them.

    Args:
        dataset: whose channels are named CT or not.
        cases: those to train and validate with.
        config: the settings.
        divisor: extents are rounded up to multiples of it.
        patches: whether patches are drawn, so that no common size is needed.

    Raises:
        DataError: no header can be read.
        ValueError: settings that do not go together.
    """
    geometries = _geometries(cases)
    schemes = _schemes(dataset.channel_names, config.normalisation)
    # Three dimensions stand for the oriented axes of the volume, whatever the items will be.
    reorient = config.dims == 3 if config.reorient is None else config.reorient
    volume = Preprocessing(dims=3, reorient=reorient)
    spacings = np.median([volume.own_spacing(like) for like in geometries], axis=0)
    axis = _coarsest_axis(spacings) if config.slice_axis == "auto" else config.slice_axis
    spacing = config.spacing
    if spacing == "median":
        kept = [other for other in range(3) if config.dims == 3 or other != axis]
        spacing = tuple(float(spacings[other]) for other in kept)
    labels = config.label_interpolation or ("nearest" if config.dims == 2 else "linear")
    settled = Preprocessing(
        slice_axis=axis,
        spacing=spacing,
        size=config.size,
        percentiles=config.percentiles,
        dims=config.dims,
        reorient=config.reorient,
        normalisation=schemes,
        nonzero=config.nonzero,
        crop_to_nonzero=config.crop_to_nonzero,
        windows=_windows(dataset, cases) if "ct" in schemes else None,
        interpolation=config.interpolation,
        label_interpolation=labels,
    )
    if config.size is not None or patches:
        return settled
    largest = np.max([settled.extents(like) for like in geometries], axis=0)
    return replace(settled, size=_divisible(largest, divisor))


def plan_patch(
    cases: Sequence[Case],
    preprocessing: Preprocessing,
    *,
    divisor: int,
    voxels: int | None = None,
) -> tuple[int, ...]:
    """A patch as large as the median case, or as ``voxels`` allow.

    Extents shrink where they are the largest, towards a cube, until the patch has at most
    ``voxels`` (None: 512^2 in two dimensions, 128^3 in three).

    Raises:
        DataError: no header can be read.

    Example:
        >>> plan_patch(cases, Preprocessing(dims=3), divisor=8)  # doctest: +SKIP
        (40, 56, 40)
    """
    extents = [preprocessing.extents(like) for like in _geometries(cases)]
    patch = list(_divisible(np.median(extents, axis=0), divisor))
    voxels = voxels or PATCH_VOXELS[preprocessing.dims]
    while math.prod(patch) > voxels and max(patch) > divisor:
        patch[patch.index(max(patch))] -= divisor
    return tuple(patch)


def _geometries(cases: Sequence[Case]) -> list[Geometry]:
    geometries: list[Geometry] = []
    problems: list[DataError] = []
    for case in cases:
        try:
            like = nifti.geometry(case.images[0])
            if np.linalg.det(like.affine[:3, :3]) == 0:
                raise DataError(case.images[0], "its affine has an axis without a direction")
            shape = (*like.shape, 1, 1)[:3]
            geometries.append(Geometry(shape, like.affine, like.header))
        except DataError as error:
            problems.append(error)
    if not geometries:
        raise problems[0] if problems else ValueError("cases: got none, expected at least one")
    return geometries


def _coarsest_axis(spacings: npt.NDArray[np.float64]) -> int:
    largest = spacings.max() * (1 - SPACING_TOLERANCE)
    return max(axis for axis in range(3) if spacings[axis] >= largest)


def _divisible(extents: npt.NDArray[np.float64], divisor: int) -> tuple[int, ...]:
    return tuple(max(1, math.ceil(extent / divisor)) * divisor for extent in extents.tolist())


def _schemes(
    channel_names: Sequence[str],
    named: Normalisation | tuple[Normalisation, ...] | Literal["auto"],
) -> Normalisation | tuple[Normalisation, ...]:
    if named == "auto":
        return tuple("ct" if name.lower() == "ct" else "zscore" for name in channel_names)
    if isinstance(named, tuple) and len(named) != len(channel_names):
        raise ValueError(
            f"normalisation: got {len(named)}, expected one for each of the "
            f"{len(channel_names)} channels"
        )
    return named


def _windows(dataset: Dataset, cases: Sequence[Case]) -> tuple[Window, ...]:
    """Windows of the channels from foreground voxels of every case, a random choice of many."""

    def sample(case: Case) -> npt.NDArray[np.float32] | None:
        try:
            image, label, _ = case.load()
        except DataError:
            return None
        if label is None or len(image) != len(dataset.channel_names):
            return None
        voxels = np.flatnonzero((label > 0) & (label != dataset.ignore_label))
        if len(voxels) > WINDOW_VOXELS:
            voxels = np.random.default_rng(0).choice(voxels, WINDOW_VOXELS, replace=False)
        seen = image.reshape(len(image), -1)[:, voxels]
        return seen if np.isfinite(seen).all() else None

    with ThreadPoolExecutor(threads()) as pool:
        samples = [found for found in pool.map(sample, cases) if found is not None]
    return foreground_windows(samples)
