"""Augmentation: geometry that is exact, intensities by formula, parameters from the seed alone."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from scipy.ndimage import gaussian_filter
from torch import Tensor
from torch.nn import functional

from fastcal.data.resample import resample
from fastcal.train import intensity
from fastcal.train.augment import augment, source_extents
from fastcal.train.augmentation import AugmentationConfig
from fastcal.train.spatial import Warp, draw_warp, warp

EVERYTHING = AugmentationConfig(
    rotation=1, scaling=1, elastic=1, mirror=0.5, noise=1, blur=1, brightness=1, shift=1,
    contrast=1, low_resolution=1, inverted_gamma=1, gamma=1,
)  # fmt: skip
SPATIAL = AugmentationConfig(rotation=0.7, scaling=0.7, elastic=0.7, mirror=0.5)
SHAPES = [(24, 20), (16, 14, 12)]


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def blocks(shape: tuple[int, ...]) -> Tensor:
    """Labels 0, 1, 2, 3 in large boxes, one item after another turned round."""
    label = torch.zeros(shape, dtype=torch.uint8)
    label[: shape[0] // 2] = 1
    label[..., shape[-1] // 2 :] += 2
    return torch.stack([label, label.flip(0), label, label.flip(-1)])


# --- geometry


@pytest.mark.parametrize("shape", SHAPES)
def test_labels_move_with_their_voxels(shape: tuple[int, ...]) -> None:
    extents = source_extents(SPATIAL, seed=1, batch=4, patch=shape)
    assert all(q >= p and (q - p) % 2 == 0 for q, p in zip(extents, shape, strict=True))
    labels = blocks(extents)
    images = labels[:, None].float()
    moved, moved_labels = augment(images, labels, SPATIAL, seed=1, patch=shape)
    assert moved.shape == (4, 1, *shape)
    assert (moved_labels.dtype, moved_labels.shape) == (torch.uint8, (4, *shape))
    # Linear and nearest differ at edges alone, and there by less than half a step.
    apart = (moved[:, 0] - moved_labels).abs()
    assert (apart < 1e-4).float().mean() > 0.7
    assert apart.max() <= 1.5 + 1e-4
    assert not torch.equal(moved_labels, labels)


@pytest.mark.parametrize("shape", [(8, 8), (9, 9), (6, 6, 6)])
def test_a_quarter_turn_is_exact(shape: tuple[int, ...]) -> None:
    dims = len(shape)
    images, labels = noise(2, 3, *shape), torch.arange(2 * math.prod(shape)).view(2, *shape)
    for first, second in [(0, 1), (0, 2), (1, 2)][: 1 if dims == 2 else 3]:
        matrix = np.eye(dims)
        matrix[[first, second], [first, second]] = 0
        matrix[first, second], matrix[second, first] = -1, 1
        drawn = Warp([1], matrix[None], None)
        turned, turned_labels = warp(images, labels, drawn, shape)
        # Offset (r, c) takes its value from (-c, r).
        expected = torch.rot90(images[1], -1, (1 + first, 1 + second))
        torch.testing.assert_close(turned[1], expected, atol=1e-5, rtol=0)
        assert torch.equal(turned_labels[1], torch.rot90(labels[1], -1, (first, second)))
        assert torch.equal(turned[0], images[0])


@pytest.mark.parametrize("shape", SHAPES)
def test_a_ramp_is_seen_where_the_warp_says_and_nothing_of_it_is_missing(
    shape: tuple[int, ...],
) -> None:
    config = AugmentationConfig(rotation=1, scaling=1, elastic=1, elastic_spacing=8)
    drawn = draw_warp(config, np.random.default_rng(3), 2, shape)
    assert drawn.items == [0, 1]
    assert drawn.displacements is not None
    extents = drawn.source_extents(shape)
    slope = torch.tensor([0.5, -0.3, 0.2][: len(shape)])

    def offsets(sizes: tuple[int, ...]) -> Tensor:
        axes = [torch.arange(n) - (n - 1) / 2 for n in sizes]
        return torch.stack(torch.meshgrid(*axes, indexing="ij"), -1)

    images = (offsets(extents) @ slope + 50).expand(2, 1, *extents)
    moved, _ = warp(images, torch.zeros(2, *extents), drawn, shape)
    for item in range(2):
        field = torch.from_numpy(drawn.displacements[item : item + 1])
        displaced = resample(field, shape, interpolation="cubic")[0].movedim(0, -1)
        matrix = torch.from_numpy(drawn.matrices[item]).float()
        expected = (offsets(shape) + displaced) @ matrix.T @ slope + 50
        # A border voxel mixes with the zeros beyond.
        inner = (slice(1, -1),) * len(shape)
        torch.testing.assert_close(moved[item, 0][inner], expected[inner], atol=1e-3, rtol=0)
    assert moved.min() > 20, "zeros from beyond the source would be seen"


def test_mirroring_is_exact_and_keeps_to_its_axes() -> None:
    images, labels = noise(64, 1, 4, 5, 6), torch.arange(64 * 120).view(64, 4, 5, 6)
    config = AugmentationConfig(mirror=0.5, mirror_axes=(0, 2))
    moved, moved_labels = augment(images, labels, config, seed=0)
    counts = {(): 0, (0,): 0, (2,): 0, (0, 2): 0}
    for item in range(64):
        (axes,) = [
            axes for axes in counts if torch.equal(moved_labels[item], labels[item].flip(axes))
        ]
        assert torch.equal(moved[item, 0], images[item, 0].flip(axes))
        counts[axes] += 1
    assert min(counts.values()) > 6


def test_flat_volumes_turn_in_their_plane_alone() -> None:
    config = AugmentationConfig(rotation=1, scaling=1, elastic=1)
    drawn = draw_warp(config, np.random.default_rng(0), 8, (64, 64, 8))
    expected = np.broadcast_to([0.0, 0.0, 1.0], (8, 3))
    np.testing.assert_array_equal(drawn.matrices[:, 2], expected)
    np.testing.assert_array_equal(drawn.matrices[:, :, 2], expected)
    assert drawn.displacements is not None
    assert (drawn.displacements[:, 2] == 0).all()
    angles = [np.arctan2(matrix[1, 0], matrix[0, 0]) for matrix in drawn.matrices]
    assert np.abs(angles).max() > math.radians(30), "nnU-Net turns planes all the way"


# --- intensities


@pytest.mark.parametrize("shape", SHAPES)
def test_blur_is_the_gaussian_filter_of_scipy(shape: tuple[int, ...]) -> None:
    images, sigmas = noise(2, 2, *shape), torch.tensor([[0.5, 1.0], [0.0, 0.8]])
    blurred = intensity.blur(images, sigmas, largest=1.0)
    for item in range(2):
        for channel in range(2):
            sigma = float(sigmas[item, channel])
            if sigma == 0:
                assert torch.equal(blurred[item, channel], images[item, channel])
                continue
            expected = gaussian_filter(
                images[item, channel].double(), sigma, mode="nearest", radius=3
            )
            np.testing.assert_allclose(blurred[item, channel], expected, atol=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
def test_low_resolution_is_nearest_down_and_linear_up(shape: tuple[int, ...]) -> None:
    images, scales = noise(3, 1, *shape), torch.tensor([[0.5], [0.77], [1.0]])
    lowered = intensity.lower_resolution(images, scales)
    mode = "bilinear" if len(shape) == 2 else "trilinear"
    for item, scale in enumerate(scales[:, 0].tolist()):
        coarse = [round(extent * scale) for extent in shape]
        down = functional.interpolate(images[item : item + 1], size=coarse, mode="nearest-exact")
        expected = functional.interpolate(down, size=shape, mode=mode)
        torch.testing.assert_close(lowered[item : item + 1], expected, atol=1e-5, rtol=0)
    assert torch.equal(lowered[2], images[2])


def test_brightness_shift_contrast_and_gamma_follow_their_formulas() -> None:
    images = noise(2, 2, 10, 10) + 3
    factors = torch.tensor([[0.75, 1.0], [1.25, 2.0]])
    wide = factors[..., None, None]
    assert torch.equal(intensity.brighten(images, factors), images * wide)
    assert torch.equal(intensity.shift(images, factors), images + wide)
    mean = images.mean((2, 3), keepdim=True)
    low, high = images.amin((2, 3), keepdim=True), images.amax((2, 3), keepdim=True)
    contrast = intensity.change_contrast(images, factors)
    torch.testing.assert_close(contrast, ((images - mean) * wide + mean).clamp(low, high))
    curved = intensity.apply_gamma(images, factors)
    torch.testing.assert_close(curved.mean((2, 3)), images.mean((2, 3)))
    torch.testing.assert_close(curved.std((2, 3)), images.std((2, 3)))
    torch.testing.assert_close(curved[0, 1], images[0, 1], atol=1e-5, rtol=0)
    power = ((images - low) / (high - low)) ** wide
    standard = (power - power.mean((2, 3), keepdim=True)) / power.std((2, 3), keepdim=True)
    expected = standard * images.std((2, 3), keepdim=True) + mean
    torch.testing.assert_close(curved, expected, atol=1e-5, rtol=0)
    inverted = intensity.apply_gamma(images, factors, invert=True)
    torch.testing.assert_close(inverted, -intensity.apply_gamma(-images, factors))
    flat = torch.full((1, 1, 4, 4), 2.0)
    torch.testing.assert_close(intensity.apply_gamma(flat, torch.full((1, 1), 1.3)), flat)


def test_noise_has_its_deviation_and_one_for_all_channels() -> None:
    config = AugmentationConfig(noise=1, noise_sigma=(0.2, 0.8))
    images, labels = torch.zeros(6, 2, 64, 64), torch.zeros(6, 64, 64)
    noisy, _ = augment(images, labels, config, seed=5)
    sigmas = noisy.std((2, 3))
    assert ((sigmas > 0.18) & (sigmas < 0.85)).all()
    torch.testing.assert_close(sigmas[:, 0], sigmas[:, 1], rtol=0.06, atol=0)
    assert sigmas[:, 0].std() > 0.05
    assert abs(float(noisy.mean())) < 0.01


# --- from the seed alone


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", SHAPES)
def test_augmentation_is_a_pure_function_of_the_seed(
    shape: tuple[int, ...], dtype: torch.dtype
) -> None:
    images, labels = noise(4, 2, *shape).to(dtype), blocks(shape)
    before = images.clone(), labels.clone()
    first, first_labels = augment(images, labels, EVERYTHING, seed=7)
    torch.randn(5)
    again, again_labels = augment(images, labels, EVERYTHING, seed=7)
    assert (first.dtype, first.shape) == (dtype, images.shape)
    assert torch.equal(first, again)
    assert torch.equal(first_labels, again_labels)
    assert torch.equal(images, before[0])
    assert torch.equal(labels, before[1])
    assert first.isfinite().all()
    assert not torch.equal(augment(images, labels, EVERYTHING, seed=8)[1], first_labels)


def test_every_transform_has_a_stream_of_its_own() -> None:
    images, labels = noise(8, 1, 24, 20), blocks((24, 20)).repeat(2, 1, 1)
    some = AugmentationConfig(rotation=0.5, brightness=0.5)
    more = AugmentationConfig(rotation=0.5, brightness=0.5, mirror=0.0, gamma=0.0, blur=0.01)
    assert torch.equal(
        augment(images, labels, some, seed=3)[0], augment(images, labels, more, seed=3)[0]
    )


@pytest.mark.parametrize(
    ("name", "probability"), [("brightness", 0.15), ("gamma", 0.3), ("rotation", 0.2)]
)
def test_items_are_struck_as_often_as_the_settings_say(name: str, probability: float) -> None:
    config = AugmentationConfig.model_validate({name: probability})
    images, labels = noise(50, 1, 6, 6), torch.zeros(50, 6, 6)
    struck = 0
    for seed in range(20):
        changed, _ = augment(images, labels, config, seed=seed)
        struck += int((changed != images).flatten(1).any(1).sum())
    assert abs(struck / 1000 - probability) < 4 * math.sqrt(probability * (1 - probability) / 1000)


def test_half_of_the_exponents_are_below_one() -> None:
    config = AugmentationConfig(gamma=1, gamma_range=(0.7, 1.5))
    ramp = torch.linspace(0, 1, 101).view(1, 1, 101, 1).expand(200, 1, 101, 1)
    curved, _ = augment(ramp, torch.zeros(200, 101, 1), config, seed=0)
    scaled = (curved - curved.amin(2, True)) / (curved.amax(2, True) - curved.amin(2, True))
    exponents = scaled[:, 0, 50, 0].log() / math.log(0.5)
    assert exponents.min() + 1e-3 >= 0.7
    assert exponents.max() - 1e-3 <= 1.5
    assert 70 < int((exponents < 1).sum()) < 130


# --- settings


def test_nothing_happens_unless_asked_for_and_nnunet_is_a_word() -> None:
    assert not AugmentationConfig().active
    images, labels = noise(2, 1, 8, 8), torch.ones(2, 8, 8)
    same, same_labels = augment(images, labels, AugmentationConfig(), seed=0)
    assert torch.equal(same, images)
    assert torch.equal(same_labels, labels)
    nnunet = AugmentationConfig.model_validate("nnunet")
    assert (nnunet.rotation, nnunet.gamma, nnunet.mirror, nnunet.elastic) == (0.2, 0.3, 0.5, 0)
    other = AugmentationConfig.model_validate({"preset": "nnunet", "gamma": 0})
    assert (other.gamma, other.blur, other.active) == (0, 0.2, True)
    assert AugmentationConfig.model_validate(other.model_dump()) == other


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rotation": 1.5}, "less than or equal to 1"),
        ({"rotations": 0.5}, "Extra inputs are not permitted"),
        (
            {"scaling_range": (0.0, 1.4)},
            r"scaling_range\n.*two numbers with 0\.01 <= low",
        ),
        ({"gamma_range": (1.5, 0.7)}, r"gamma_range\n.*low <= high"),
        ({"low_resolution_range": (0.5, 2.0)}, r"low_resolution_range\n.*high <= 1\.0"),
        ({"mirror_axes": (3,)}, r"mirror_axes\.0\n.*less than or equal to 2"),
        ({"preset": "monai"}, "'none' or 'nnunet'"),
    ],
)
def test_a_bad_setting_is_named(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        AugmentationConfig.model_validate(settings)
