"""The compiled passes over the shape of segments give bit for bit what PyTorch gives."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from scipy import ndimage

import fastcal
from fastcal import backends
from fastcal.segments.agreement import overlaps
from fastcal.segments.components import count_components
from fastcal.segments.interior import interior
from fastcal.segments.patches import patch_maxima

SHAPES = [(300,), (40, 33), (1, 1, 1), (4, 5, 3), (12, 1, 30), (23, 21, 40)]

pytestmark = pytest.mark.skipif(
    backends.shapes(torch.device("cpu")) is None, reason="the compiled CPU module is not built"
)


def smooth(shape: tuple[int, ...], seed: int, classes: int = 3) -> torch.Tensor:
    """Labels with long runs and ragged borders, and voxels that belong to nothing."""
    rng = np.random.default_rng(seed)
    planes = [ndimage.gaussian_filter(rng.normal(size=(2, *shape)), 2) for _ in range(classes)]
    label = np.argmax(planes, 0).astype(np.uint8)
    noisy = rng.random(label.shape) < 0.02
    label[noisy] = rng.choice([0, 1, 2, 255], int(noisy.sum()))
    return torch.from_numpy(label)


def random(shape: tuple[int, ...], seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 4, (2, *shape), generator=generator).to(torch.uint8)


def planes_of(label: torch.Tensor, classes: int = 3) -> torch.Tensor:
    return torch.stack([(label == k).to(torch.uint8) for k in range(classes)], 1)


@pytest.fixture
def threads() -> Iterator[None]:
    """Three of them; PyTorch's numbers do not depend on how many there are."""
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("make", [smooth, random])
@pytest.mark.parametrize("depth", [1.0, 2.5, 10.0])
@pytest.mark.usefixtures("threads")
def test_the_interior_is_the_same(shape: tuple[int, ...], make, depth: float) -> None:
    label = make(shape, len(shape))
    steps = [1.0] * len(shape)
    got = interior(label, depth, steps)
    with fastcal.backend("reference"):
        assert torch.equal(got, interior(label, depth, steps))


def test_the_interior_is_that_of_the_distance_transform() -> None:
    label = smooth((33, 21, 40), 0, classes=4)
    got = interior(label, 2.0, [1.0, 1.0, 1.0])
    for item in range(2):
        for k in range(4):
            member = label[item].numpy() == k
            deep = ndimage.distance_transform_edt(member) > 2
            assert deep.any()
            assert np.array_equal(got[item].numpy()[member], deep[member])


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    ("real", "size"),
    [(torch.float32, 10), (torch.float32, 3), (torch.float64, 16), (torch.float64, 1)],
)
@pytest.mark.usefixtures("threads")
def test_the_largest_patches_are_the_same(
    shape: tuple[int, ...], real: torch.dtype, size: int
) -> None:
    label = smooth(shape, size)
    values = torch.rand((2, *shape), generator=torch.Generator().manual_seed(size), dtype=real)
    values[torch.rand(values.shape, generator=torch.Generator().manual_seed(0)) < 0.05] = torch.nan
    for labels in (label, planes_of(label)):
        got = patch_maxima(values, labels, 3, size)
        with fastcal.backend("reference"):
            wanted = patch_maxima(values, labels, 3, size)
        assert torch.equal(got.nan_to_num(-1), wanted.nan_to_num(-1))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("make", [smooth, random])
@pytest.mark.parametrize("smallest", [1, 5])
def test_components_are_those_of_scipy(shape: tuple[int, ...], make, smallest: int) -> None:
    label = make(shape, 7)
    wanted = torch.zeros((2, 3), dtype=torch.int64)
    for item in range(2):
        for k in range(3):
            numbers, _ = ndimage.label(label[item].numpy() == k, np.ones((3,) * len(shape)))
            wanted[item, k] = int((np.bincount(numbers.ravel())[1:] >= smallest).sum())
    assert torch.equal(count_components(label, 3, smallest), wanted)
    assert torch.equal(count_components(planes_of(label), 3, smallest, multilabel=True), wanted)


@pytest.mark.parametrize("members", [1, 2, 5])
@pytest.mark.parametrize("shape", [(9,), (129,), (33, 21, 40)])
@pytest.mark.usefixtures("threads")
def test_overlaps_are_the_same(members: int, shape: tuple[int, ...]) -> None:
    labels = [smooth(shape, 0) for _ in range(members)]
    for number, label in enumerate(labels):
        changed = torch.rand(label.shape, generator=torch.Generator().manual_seed(number)) < 0.01
        label[changed] = random(shape, number)[changed]
    for given, multilabel in ((labels, False), ([planes_of(one) for one in labels], True)):
        got = overlaps(given, 3, multilabel=multilabel)
        with fastcal.backend("reference"):
            assert torch.equal(got, overlaps(given, 3, multilabel=multilabel))


@pytest.mark.parametrize("multilabel", [False, True])
def test_all_scores_are_the_same_bit_for_bit(multilabel: bool) -> None:
    members = [
        torch.randn((2, 3, 9, 11, 13), generator=torch.Generator().manual_seed(seed))
        for seed in range(3)
    ]
    options = {"segments": fastcal.SegmentSettings(pairs=True, patch=4, interior_voxels=1)}
    how = {"activation": "sigmoid", "multilabel": True} if multilabel else {}
    got = fastcal.ensemble_statistics(members, **how, **options).segments
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(backends, "shapes", lambda _: None)
        wanted = fastcal.ensemble_statistics(members, **how, **options).segments
    assert set(got.available) == set(wanted.available)
    assert "pairwise_dice" in got.available
    for name in got.available:
        assert torch.equal(got[name].nan_to_num(-1), wanted[name].nan_to_num(-1)), name
