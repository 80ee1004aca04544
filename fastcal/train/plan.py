"""Preprocessing settled from the data: slice axis, spacing, size, intensity windows and patch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from fastcal.core.errors import DataError
from fastcal.data import images
from fastcal.data.intensities import Normalisation, Window, foreground_windows
from fastcal.data.nifti import Geometry
from fastcal.data.prepared import threads
from fastcal.data.preprocess import Preprocessing
from fastcal.data.resample import Interpolation, LabelInterpolation
from fastcal.train.section import Extents, Millimetres, Section

if TYPE_CHECKING:
    import numpy.typing as npt

    from fastcal.data.dataset import Case, Dataset

# Relative difference below which spacings are equal; headers store them in float32.
SPACING_TOLERANCE = 1e-3
# Most foreground voxels of a case that the windows of "ct" are computed from.
WINDOW_VOXELS = 100_000
# Voxels of the largest patch that plan_patch proposes, by number of dimensions.
PATCH_VOXELS = {2: 512**2, 3: 128**3}


class PreprocessingConfig(Section):
    """Settings of preprocessing. The defaults are the paper's slices.

    Example:
        >>> PreprocessingConfig(dims=3, spacing="median", normalisation="zscore").spacing
        'median'
    """

    dims: Literal[2, 3] = 2
    slice_axis: Literal[0, 1, 2, "auto"] = "auto"
    """Axis along which slices are stacked. ``"auto"`` is an axis of which most cases have a single
    slice, and otherwise that of the largest median spacing; the last one of equals."""
    reorient: bool | None = None
    """Turn the axes to RAS; None does so only in three dimensions."""
    spacing: tuple[Millimetres, ...] | Literal["median"] | None = None
    """Spacing in mm, one number per axis of an item. ``"median"`` is the median over the cases,
    axis by axis."""
    size: Extents | None = None
    """Extents to crop and pad to. None keeps each case's own extents where patches are drawn, and
    otherwise takes the largest of the cases, rounded up to what the poolings divide."""
    normalisation: Normalisation | tuple[Normalisation, ...] | Literal["auto"] = "percentile"
    """``"percentile"``, ``"zscore"``, ``"ct"``, or one of them per channel. ``"auto"`` is
    nnU-Net's choice: ``"ct"`` for channels named CT and ``"zscore"`` for others."""
    percentiles: tuple[float, float] = (1.0, 99.0)
    nonzero: bool = False
    """Normalise by the voxels that are not 0, and leave the others 0."""
    crop_to_nonzero: bool = False
    """Keep for training only the bounding box of the voxels that are not 0; needs patches."""
    interpolation: Interpolation = "linear"
    label_interpolation: LabelInterpolation | None = None
    """None is nearest in two dimensions, and linear in three, as in nnU-Net."""


def plan_preprocessing(
    dataset: Dataset,
    cases: Sequence[Case],
    config: PreprocessingConfig,
    *,
    divisor: int,
    patches: bool = False,
) -> Preprocessing:
    """Settle what the settings leave to the data.

    Headers are read, and voxels too where the intensity window of a channel is needed. Cases that
    cannot be read are skipped here; `fastcal.data.prepared.prepare_cases` names them.

    Args:
        dataset: The dataset, for the names of its channels.
        cases: The cases to train on and to validate on.
        config: The settings.
        divisor: Extents are rounded up to multiples of this number.
        patches: Whether patches are drawn, so that no common size is needed.

    Raises:
        DataError: No header can be read.
        ValueError: Settings do not go together.
    """
    geometries = _geometries(cases)
    schemes = _schemes(dataset.channel_names, config.normalisation)
    # In three dimensions, to get the oriented axes of the volume, whatever the items will be.
    reorient = config.dims == 3 if config.reorient is None else config.reorient
    volume = Preprocessing(dims=3, reorient=reorient)
    spacings = np.median([volume.own_spacing(like) for like in geometries], axis=0)
    extents = np.median([volume.extents(like) for like in geometries], axis=0)
    axis = _axis_of_slices(extents, spacings) if config.slice_axis == "auto" else config.slice_axis
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
    """Propose a patch as large as the median case, or as ``voxels`` allows.

    The largest extent shrinks, step by step, until the patch has at most ``voxels``.

    Args:
        cases: The cases to train on and to validate on.
        preprocessing: How the cases are preprocessed.
        divisor: Extents are multiples of this number.
        voxels: Most voxels of a patch; None is 512^2 in two dimensions and 128^3 in three.

    Raises:
        DataError: No header can be read.

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
            geometries.append(images.geometry(case.images[0]))
        except DataError as error:
            problems.append(error)
    if not geometries:
        raise problems[0] if problems else ValueError("cases must hold at least one, got none")
    return geometries


def _axis_of_slices(extents: npt.NDArray[np.float64], spacings: npt.NDArray[np.float64]) -> int:
    axes = [axis for axis in range(3) if extents[axis] <= 1] or [0, 1, 2]
    largest = spacings[axes].max() * (1 - SPACING_TOLERANCE)
    return max(axis for axis in axes if spacings[axis] >= largest)


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
            f"normalisation must hold one scheme per channel: {len(channel_names)}, "
            f"got {len(named)}"
        )
    return named


def _windows(dataset: Dataset, cases: Sequence[Case]) -> tuple[Window, ...]:
    """Compute the windows of the channels from foreground voxels, sampled where a case has many."""

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
