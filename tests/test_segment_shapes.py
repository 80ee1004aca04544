"""Interior, patches and components of segments, whole or in pieces, against plain loops."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from scipy import ndimage

from fastcal.segments import sweep
from fastcal.segments.components import count_components
from fastcal.segments.interior import interior
from fastcal.segments.patches import patch_maxima

SHAPES = [(9,), (5, 6), (4, 5, 3), (1, 5, 6), (5, 6, 1), (3, 2, 3, 2)]


def labels_of(shape: tuple[int, ...], classes: int = 3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(len(shape))
    return torch.randint(0, classes, (2, *shape), generator=generator)


@pytest.fixture(params=[1 << 17, 10, 1], ids=["whole", "pieces", "lines"])
def in_pieces(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep, "_PIECE", request.param)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("size", [1, 2, 3, 10])
@pytest.mark.usefixtures("in_pieces")
def test_patches_are_those_of_a_loop(shape: tuple[int, ...], size: int) -> None:
    generator = torch.Generator().manual_seed(size)
    values = torch.rand((2, *shape), generator=generator)
    label = labels_of(shape)
    wanted = np.full((2, 4), -np.inf)
    for item in range(2):
        volume = values[item].double().numpy()
        for at in np.ndindex(*shape):
            starts = [
                min(max(0, i - min(size, n) // 2), max(0, n - size))
                for i, n in zip(at, shape, strict=True)
            ]
            box = tuple(slice(start, start + size) for start in starts)
            k = int(label[item][at])
            wanted[item, k] = max(wanted[item, k], volume[box].mean())
    wanted[wanted == -np.inf] = np.nan
    got = patch_maxima(values, label, 4, size)
    np.testing.assert_allclose(got.numpy(), wanted, rtol=1e-6)
    planes = torch.stack([(label == k).int() for k in range(4)], 1)
    assert torch.equal(patch_maxima(values, planes, 4, size).nan_to_num(-1), got.nan_to_num(-1))


def test_sums_of_a_patch_in_float32_lose_only_last_bits() -> None:
    generator = torch.Generator().manual_seed(0)
    values = torch.rand((1, 40, 41, 42), generator=generator) * 1e-3
    values[0, :20] += 1000.0  # a running sum would keep three digits of the rest
    label = torch.zeros((1, 40, 41, 42), dtype=torch.int64)
    label[0, 32:] = 1
    means = ndimage.uniform_filter(values[0].double().numpy(), 10)
    assert float(patch_maxima(values, label, 2, 10)[0, 1]) == pytest.approx(
        means[32:36, 5:36, 5:37].max(), rel=1e-6
    )


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("depth", "step"), [(0.0, 1.0), (2.0, 1.0), (2.5, 0.7)])
@pytest.mark.usefixtures("in_pieces")
def test_the_interior_is_that_of_a_loop(shape: tuple[int, ...], depth: float, step: float) -> None:
    steps = [step * (1 + axis) for axis in range(len(shape))]
    label = torch.zeros((2, *shape), dtype=torch.uint8)
    label[(0, *(slice(n // 3, 2 * n // 3 + 1) for n in shape))] = 1
    label[(1, *(slice(0, n // 2 + 1) for n in shape))] = 2
    points = np.argwhere(np.ones(shape)) * steps
    apart = np.linalg.norm(points[:, None] - points[None], axis=-1)
    lines = label.reshape(2, -1).numpy()
    near = (apart <= depth * (1 + 1e-6)) & (lines[:, :, None] != lines[:, None, :])
    wanted = torch.from_numpy(~near.any(2)).view(label.shape)
    assert torch.equal(interior(label, depth, steps), wanted)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int64, torch.uint16])
@pytest.mark.parametrize("smallest", [1, 3])
def test_components_are_the_same_from_both_packages(
    shape: tuple[int, ...], dtype: torch.dtype, smallest: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    label = labels_of(shape).to(dtype)
    nothing = -1 if dtype.is_signed else torch.iinfo(dtype).max
    label[(slice(None), *(slice(0, 1),) * len(shape))] = nothing
    label[(slice(None), *(slice(n - 1, n) for n in shape))] = 3  # no class of the two
    wanted = torch.zeros((2, 3), dtype=torch.int64)
    for item in range(2):
        for k in range(3):
            numbers, _ = ndimage.label(label[item].numpy() == k, np.ones((3,) * len(shape)))
            wanted[item, k] = int((np.bincount(numbers.ravel())[1:] >= smallest).sum())
    assert torch.equal(count_components(label, 3, smallest), wanted)
    planes = torch.stack(
        [torch.from_numpy((label.numpy() == k).astype(np.uint8)) for k in range(3)], 1
    )
    assert torch.equal(count_components(planes, 3, smallest, multilabel=True), wanted)
    monkeypatch.setitem(sys.modules, "cc3d", None)
    assert torch.equal(count_components(label, 3, smallest), wanted)
    assert torch.equal(count_components(planes, 3, smallest, multilabel=True), wanted)


def test_without_both_packages_the_error_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "cc3d", None)
    monkeypatch.setitem(sys.modules, "scipy", None)
    with pytest.raises(ImportError, match=r"pip install 'fastcal\[quality\]'"):
        count_components(torch.zeros((1, 2, 2), dtype=torch.int64), 2, 1)
