"""Shifts of images: what each does, where, and that it follows from its seed alone."""

from __future__ import annotations

import numpy as np
import pytest

from fastcal.data import shifts
from fastcal.data.shifts import shifted


def volume() -> np.ndarray:
    random = np.random.default_rng(0)
    smooth = np.add.outer(np.sin(np.arange(24) / 3), np.cos(np.arange(18) / 4))
    return (200 + 80 * smooth[None, :, :, None] + random.normal(0, 3, (2, 24, 18, 6))).astype(
        np.float32
    )


@pytest.mark.parametrize("name", shifts.SHIFTS)
def test_a_shift_keeps_shape_and_units_and_follows_from_its_seed(name: str) -> None:
    image = volume()
    found = shifted(image, name, seed=5)
    assert found.shape == image.shape
    assert np.isfinite(found).all()
    assert np.array_equal(found, shifted(image, name, seed=5))
    assert not np.allclose(found, image, atol=1)
    scaled = shifted(1000 * image.astype(np.float64), name, seed=5)
    assert np.allclose(scaled, 1000 * found, rtol=1e-4)


def test_contrast_is_a_gamma_in_the_range_of_the_image() -> None:
    image = np.linspace(0, 1, 1000).reshape(1, 10, 10, 10)
    low, high = np.percentile(image, (1, 99))
    x = np.clip((image - low) / (high - low), 0, 1)
    found = (shifted(image, "contrast", seed=0) - low) / (high - low)
    inner = (x > 0) & (x < 1)
    gamma = np.log(found[inner]) / np.log(x[inner])
    assert np.allclose(gamma, gamma[0])
    assert gamma[0] == pytest.approx(2.0) or gamma[0] == pytest.approx(0.5)
    seen = {round(float(shifted(image, "contrast", seed=s)[0, 5, 5, 5]), 6) for s in range(8)}
    assert len(seen) == 2


def test_noise_is_rician_with_its_share_of_the_range() -> None:
    image = np.zeros((1, 40, 40, 10))
    image[:, 20:] = 10.0
    found = shifted(image, "noise", seed=1)
    bright, dark = found[:, 20:], found[:, :20]
    assert bright.std() == pytest.approx(1.5, rel=0.05)
    # The magnitude of two Gaussians has the mean sigma sqrt(pi / 2) (Rayleigh).
    assert dark.mean() == pytest.approx(1.5 * np.sqrt(np.pi / 2), rel=0.05)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_resolution_and_motion_act_within_slices_alone(axis: int) -> None:
    image = np.zeros((1, 18, 18, 18))
    image[0, 9, 9, 9] = 1.0
    image[0, :2] = 0.5  # so that the range is not empty
    for name in ("resolution", "motion"):
        whole = shifted(image, name, slice_axis=axis, seed=2)
        other = image.copy()
        where: list[slice | int] = [slice(None)] * 3
        where[axis] = 3
        other[(0, *where)] += 1e-3
        changed = np.abs(shifted(other, name, slice_axis=axis, seed=2) - whole)
        per_slice = changed.max(axis=tuple(k for k in range(4) if k != 1 + axis))
        # The range moves a little, which scales everything; the slice itself changes far more.
        assert per_slice.argmax() == 3


def test_resolution_is_the_mean_over_blocks() -> None:
    image = np.random.default_rng(0).random((1, 9, 9, 3))
    found = shifted(image, "resolution")
    blocks = image.reshape(1, 3, 3, 3, 3, 3).mean((2, 4))
    # In the middle of a block, linear interpolation gives the block's own value.
    assert np.allclose(found[:, 1::3, 1::3], blocks)


def test_motion_of_a_constant_image_changes_nothing() -> None:
    image = np.full((1, 12, 12, 4), 7.0)
    assert np.allclose(shifted(image, "motion", seed=3), 7.0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "blur"}, "name must be 'contrast', 'motion', 'noise' or 'resolution', got"),
        ({"name": "noise", "slice_axis": 3}, "slice_axis must be 0, 1 or 2, got 3"),
    ],
)
def test_bad_shifts_are_named(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        shifted(np.zeros((1, 4, 4, 4)), **arguments)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"image must have shape \[Ch, X, Y, Z\], got"):
        shifted(np.zeros((4, 4, 4)), "noise")
