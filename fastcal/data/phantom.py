"""Phantoms: MRI-like datasets with known truth, written as raw datasets of nnU-Net.

A brain with a glioma, a heart in short axis and a prostate in its pelvis resemble the three tasks
of Mehrtash et al. (IEEE TMI 2020) in shape and difficulty, and need no patient data. The images
have partial volume, a bias field, Rician noise, and contrast and size that vary from case to case.
The reference labels carry the smooth jitter of an observer, so that even a perfect network is
uncertain at borders. Out-of-distribution cases have another contrast, motion, and the falloff of a
nearby coil.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fastcal.core import atomic
from fastcal.core.arrays import Floats
from fastcal.core.doors import bounded
from fastcal.core.errors import DataError
from fastcal.data import anatomy, fields, nifti
from fastcal.data import description as dataset_json
from fastcal.data.anatomy import Body, Grid, Structure
from fastcal.data.dataset import Dataset
from fastcal.data.description import Description
from fastcal.data.fields import Millimetres

Shape = tuple[int, int, int]

MOST_CASES = 10_000

_SUBSLICES = 3
"""Samples across a slice, because slices are several times thicker than pixels."""


@dataclass(frozen=True)
class _Kind:
    body: Body
    labels: tuple[str, ...]
    spacing: Millimetres
    """Default voxel size in mm, for which 64 x 64 x 16 voxels hold the organ."""
    obliquity: float
    """Largest rotation in radians of the slices against the axes of the scanner."""
    observer: float
    """Standard deviation in pixels of the reference contour about the true border."""
    contrasts: dict[str, dict[str, float]]
    """Signal by channel and tissue. A tissue that is absent gives no signal."""
    coil: Millimetres
    """Position of a local coil, as shares of the field of view from its middle."""


_KINDS = {
    "brain": _Kind(
        body=anatomy.brain,
        labels=("background", "non_enhancing", "edema", "enhancing"),
        spacing=(2.5, 2.5, 5.0),
        obliquity=0.08,
        observer=0.55,
        contrasts={
            "T1CE": {"white matter": 0.62, "grey matter": 0.44, "fluid": 0.20, "edema": 0.45,
                     "enhancing": 0.88, "necrosis": 0.32},
            "T2": {"white matter": 0.36, "grey matter": 0.50, "fluid": 0.95, "edema": 0.70,
                   "enhancing": 0.60, "necrosis": 0.78},
            "FLAIR": {"white matter": 0.42, "grey matter": 0.52, "fluid": 0.15, "edema": 0.80,
                      "enhancing": 0.68, "necrosis": 0.50},
        },
        coil=(0.0, -0.6, 0.3),
    ),
    "heart": _Kind(
        body=anatomy.heart,
        labels=("background", "right_ventricle", "myocardium", "left_ventricle"),
        spacing=(2.2, 2.2, 8.0),
        obliquity=0.7,
        observer=0.45,
        contrasts={
            "cine": {"skin fat": 0.75, "lung": 0.10, "liver": 0.38, "muscle": 0.30,
                     "heart fat": 0.55, "blood": 0.82, "myocardium": 0.33},
        },
        coil=(0.1, -0.7, 0.0),
    ),
    "prostate": _Kind(
        body=anatomy.prostate,
        labels=("background", "prostate"),
        spacing=(1.5, 1.5, 4.0),
        obliquity=0.3,
        observer=0.8,
        contrasts={
            "T2": {"fat": 0.66, "muscle": 0.18, "bone": 0.45, "urine": 0.95, "vesicle": 0.80,
                   "stool": 0.30, "coil": 0.05, "capsule": 0.22, "peripheral zone": 0.66,
                   "central gland": 0.40, "nodule": 0.55, "lesion": 0.32},
        },
        coil=(0.0, 0.42, 0.0),
    ),
}  # fmt: skip

KINDS = tuple(_KINDS)


def write_dataset(
    folder: str | Path,
    *,
    kind: str = "brain",
    n_cases: int = 20,
    n_test: int = 0,
    seed: int = 0,
    shape: Shape = (64, 64, 16),
    spacing: Millimetres | None = None,
    ood: bool = False,
) -> Dataset:
    """Write a phantom dataset: ``dataset.json``, ``imagesTr``, ``labelsTr``, and ``...Ts``.

    Case i depends only on kind, seed, i, shape, spacing and ood, not on how many are written. An
    out-of-distribution case has the body of its in-distribution twin, except for the rectum beside
    a prostate. ``dataset.json`` comes last, so that a folder with it is complete.

    Args:
        folder: The folder to write.
        kind: ``"brain"`` (3 channels, 4 classes), ``"heart"`` (1 and 4) or ``"prostate"`` (1 and
            2).
        n_cases: Cases in ``imagesTr`` and ``labelsTr``, with indices 0 to n_cases - 1.
        n_test: Further cases, in ``imagesTs`` and ``labelsTs``.
        seed: Seed of all random numbers.
        shape: Voxels along x, y and z.
        spacing: Voxel size in mm. By default, 64 x 64 x 16 voxels hold the organ, and the size
            scales with the shape.
        ood: Use another contrast, motion ghosts, and the signal of a local coil.

    Returns:
        The dataset, opened.

    Raises:
        ValueError: The kind is unknown, or a count or extent is out of range.
        DataError: The folder holds a dataset already.

    Example:
        >>> write_dataset("prostates", kind="prostate", n_cases=8).num_classes  # doctest: +SKIP
        2
    """
    recipe = _recipe(kind)
    bounded(n_cases, "n_cases", MOST_CASES)
    bounded(n_test, "n_test", MOST_CASES, least=0)
    folder = Path(folder)
    if (folder / "dataset.json").exists():
        raise DataError(folder, "holds a dataset already")
    for index in range(n_cases + n_test):
        case = make_case(kind=kind, index=index, seed=seed, shape=shape, spacing=spacing, ood=ood)
        part = "Tr" if index < n_cases else "Ts"
        name = f"{kind}_{index:03d}"
        for directory in (folder / f"images{part}", folder / f"labels{part}"):
            directory.mkdir(parents=True, exist_ok=True)
        for channel, image in enumerate(case.image):
            path = folder / f"images{part}" / f"{name}_{channel:04d}.nii.gz"
            nifti.write(path, image, case.geometry, dtype="int")
        nifti.write(
            folder / f"labels{part}" / f"{name}.nii.gz", case.label, case.geometry, dtype="int"
        )
    description = Description(
        name=f"phantom_{kind}{'_ood' if ood else ''}",
        channel_names=tuple(recipe.contrasts),
        labels={label: value for value, label in enumerate(recipe.labels)},
        ignore_label=None,
        label_groups=None,
        regions_class_order=None,
        file_ending=".nii.gz",
    )
    atomic.write_json(
        folder / "dataset.json", dataset_json.to_json(description, num_training=n_cases)
    )
    return Dataset.open(folder)


@dataclass(frozen=True, eq=False)
class PhantomCase:
    """One phantom in memory."""

    image: NDArray[np.int16]
    """``[Ch, X, Y, Z]`` in units of the scanner."""
    label: NDArray[np.uint8]
    """``[X, Y, Z]``, as the observer drew it."""
    truth: Floats
    """``[C, X, Y, Z]``: the share of each class in each voxel, without an observer."""
    geometry: nifti.Geometry


def make_case(
    *,
    kind: str = "brain",
    index: int = 0,
    seed: int = 0,
    shape: Shape = (64, 64, 16),
    spacing: Millimetres | None = None,
    ood: bool = False,
) -> PhantomCase:
    """Make one case of `write_dataset` in memory; see there for arguments and errors."""
    recipe = _recipe(kind)
    if len(shape) != 3 or min(shape) < 4:
        raise ValueError(f"shape must be three extents of at least 4, got {shape}")
    if spacing is None:
        x, y, z = (
            step * usual / extent
            for step, usual, extent in zip(recipe.spacing, (64, 64, 16), shape, strict=True)
        )
        spacing = (x, y, z)
    if len(spacing) != 3 or min(spacing) <= 0:
        raise ValueError(f"spacing must be three positive lengths in mm, got {spacing}")
    key = [seed, KINDS.index(kind), index]
    body, observer, scanner, place = (np.random.default_rng([*key, part]) for part in range(4))

    fine = Grid((shape[0], shape[1], shape[2] * _SUBSLICES),
                (spacing[0], spacing[1], spacing[2] / _SUBSLICES))  # fmt: skip
    structures = recipe.body(fine, body, ood)
    pixel = min(spacing[:2])
    truth = _class_shares(structures, len(recipe.labels), pixel)
    contours = [_redrawn(structure, fine, observer, recipe.observer * pixel)
                for structure in structures]  # fmt: skip
    label = _class_shares(contours, len(recipe.labels), pixel).argmax(axis=0).astype(np.uint8)

    image = _acquire(structures, recipe, Grid(shape, spacing), scanner, ood)
    affine = _affine(place, shape, spacing, recipe.obliquity)
    return PhantomCase(image, label, truth, nifti.Geometry.from_affine(affine, shape))


def _recipe(kind: str) -> _Kind:
    if kind not in _KINDS:
        raise ValueError(f"kind must be one of {', '.join(KINDS)}, got {kind!r}")
    return _KINDS[kind]


def _share(phi: Floats, pixel: float) -> Floats:
    """Return the share of each voxel inside, by a ramp in plane and samples across the slice."""
    inside = np.clip(0.5 + phi / pixel, 0.0, 1.0)
    x, y, z = inside.shape
    share: Floats = inside.reshape(x, y, z // _SUBSLICES, _SUBSLICES).mean(axis=3)
    return share


def _class_shares(structures: list[Structure], num_classes: int, pixel: float) -> Floats:
    labelled = [s for s in structures if s.label is not None]
    x, y, z = labelled[0].phi.shape
    shares = np.zeros((num_classes, x, y, z // _SUBSLICES))
    shares[0] = 1.0
    for structure in labelled:
        share = _share(structure.phi, pixel)
        shares *= 1.0 - share
        shares[structure.label] += share
    return shares


def _redrawn(
    structure: Structure, grid: Grid, rng: np.random.Generator, deviation: float
) -> Structure:
    """Draw a contour as an observer would, smoothly off by ``deviation`` mm in each slice."""
    if structure.label is None:
        return structure
    slice_thickness = grid.spacing[2] * _SUBSLICES
    jitter = fields.smooth_field(
        rng, grid.shape, grid.spacing, (4 * grid.spacing[0], 4 * grid.spacing[1], slice_thickness)
    )
    return replace(
        structure, phi=structure.phi + deviation * (jitter + 0.4 * rng.standard_normal())
    )


def _acquire(
    structures: list[Structure],
    recipe: _Kind,
    grid: Grid,
    rng: np.random.Generator,
    ood: bool,
) -> NDArray[np.int16]:
    pixel = min(grid.spacing[:2])
    shares = [_share(structure.phi, pixel) for structure in structures]
    body = shares[0]
    texture = fields.smooth_field(rng, grid.shape, grid.spacing, 1.2 * pixel)
    channels = []
    for contrast in recipe.contrasts.values():
        tissues = sorted(contrast)
        signals = {t: contrast[t] * rng.uniform(0.9, 1.1) for t in tissues}
        gamma, fade = rng.uniform(1.4, 2.0), rng.uniform(0.15, 0.35)
        if ood:
            signals = {t: (1 - fade) * s**gamma + fade * min(s, 0.5) for t, s in signals.items()}
        image = np.zeros(grid.shape)
        for structure, share in zip(structures, shares, strict=True):
            image += share * (signals[structure.tissue] - image)
        image *= 1.0 + 0.06 * texture
        image = fields.blur(image, grid.spacing, (0.45 * pixel, 0.45 * pixel, 0.0))
        image = np.clip(image, 0.0, None)

        bias = fields.smooth_field(rng, grid.shape, grid.spacing, 0.25 * max(grid.extent))
        image *= np.exp(rng.uniform(0.08, 0.2) * bias)
        sigma = rng.uniform(0.03, 0.06)
        if ood:
            image *= _coil_gain(grid, recipe.coil, rng)
            image = fields.motion_ghosts(rng, image, rng.uniform(0.8, 2.0))
            sigma *= 1.2
        image = fields.rician(rng, image, sigma)
        if recipe.body is anatomy.brain:
            image *= body > 0
        channels.append(image * rng.uniform(400.0, 1100.0))
    return np.rint(np.stack(channels)).clip(0, np.iinfo(np.int16).max).astype(np.int16)


def _coil_gain(grid: Grid, place: Millimetres, rng: np.random.Generator) -> Floats:
    """Return the gain of a small receive coil, bright beside it and faint a few radii away."""
    x, y, z = (share * extent for share, extent in zip(place, grid.extent, strict=True))
    x, z = x + rng.normal(0.0, 3.0), z + rng.normal(0.0, 3.0)
    squared = (grid.x - x) ** 2 + (grid.y - y) ** 2 + (0.5 * (grid.z - z)) ** 2
    reach = rng.uniform(0.28, 0.4) * max(grid.extent[:2])
    gain: Floats = 0.4 + 2.0 / (1.0 + squared / reach**2) ** 1.5
    return gain


def _affine(
    rng: np.random.Generator, shape: Shape, spacing: Millimetres, obliquity: float
) -> Floats:
    """Draw an affine whose indices run to the left, the back and up, turned about all axes."""
    turns = rng.uniform(-obliquity, obliquity, size=3)
    rotation = np.eye(3)
    for axis, turn in enumerate(turns):
        i, j = [a for a in range(3) if a != axis]
        step = np.eye(3)
        step[i, i] = step[j, j] = np.cos(turn)
        step[i, j], step[j, i] = -np.sin(turn), np.sin(turn)
        rotation = rotation @ step
    affine: Floats = np.eye(4)
    affine[:3, :3] = rotation @ np.diag([-spacing[0], -spacing[1], spacing[2]])
    middle = rng.normal(0.0, 15.0, size=3)
    affine[:3, 3] = middle - affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return affine.astype(np.float32).astype(np.float64)
