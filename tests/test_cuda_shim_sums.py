"""The CUDA kernels of losses and temperature scaling executed without a GPU, one fibre per lane.

The tests of the passes are those of the other backends, sent to these kernels instead.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import cuda_shim
import pytest
import test_dice_ce
import test_loss_sums
import test_temperature
import torch
from members import arranged, labels, logits
from torch import Tensor

import fastcal
from fastcal import backends
from fastcal.backends import reference
from fastcal.backends.gpu_sums import GpuSums
from fastcal.core.problem import (
    GapBins,
    LossReading,
    SumsWanted,
    TemperatureLayout,
    TemperatureProblem,
)

OPS = ("class_sums", "class_gradient", "bin_gaps", "bin_gradient", "temperature_sums")

for _module in (test_loss_sums, test_dice_ce, test_temperature):
    for _name, _test in list(vars(_module).items()):
        _marks = getattr(_test, "pytestmark", []) if _name.startswith("test_") else []
        if any(mark.name == "usefixtures" and "engine" in mark.args for mark in _marks):
            globals()[f"{_name}_{_module.__name__[5:]}"] = _test


@pytest.fixture(scope="module")
def kernels() -> GpuSums:
    return cuda_shim.sums(cuda_shim.build())


@contextmanager
def using(kernels: GpuSums) -> Iterator[None]:
    """Calls on the CPU reach the CUDA kernels."""
    engine = SimpleNamespace(**{op: getattr(kernels, op) for op in OPS})
    with pytest.MonkeyPatch.context() as patch, fastcal.backend("reference"):
        patch.setitem(backends._loaded, "reference", engine)
        yield


@pytest.fixture
def engine(kernels: GpuSums) -> Iterator[str]:
    """Take the place of the engines of the other files."""
    with using(kernels):
        yield "cuda"


def given(
    classes: int, shape: tuple[int, ...], dtype: torch.dtype = torch.float64
) -> tuple[Tensor, Tensor]:
    (z,) = logits(1, classes, shape, dtype=dtype)
    return z.unsqueeze(0), labels(max(classes, 2), (1, 2, *shape))


def class_results(
    backend: Any, z: Tensor, target: Tensor, head: str, ignore: int | None = 1
) -> tuple[Tensor, Tensor]:
    reading, wanted = LossReading(head, ignore), SumsWanted(True, True, True)
    sums = torch.full((*z.shape[:2], 6, z.shape[2]), 7.0, dtype=torch.float64)
    backend.class_sums(z, target, reading, wanted, sums)
    factors = sums.clone().mul_(0.01).sin_()
    gradient = torch.empty_like(z)
    backend.class_gradient(z, target, reading, wanted, factors, gradient)
    return sums, gradient


def bin_results(
    backend: Any, z: Tensor, target: Tensor, head: str, bins: GapBins
) -> tuple[Tensor, Tensor]:
    reading = LossReading(head, None)
    sums = torch.full((*z.shape[:3], bins.words), 7.0, dtype=torch.float64)
    backend.bin_gaps(z, target, reading, bins, sums)
    factors = torch.arange(sums.numel(), dtype=torch.float64).view(sums.shape).sin_()
    gradient = torch.empty_like(z)
    backend.bin_gradient(z, target, reading, bins, factors, gradient)
    return sums, gradient


def assert_alike(found: tuple[Tensor, ...], wanted: tuple[Tensor, ...]) -> None:
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("size", [1, 31, 32, 255, 256, 257, 1025])
@pytest.mark.parametrize("head", ["softmax", "sigmoid"])
def test_warps_and_tiles_end_where_the_image_does(kernels: GpuSums, size: int, head: str) -> None:
    z, target = given(3, (size,))
    assert_alike(class_results(kernels, z, target, head), class_results(reference, z, target, head))


@pytest.mark.parametrize("layout", ["channels_last", "cropped", "strided"])
@pytest.mark.parametrize("classes", [2, 20])
def test_any_layout_is_read_and_written(kernels: GpuSums, layout: str, classes: int) -> None:
    z, target = given(classes, (5, 9, 11))
    laid = arranged(z[0], layout).unsqueeze(0)
    assert_alike(
        class_results(kernels, laid, target, "softmax"),
        class_results(reference, z, target, "softmax"),
    )


@pytest.mark.parametrize("n_bins", [1, 2, 15, 16, 17, 33, 100])
@pytest.mark.parametrize("soft", [False, True])
def test_any_number_of_bins_is_summed(kernels: GpuSums, n_bins: int, soft: bool) -> None:
    """A warp holds the columns of 16 bins of doubles at once."""
    z, target = given(3, (300,))
    bins = GapBins(n_bins, soft)
    assert_alike(
        bin_results(kernels, z, target, "softmax", bins),
        bin_results(reference, z, target, "softmax", bins),
    )


@pytest.mark.parametrize("n_bins", [32, 40])
def test_columns_of_floats_hold_what_those_of_doubles_do(kernels: GpuSums, n_bins: int) -> None:
    z, target = given(2, (700,), torch.float32)
    found, _ = bin_results(kernels, z, target, "sigmoid", GapBins(n_bins, True))
    wanted, _ = bin_results(reference, z.double(), target, "sigmoid", GapBins(n_bins, True))
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_gradients_in_half_precision_are_rounded_to_nearest(
    kernels: GpuSums, dtype: torch.dtype
) -> None:
    z, target = given(4, (400,), dtype)
    _, found = class_results(kernels, z, target, "softmax")
    _, wanted = class_results(reference, z.float(), target, "softmax")
    epsilon = torch.finfo(dtype).eps
    torch.testing.assert_close(found.float(), wanted, rtol=epsilon * 0.51, atol=2e-6)


@pytest.mark.parametrize("variable", ["FASTCAL_SHIM_ORDER", "FASTCAL_SHIM_PROCESSORS"])
def test_neither_the_order_of_lanes_nor_the_device_changes_a_bit(
    kernels: GpuSums, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    z, target = given(5, (700,), torch.float32)
    bins = GapBins(20, True)
    before = (*class_results(kernels, z, target, "softmax"),)
    before += bin_results(kernels, z, target, "softmax", bins)
    monkeypatch.setenv(variable, "2")
    after = (*class_results(kernels, z, target, "softmax"),)
    after += bin_results(kernels, z, target, "softmax", bins)
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))


def test_a_wrong_target_spoils_the_sums_of_its_image_alone(kernels: GpuSums) -> None:
    z, target = given(3, (600,))
    target[0, 1, 555] = 9
    for sums in (
        class_results(kernels, z, target, "softmax", None)[0],
        bin_results(kernels, z, target, "softmax", GapBins(5, False))[0],
    ):
        assert sums[0, 0].isfinite().all()
        assert sums[0, 1].isnan().all()


def test_references_and_hard_amounts_are_whole_numbers_of_the_cpu(kernels: GpuSums) -> None:
    """What is a count has the same bits everywhere."""
    z, target = given(4, (3000,), torch.float32)
    sums, _ = class_results(kernels, z, target, "softmax", None)
    assert torch.equal(sums[:, :, 3].sum(-1), torch.full((1, 2), 3000.0, dtype=torch.float64))
    bins = GapBins(10, False)
    found, _ = bin_results(kernels, z, target, "softmax", bins)
    amounts = found[..., 10:20]
    assert torch.equal(amounts.sum(-1), torch.full_like(amounts[..., 0], 3000.0))
    assert torch.equal(found[..., -1], sums[:, :, 3])


@pytest.mark.parametrize("multilabel", [False, True])
@pytest.mark.parametrize("per_class", [False, True])
@pytest.mark.parametrize("from_logits", [False, True])
def test_temperature_sums_equal_the_reference_in_float64(
    kernels: GpuSums, multilabel: bool, per_class: bool, from_logits: bool
) -> None:
    (z,) = logits(1, 3, (130,), dtype=torch.float64)
    values = (z if from_logits else z.sigmoid() if multilabel else z.softmax(1)).movedim(1, 0)
    target = labels(2, tuple(values.shape)) if multilabel else labels(3, (2, 130))
    values[1, 0, 7], values[2, 1, 9] = torch.nan, torch.inf
    target[..., 0, 11] = 5
    mask = labels(6, (2, 130), seed=3) > 0
    n = 3 if per_class else 1
    found = []
    for backend in (kernels, reference):
        sums = torch.ones(TemperatureLayout(n).words, dtype=torch.float64)
        counts = torch.tensor([1, 2, 3])
        problem = TemperatureProblem(
            *(values, target, mask, 1, from_logits, multilabel, multilabel, 1e-30, 1e-8)
        )
        backend.temperature_sums(problem, [0.8, 1.1, 0.6][:n], per_class, counts, sums)
        found.append((counts, sums))
    assert torch.equal(found[0][0], found[1][0])
    torch.testing.assert_close(found[0][1], found[1][1], rtol=1e-10, atol=1e-9)
