"""Regions: each is what a mask would count, from one pass; and the masks themselves."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from engines import on_every_engine
from hypothesis import given
from hypothesis import strategies as st
from members import arranged, labels, probabilities
from torch import Tensor

import fastcal
from fastcal import CalibrationStatistics, regions
from fastcal.regions import Regions

SHAPE = (6, 7, 11)


def masks(n: int, shape: tuple[int, ...] = (2, *SHAPE), seed: int = 5) -> dict[str, Tensor]:
    """Overlapping masks; the second is empty."""
    generator = torch.Generator().manual_seed(seed)
    found = {f"region {r}": torch.rand(shape, generator=generator) < 0.4 for r in range(n)}
    if n > 1:
        found["region 1"] = torch.zeros(shape, dtype=torch.bool)
    return found


@on_every_engine
@pytest.mark.parametrize("case_id", [None, ["a", "b"]])
def test_a_region_holds_what_its_mask_would_count(case_id):
    members, y = probabilities(3, 4, SHAPE), labels(4, (2, *SHAPE))
    kept = torch.rand(2, *SHAPE, generator=torch.Generator().manual_seed(0)) < 0.9
    options = {"from_logits": False, "ignore_index": 2, "case_id": case_id, "maps": ()}
    options |= {"fine_bins": 64, "moments": True, "entropy_bins": 5}
    asked = masks(8)
    whole = fastcal.ensemble_statistics(members, y, mask=kept, regions=asked, **options)
    plain = fastcal.ensemble_statistics(members, y, mask=kept, **options)
    assert whole.calibration.regions == tuple(asked)
    assert whole.calibration.ece() == plain.calibration.ece()
    for name, mask in asked.items():
        alone = fastcal.ensemble_statistics(members, y, mask=kept & mask, **options)
        assert whole.calibration.region(name) == alone.calibration
    if case_id:
        of_case = whole.calibration.case("b").region("region 3")
        assert of_case == whole.calibration.region("region 3").case("b")


@on_every_engine
@pytest.mark.parametrize("multilabel", [False, True])
def test_regions_have_the_bits_of_the_reference(multilabel):
    (p,) = probabilities(1, 3, SHAPE, exclusive=not multilabel)
    y = labels(2, p.shape) if multilabel else labels(3, (2, *SHAPE))
    packed = Regions.of(masks(3))
    turned = Regions(arranged(packed.bits[:, None], "strided")[:, 0], packed.names)

    def counted(asked: Regions) -> CalibrationStatistics:
        statistics = CalibrationStatistics(3, multilabel=multilabel, regions=asked.names)
        statistics.update(p, y, regions=asked)
        return statistics

    with fastcal.backend("reference"):
        expected = counted(packed)
    for asked in (packed, turned):
        assert counted(asked) == expected


@given(split=st.integers(1, 10), seed=st.integers(0, 5))
def test_parts_merge_to_the_whole(split, seed):
    (p,), y = probabilities(1, 3, SHAPE, seed=seed), labels(3, (2, *SHAPE))
    asked = masks(2, seed=seed)
    parts = [CalibrationStatistics(3, regions=list(asked)) for _ in range(3)]
    parts[0].update(p, y, regions=asked, case_id=["a", "b"])
    for part, cut in zip(parts[1:], (slice(split), slice(split, None)), strict=True):
        inside = {name: mask[..., cut] for name, mask in asked.items()}
        part.update(p[..., cut], y[..., cut], regions=inside, case_id=["a", "b"])
    assert parts[2] + parts[1] == parts[0]


@pytest.mark.parametrize("suffix", [".npz", ".json"])
def test_regions_are_saved_and_loaded(suffix, tmp_path):
    (p,), y = probabilities(1, 3, SHAPE), labels(3, (2, *SHAPE))
    for case_id in (None, ["a", "b"]):
        statistics = CalibrationStatistics(3, regions=list(masks(2)))
        statistics.update(p, y, regions=masks(2), case_id=case_id)
        statistics.save(tmp_path / f"found{suffix}")
        loaded = CalibrationStatistics.load(tmp_path / f"found{suffix}")
        assert loaded == statistics
        assert loaded.region("region 0").brier() == statistics.region("region 0").brier()


def test_masks_are_taken_by_name_and_for_one_item_without_a_batch_axis():
    (p,), y = probabilities(1, 3, SHAPE, batch=1), labels(3, (1, *SHAPE))
    asked = masks(2, SHAPE)
    found = []
    for given_regions in (asked, dict(reversed(asked.items())), Regions.of(asked)):
        statistics = CalibrationStatistics(3, regions=list(asked))
        statistics.update(p, y, regions=given_regions)
        found.append(statistics)
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize(
    ("given_regions", "error", "message"),
    [
        (None, ValueError, "regions must be masks of"),
        ({"other": torch.ones(1, *SHAPE, dtype=torch.bool)}, ValueError, "regions must be"),
        ({"box": torch.ones(1, 3, dtype=torch.bool)}, ValueError, r"must have shape \(1, 6, 7"),
        ({"box": torch.ones(1, *SHAPE)}, TypeError, "region 'box' must be bool"),
        (torch.ones(1, *SHAPE, dtype=torch.uint8), TypeError, "Regions or masks by name"),
    ],
)
def test_masks_that_do_not_fit_are_refused(given_regions, error, message):
    (p,), y = probabilities(1, 3, SHAPE, batch=1), labels(3, (1, *SHAPE))
    statistics = CalibrationStatistics(3, regions=["box"])
    with pytest.raises(error, match=message):
        statistics.update(p, y, regions=given_regions)
    with pytest.raises(ValueError, match="must be one of"):
        statistics.region("none")


# The masks


def ball(shape: tuple[int, ...], centre: tuple[float, ...], radius: float) -> np.ndarray:
    grid = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1)
    return (((grid - centre) ** 2).sum(-1) <= radius**2).astype(np.uint8)


def test_the_box_grows_by_mm_in_plane_and_by_slices_across():
    segmentation = np.zeros((30, 40, 20), np.uint8)
    segmentation[10:12, 20:23, 8] = 2
    box = regions.dilated_box(segmentation, 8.0, 2, spacing=(2.0, 1.5, 5.0))
    assert [np.flatnonzero(box.any(axes)).tolist() for axes in ((1, 2), (0, 2), (0, 1))] == [
        list(range(6, 16)),
        list(range(15, 28)),
        list(range(6, 11)),
    ]


def test_slices_run_along_the_coarsest_axis_or_head_to_foot():
    segmentation = np.zeros((20, 20, 20), np.uint8)
    segmentation[10, 10, 10] = 1

    def across(**geometry: object) -> list[int]:
        box = regions.dilated_box(segmentation, 3.0, 1, **geometry)
        return [int(box.any(axes).sum()) for axes in ((1, 2), (0, 2), (0, 1))]

    assert across(spacing=(4.0, 1.0, 1.0)) == [3, 7, 7]
    assert across(spacing=(1.0, 1.0, 1.0)) == [7, 7, 3]
    # Second array axis runs head to foot.
    affine = np.array([[1, 0, 0, 5], [0, 0, -1, 0], [0, 1, 0, 9], [0, 0, 0, 1]], float)
    assert across(affine=affine) == [7, 3, 7]
    assert across(affine=affine, slice_axis=0) == [3, 7, 7]


def test_the_box_ends_with_the_volume_and_is_empty_without_foreground():
    segmentation = np.zeros((5, 5, 5), np.uint8)
    assert not regions.dilated_box(segmentation, spacing=(1, 1, 1)).any()
    segmentation[0, 4, 2] = 1
    assert regions.dilated_box(segmentation, 50, 50, spacing=(1, 1, 1)).all()


@given(
    distance=st.floats(0.5, 5.0),
    step=st.tuples(*[st.floats(0.5, 3.0)] * 2),
    seed=st.integers(0, 99),
)
def test_the_band_holds_what_is_near_a_voxel_of_another_class(distance, step, seed):
    random = np.random.default_rng(seed)
    segmentation = ball((9, 11), (4, 5), 3) + (random.random((9, 11)) < 0.03)
    at = np.argwhere(np.ones((9, 11), bool)) * np.array(step)
    apart = np.linalg.norm(at[:, None] - at, axis=-1)
    other = segmentation.reshape(-1, 1) != segmentation.ravel()
    nearest = np.where(other, apart, np.inf).min(1).reshape(9, 11)
    band = regions.boundary_band(segmentation, distance, spacing=step)
    np.testing.assert_array_equal(band, nearest <= distance * (1 + 1e-6))


def test_simple_masks():
    segmentation = ball((5, 5), (2, 2), 1)
    assert regions.whole_volume(segmentation).all()
    np.testing.assert_array_equal(regions.foreground(segmentation), segmentation == 1)
    assert not regions.boundary_band(np.ones((3, 3), int), 2.0, spacing=(1, 1)).any()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({}, ValueError, "affine or spacing must be given"),
        ({"spacing": (1, 1)}, ValueError, "spacing must hold one number per axis: 3"),
        ({"spacing": (1, 1, 0)}, ValueError, "spacing must be positive"),
        ({"spacing": (1, 1, 1), "margin_mm": -1}, ValueError, "margin_mm must be a distance"),
        ({"spacing": (1, 1, 1), "margin_slices": 1.5}, TypeError, "margin_slices must be an int"),
        ({"affine": np.eye(3)}, ValueError, "affine must have shape"),
        ({"spacing": (1, 1, 1), "slice_axis": 3}, ValueError, "slice_axis must be in"),
    ],
)
def test_wrong_geometry_is_named(options, error, message):
    with pytest.raises(error, match=message):
        regions.dilated_box(np.ones((2, 2, 2), int), **options)


def test_a_segmentation_holds_integers():
    with pytest.raises(TypeError, match="segmentation must hold integers"):
        regions.foreground(np.ones((2, 2)))
