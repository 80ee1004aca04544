"""From volumes to items and back: geometry to the voxel, intensities by formula."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from fastcal.data.intensities import Window, foreground_windows, normalise
from fastcal.data.nifti import Geometry
from fastcal.data.preprocess import Preprocessing
from fastcal.data.resample import coarse_axis, resample, resample_labels

AS_THEY_ARE = (Window(-1e9, 1e9, 0.0, 1.0),)
SHAPE = (12, 15, 10)


def turned(order: tuple[int, int, int], signs: tuple[int, int, int]) -> np.ndarray:
    """An affine whose voxel axis ``k`` runs along RAS axis ``order[k]``, slightly oblique."""
    affine = np.eye(4)
    affine[:3, :3] = 0
    for axis, (world, sign, step) in enumerate(zip(order, signs, (1.0, 1.5, 2.5), strict=True)):
        affine[world, axis] = sign * step
    angle = 0.1
    oblique = np.eye(3)
    oblique[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    affine[:3, :3] = oblique @ affine[:3, :3]
    affine[:3, 3] = (-20, 30, 7)
    return affine


def ramp(affine: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """A linear function of the position in space, at every voxel."""
    voxels = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij"), -1)
    world = voxels @ affine[:3, :3].T + affine[:3, 3]
    return (world @ (0.3, -0.7, 0.5)).astype(np.float32)


@pytest.mark.parametrize(
    ("order", "signs"),
    [((0, 1, 2), (1, 1, 1)), ((0, 1, 2), (-1, -1, 1)), ((2, 0, 1), (1, -1, -1))],
)
@pytest.mark.parametrize(
    ("dims", "options"),
    [
        (3, {"spacing": (1.2, 1.2, 1.2), "size": (40, 40, 40)}),
        (3, {"spacing": (2.0, 1.5, 1.0), "size": (4, 9, 30), "interpolation": "cubic"}),
        (3, {"reorient": False}),
        (2, {"spacing": (1.1, 1.9), "reorient": True, "slice_axis": 1}),
        (2, {"spacing": (0.8, 2.0), "size": (30, 30), "slice_axis": 0}),
    ],
)
def test_what_lies_linearly_in_space_comes_back_where_it_was(
    order: tuple[int, int, int],
    signs: tuple[int, int, int],
    dims: int,
    options: dict[str, object],
) -> None:
    like = Geometry(SHAPE, turned(order, signs), None)
    image = ramp(like.affine, SHAPE)
    preprocessing = Preprocessing(dims=dims, normalisation="ct", windows=AS_THEY_ARE, **options)
    items = preprocessing.apply(image[None], like)
    assert items.shape[2:] == tuple(
        max(size, extent)
        for size, extent in zip(
            preprocessing.size or (0,) * dims, preprocessing.extents(like), strict=True
        )
    )
    back = preprocessing.invert(items, like)
    assert back.shape == (1, *SHAPE)
    inside = (0, *[slice(3, -3)] * 3)
    # Filters that shrink an axis keep a ramp to a fiftieth of a voxel; half of one is 0.15 here.
    np.testing.assert_allclose(back[inside], image[inside[1:]], atol=0.04)


def test_reoriented_axes_run_right_anterior_and_superior() -> None:
    affine = turned((2, 0, 1), (1, -1, -1))
    like = Geometry(SHAPE, affine, None)
    preprocessing = Preprocessing(dims=3, normalisation="ct", windows=AS_THEY_ARE)
    (items,) = preprocessing.apply(ramp(affine, SHAPE)[None], like)
    # Voxel axes 1, 2 and 0 are R, A and S; the first two run backwards.
    expected = np.transpose(ramp(affine, SHAPE)[:, ::-1, ::-1], (1, 2, 0))
    np.testing.assert_array_equal(items[0], expected)
    assert preprocessing.own_spacing(like) == pytest.approx((1.5, 2.5, 1.0))
    assert items.is_contiguous()


def test_a_crop_of_a_volume_comes_back_as_background_around_it() -> None:
    like = Geometry((9, 6, 5), np.diag([-1.0, 1.0, 1.0, 1.0]), None)
    label = np.ones((9, 6, 5), np.uint8)
    preprocessing = Preprocessing(dims=3, size=(4, 8, 5))
    cut = preprocessing.apply_label(label, like, crop=True)
    assert cut.shape == (1, 4, 8, 5)
    back = preprocessing.invert(torch.stack([cut == 0, cut == 1], 1).float(), like)
    # Reoriented, two voxels are cut before and three behind; in the file it is the other way.
    assert back[1, :, 0, 0].tolist() == [0, 0, 0, 1, 1, 1, 1, 0, 0]
    assert torch.equal(back.sum(0), torch.ones(9, 6, 5))


def test_slices_far_apart_are_copied_and_not_mixed() -> None:
    assert coarse_axis((1.0, 1.0, 5.0), (1.0, 1.0, 2.5)) == 2
    assert coarse_axis((1.0, 1.0, 2.9), (1.0, 1.0, 2.5)) is None
    assert coarse_axis((5.0, 5.0, 1.0), (1.0, 1.0, 1.0)) is None
    assert coarse_axis((1.0, 1.2, 1.0), (6.0, 1.0, 1.0)) == 0
    like = Geometry((8, 8, 4), np.diag([1.0, 1.0, 6.0, 1.0]), None)
    image = np.random.default_rng(0).random((1, 8, 8, 4), dtype=np.float32)
    label = (image[0] > 0.5).astype(np.uint8)
    preprocessing = Preprocessing(
        dims=3,
        spacing=(1.0, 1.0, 3.0),
        normalisation="ct",
        windows=AS_THEY_ARE,
        label_interpolation="linear",
    )
    items = preprocessing.apply(image, like)
    assert torch.equal(items[0, 0], torch.from_numpy(image[0]).repeat_interleave(2, 2))
    assert torch.equal(
        preprocessing.apply_label(label, like)[0], torch.from_numpy(label).repeat_interleave(2, 2)
    )


@pytest.mark.parametrize("extents", [(5, 13, 8), (14, 7, 20)])
@pytest.mark.parametrize("interpolation", ["linear", "cubic"])
def test_three_axes_are_filtered_one_after_another_as_torch_filters_two(
    extents: tuple[int, int, int], interpolation: str
) -> None:
    items = torch.rand(2, 3, 9, 10, 11, generator=torch.Generator().manual_seed(0)).double()
    mode = {"linear": "bilinear", "cubic": "bicubic"}[interpolation]
    expected = items
    for axis, extent in enumerate(extents, start=2):
        lines = expected.movedim(axis, -1)
        flat = lines.flatten(0, -2)[None, None]
        flat = torch.nn.functional.interpolate(
            flat, size=(flat.shape[2], extent), mode=mode, antialias=True
        )
        expected = flat.view(*lines.shape[:-1], extent).movedim(-1, axis)
    torch.testing.assert_close(
        resample(items, extents, interpolation=interpolation), expected, atol=1e-12, rtol=0
    )


def test_labels_take_the_largest_share_of_a_voxel_or_the_nearest() -> None:
    line = torch.tensor([0, 0, 7, 7, 7, 3, 3, 3])[None, None, None]
    line = line.expand(1, 1, 4, 8)
    shares = resample_labels(line, (4, 4), interpolation="linear")
    assert shares[0, 0, 0].tolist() == [0, 7, 3, 3], "of equal shares the lower label"
    assert shares.dtype == torch.int64
    doubled = resample_labels(line, (4, 16), interpolation="linear")
    assert torch.equal(doubled, line.repeat_interleave(2, 3))
    nearest = resample_labels(line, (2, 4))
    assert nearest[0, 0, 0].tolist() == [0, 7, 3, 3]
    assert nearest.shape == (1, 1, 2, 4)


def test_intensities_follow_their_scheme() -> None:
    random = np.random.default_rng(1)
    image = random.normal(100, 30, (2, 6, 7, 8)).astype(np.float32)
    image[:, :2] = 0
    options = {"percentiles": (5.0, 95.0), "windows": None}
    whole = normalise(image, ("zscore", "percentile"), nonzero=False, **options)
    first = image[0].astype(np.float64)
    np.testing.assert_allclose(whole[0], (first - first.mean()) / first.std(), atol=1e-5)
    low, high = np.percentile(image[1].astype(np.float64), (5, 95))
    np.testing.assert_allclose(whole[1], np.clip((image[1] - low) / (high - low), 0, 1), atol=1e-6)
    inside = normalise(image, ("zscore", "zscore"), nonzero=True, **options)
    assert (inside[:, :2] == 0).all()
    np.testing.assert_allclose(inside[:, 2:].mean((1, 2, 3)), 0, atol=1e-5)
    np.testing.assert_allclose(inside[:, 2:].std((1, 2, 3)), 1, atol=1e-5)
    constant = normalise(np.full_like(image, 5), ("zscore", "percentile"), nonzero=False, **options)
    assert (constant == 0).all()


def test_a_ct_window_is_that_of_the_foreground_of_all_cases() -> None:
    random = np.random.default_rng(2)
    samples = [random.normal(50, 20, (1, n)).astype(np.float32) for n in (400, 700)]
    pooled = np.concatenate(samples, 1)[0].astype(np.float64)
    (window,) = foreground_windows(samples)
    low, high = np.percentile(pooled, (0.5, 99.5))
    assert window == pytest.approx((low, high, pooled.mean(), pooled.std()))
    image = random.normal(50, 60, (1, 5, 5, 5))
    result = normalise(image, ("ct",), percentiles=(0, 100), nonzero=False, windows=(window,))
    expected = (np.clip(image, low, high) - pooled.mean()) / pooled.std()
    np.testing.assert_allclose(result, expected, atol=1e-5)
    with pytest.raises(ValueError, match="no case has a foreground voxel"):
        foreground_windows([np.empty((1, 0))])
    with pytest.raises(ValueError, match="no case has a foreground voxel"):
        foreground_windows([])


def test_settings_survive_json_and_those_of_older_runs_are_slices() -> None:
    settings = Preprocessing(
        dims=3,
        spacing=(1.0, 1.0, 2.0),
        normalisation=("ct", "zscore"),
        windows=(Window(0, 1, 2, 3), Window(4, 5, 6, 7)),
    )
    assert Preprocessing.from_json(json.loads(json.dumps(settings.to_json()))) == settings
    older = {"slice_axis": 1, "spacing": [1.0, 2.0], "size": None, "percentiles": [1.0, 99.0]}
    read = Preprocessing.from_json(older)
    assert read == Preprocessing(slice_axis=1, spacing=(1.0, 2.0))
    assert (read.dims, read.reorients, read.label_interpolation) == (2, False, "nearest")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dims": 4}, "dims must be 2 or 3, got 4"),
        (
            {"dims": 3, "spacing": (1.0, 1.0)},
            r"spacing must be 3 positive numbers, got \(1\.0, 1\.0\)",
        ),
        ({"size": (8, 0)}, "size must be"),
        ({"normalisation": "minmax"}, "normalisation must be one of percentile.*, got 'minmax'"),
        ({"normalisation": "ct"}, "windows must hold .* for 'ct', got None"),
        ({"percentiles": (99.0, 1.0)}, "percentiles must be"),
        (
            {"crop_to_nonzero": True, "size": (8, 8)},
            "crop_to_nonzero must be False where size is set",
        ),
        ({"interpolation": "nearest"}, "^interpolation must be .*, got 'nearest'"),
        ({"label_interpolation": "cubic"}, "label_interpolation must be .*, got 'cubic'"),
    ],
)
def test_a_bad_setting_is_named(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Preprocessing(**options)


def test_a_bad_image_is_named() -> None:
    like = Geometry((3, 3, 3), np.eye(4), None)
    image = np.zeros((2, 3, 3, 3), np.float32)
    with pytest.raises(ValueError, match=r"image must have shape .*, got \(3, 3, 3\)"):
        Preprocessing().apply(image[0], like)
    with pytest.raises(ValueError, match="image must have 1 channels, as windows does, got 2"):
        Preprocessing(normalisation="ct", windows=AS_THEY_ARE).apply(image, like)
    image[1, 0, 0, 0] = np.inf
    with pytest.raises(ValueError, match="got NaN or infinities in channel 1"):
        Preprocessing().apply(image, like)
    with pytest.raises(ValueError, match=r"values must have shape \[1, C.*, got \(2, 1, 3, 3, 3\)"):
        Preprocessing(dims=3).invert(torch.zeros(2, 1, 3, 3, 3), like)
    flat = Geometry((3, 3, 3), np.diag([1.0, 0.0, 1.0, 1.0]), None)
    with pytest.raises(ValueError, match="an axis without a direction"):
        Preprocessing(dims=3).apply(np.zeros((1, 3, 3, 3)), flat)
