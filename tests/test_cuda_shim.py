"""The CUDA kernels executed without a GPU, with one fibre per lane (tests/cpp/cuda_shim).

The tests of the pass are those of the other backends, sent to these kernels instead.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace

import cuda_shim
import oracle
import pytest
import test_accumulator
import test_calibration
import test_calibration_state
import test_ensemble
import test_ensemble_arguments
import test_ensemble_extremes
import test_ensemble_invariances
import test_extras
import test_ops
import test_regions
import test_segment_sums
import torch
from map_checks import MAPS, assert_maps_match, plain_maps
from members import DTYPES, arranged, exact, labels, logits, probabilities
from test_calibration import sample  # noqa: F401
from test_calibration_state import thread_counts  # noqa: F401
from torch import Tensor

import fastcal
from fastcal import backends
from fastcal.backends import reference
from fastcal.backends.gpu_passes import GpuPasses

# The marks of the files whose tests are run here.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*do not sum to 1"),
    pytest.mark.filterwarnings("ignore:.*classes along axis"),
]

for _module in (
    test_ensemble,
    test_ensemble_extremes,
    test_ensemble_invariances,
    test_ensemble_arguments,
    test_calibration,
    test_calibration_state,
    test_accumulator,
    test_extras,
    test_regions,
    test_segment_sums,
    test_ops,
):
    for _name, _test in list(vars(_module).items()):
        _marks = getattr(_test, "pytestmark", []) if _name.startswith("test_") else []
        if any(mark.name == "usefixtures" and "engine" in mark.args for mark in _marks):
            globals()[_name] = _test


@pytest.fixture(scope="module")
def kernels() -> GpuPasses:
    return cuda_shim.backend(cuda_shim.build())


@contextmanager
def using(kernels: GpuPasses) -> Iterator[None]:
    """Calls on the CPU reach the CUDA kernels."""
    engine = SimpleNamespace(
        ensemble_statistics=kernels.ensemble_statistics,
        ensemble_accumulate=kernels.ensemble_accumulate,
        ensemble_finalize=kernels.ensemble_finalize,
        segment_sums=kernels.segment_sums,
        temperature_sums=reference.temperature_sums,  # there is no kernel of these
    )
    with pytest.MonkeyPatch.context() as patch, fastcal.backend("reference"):
        patch.setitem(backends._loaded, "reference", engine)
        yield


@pytest.fixture
def engine(kernels: GpuPasses) -> Iterator[str]:
    """Take the place of the engines of the other files."""
    with using(kernels):
        yield "cuda"


# What only these kernels have.


def launched(
    kernels: GpuPasses, members: list[Tensor], target: Tensor | None = None, **options: object
) -> fastcal.EnsembleStatistics:
    with using(kernels):
        return fastcal.ensemble_statistics(members, target, **options)


def assert_same(a: fastcal.EnsembleStatistics, b: fastcal.EnsembleStatistics) -> None:
    for name in MAPS:
        x, y = getattr(a, name, None), getattr(b, name, None)
        assert x is y is None or torch.equal(x.nan_to_num(7), y.nan_to_num(7)), name
    if a.calibration is not None:
        assert a.calibration == b.calibration


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("n_classes", [3, 14, 70])
def test_the_order_in_which_lanes_run_changes_nothing(kernels, monkeypatch, order, n_classes):
    members, target = logits(3, n_classes, (7, 67)), labels(n_classes, (2, 7, 67))
    expected = launched(kernels, members, target, maps=MAPS)
    monkeypatch.setenv("FASTCAL_SHIM_ORDER", str(order))
    assert_same(launched(kernels, members, target, maps=MAPS), expected)


@pytest.mark.parametrize("processors", [2, 7])
def test_the_size_of_the_grid_changes_nothing(kernels, monkeypatch, processors):
    members, target = logits(2, 4, (5000,), batch=1), labels(4, (1, 5000))
    expected = launched(kernels, members, target, maps=MAPS)
    monkeypatch.setenv("FASTCAL_SHIM_PROCESSORS", str(processors))
    assert_same(launched(kernels, members, target, maps=MAPS), expected)


@pytest.mark.parametrize("shared_bytes", [65536, 49152, 40960])
@pytest.mark.parametrize(("n_classes", "dtype"), [(12, torch.float32), (150, torch.float32)])
def test_little_shared_memory_changes_nothing(kernels, monkeypatch, shared_bytes, n_classes, dtype):
    members = logits(2, n_classes, (203,), batch=1, dtype=dtype)
    target = labels(n_classes, (1, 203))
    expected = launched(kernels, members, target, maps=MAPS)
    monkeypatch.setenv("FASTCAL_SHIM_SHARED_BYTES", str(shared_bytes))
    kernels._workspace_bytes.cache_clear()
    got = launched(kernels, members, target, maps=MAPS)
    kernels._workspace_bytes.cache_clear()
    assert_same(got, expected)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_tiles_too_large_for_shared_memory_go_to_the_workspace(kernels, dtype):
    n_classes = 1000
    members = logits(2, n_classes, (70,), batch=1, dtype=dtype)
    target = labels(n_classes, (1, 70))
    names = ("mean", "entropy", "mutual_information", "disagreement", "label")
    got = launched(kernels, members, target, maps=names, n_bins=5)
    expected = oracle.maps([exact(m) for m in members])
    assert_maps_match(got, expected, names, plain=plain_maps(members))
    with fastcal.backend("reference"):
        again = fastcal.CalibrationStatistics(n_classes, n_bins=5)
        again.update(got.mean, target)
    assert got.calibration == again


@pytest.mark.parametrize("n_members", [48, 49, 97])
def test_members_beyond_the_parameters_go_through_a_table(kernels, n_members):
    members = logits(n_members, 3, (33,), batch=1)
    weights = [1.0 + i % 5 for i in range(n_members)]
    got = launched(kernels, members, maps=MAPS, weights=weights)
    assert_maps_match(got, oracle.maps([exact(m) for m in members], weights=weights), MAPS)


@pytest.mark.parametrize("n_bins", [1, 2, 32, 33, 34, 200, 3000, 6000])
def test_any_number_of_bins_is_counted(kernels, n_bins):
    members, target = logits(2, 3, (300,), batch=1), labels(3, (1, 300))
    got = launched(kernels, members, target, maps=("mean",), n_bins=n_bins)
    again = fastcal.CalibrationStatistics(3, n_bins=n_bins)
    with fastcal.backend("reference"):
        again.update(got.mean, target)
    assert got.calibration == again


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shift", [0, 1, 2, 4, 8])
def test_members_that_are_not_aligned_are_read_one_by_one(kernels, dtype, shift):
    n_classes, size = 4, 264
    expected = None
    members = []
    for member in logits(2, n_classes, (size,), batch=1, dtype=dtype):
        base = torch.empty(n_classes * size + shift, dtype=dtype)
        members.append(base[shift:].view(1, n_classes, size).copy_(member))
    expected = oracle.maps([exact(m) for m in members])
    assert_maps_match(launched(kernels, members, maps=MAPS), expected, MAPS)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("n_classes", [9, 12, 14])
@pytest.mark.parametrize("size", [1, 33, 64, 130, 194])
def test_voxels_a_warps_width_apart_give_the_bits_of_neighbours(kernels, dtype, n_classes, size):
    """Of more classes than a plain pass takes: a thread has two voxels, wherever rows begin."""
    members = logits(3, n_classes, (size,), batch=1, dtype=dtype)
    shifted = []
    for member in members:
        base = torch.empty(n_classes * size + 1, dtype=dtype)
        shifted.append(base[1:].view(1, n_classes, size).copy_(member))
    results = []
    for given in (members, shifted):
        stream = fastcal.EnsembleAccumulator(maps=MAPS)
        with using(kernels):
            for member in given:
                stream.update(member)
            results += [fastcal.ensemble_statistics(given, maps=MAPS), stream.finalize()]
    assert_same(results[0], results[2])
    assert_same(results[1], results[3])
    assert_maps_match(results[2], oracle.maps([exact(m) for m in members]), MAPS)


@pytest.mark.parametrize("n_classes", [9, 13, 17, 33, 53, 105, 208])
def test_the_fewest_and_the_most_classes_of_a_kernel_are_read(kernels, n_classes):
    """The fewest of a tier are read without a look, also those of the last of four lanes."""
    members = logits(2, n_classes, (37,), batch=1)
    names = ("mean", "entropy", "label")
    got = launched(kernels, members, maps=names)
    assert_maps_match(got, oracle.maps([exact(m) for m in members]), names)


@pytest.mark.parametrize("n_classes", [12, 33, 53, 105])
def test_classes_that_lie_in_one_place_are_read_right(kernels, n_classes):
    """Their distance is not a number of bytes above 0, which takes the longer way."""
    members = [m[:, :1].expand(1, n_classes, 65) for m in logits(2, 2, (65,), batch=1)]
    got = launched(kernels, members, maps=("mean", "entropy"))
    torch.testing.assert_close(got.mean, torch.full_like(got.mean, 1 / n_classes))


@pytest.mark.parametrize("size", [1, 31, 32, 33, 63, 127, 128, 129, 255, 256, 257, 511, 513, 1025])
@pytest.mark.parametrize("n_classes", [2, 3, 6, 33])
def test_warps_tiles_and_blocks_end_where_the_volume_does(kernels, size, n_classes):
    for dtype in (torch.float32, torch.bfloat16):
        members = logits(2, n_classes, (size,), batch=2, dtype=dtype)
        target = labels(n_classes, (2, size))
        got = launched(kernels, members, target, maps=MAPS, case_id=["a", "b"])
        assert_maps_match(got, oracle.maps([exact(m) for m in members]), MAPS)
        again = fastcal.CalibrationStatistics(n_classes)
        with fastcal.backend("reference"):
            again.update(got.mean, target, case_id=["a", "b"])
        assert got.calibration == again


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize(
    ("n_classes", "multilabel"), [(1, True), (3, False), (4, True), (70, False)]
)
@pytest.mark.filterwarnings("ignore:.*do not sum to 1")
def test_regions_and_extras_hold_the_integers_of_the_reference(
    kernels, dtype, n_classes, multilabel
):
    size = 331
    (p,) = probabilities(1, n_classes, (size,), dtype=dtype, scale=9.0, exclusive=not multilabel)
    p[0, 0, :5] = torch.nan
    p[1, 0, 7:9] = 1.5
    target = labels(2 if multilabel else n_classes, p.shape if multilabel else (2, size))
    regions = {
        name: labels(7, (2, size), seed=seed) < few
        for seed, (name, few) in enumerate({"most": 6, "some": 1, "none": 0}.items())
    }
    counted = []
    for run in (using(kernels), fastcal.backend("reference")):
        with run:
            statistics = fastcal.CalibrationStatistics(
                n_classes,
                multilabel=multilabel,
                regions=tuple(regions),
                moments=True,
                fine_bins=256,
                entropy_bins=7,
            )
            statistics.update(
                p,
                target,
                mask=labels(9, (2, size), seed=4) > 0,
                regions=regions,
                case_id=["a", "b"],
                nan_policy="omit",
            )
            counted.append(statistics)
    ours, theirs = counted
    assert ours == theirs
    for name in regions:
        assert ours.region(name) == theirs.region(name)


def test_members_that_lie_differently_are_read_right(kernels):
    members = logits(3, 4, (9, 20))
    mixed = [members[0], arranged(members[1], "channels_last"), arranged(members[2], "cropped")]
    assert_same(launched(kernels, mixed, maps=MAPS), launched(kernels, members, maps=MAPS))


def test_a_state_of_another_backend_is_finished(kernels):
    members = logits(3, 4, (50,))
    stream = fastcal.EnsembleAccumulator(maps=MAPS)
    for member in members:
        with fastcal.backend("reference"):
            stream.update(member)
    with using(kernels):
        got = stream.finalize()
    assert_maps_match(got, oracle.maps([exact(m) for m in members]), MAPS)


def test_a_barrier_that_not_every_lane_reaches_ends_the_program(tmp_path):
    """An `if` around __syncwarp must not go unnoticed."""
    source = tmp_path / "divergent.cpp"
    source.write_text(
        '#include "cuda_runtime.h"\n'
        "void kernel(int) { if (threadIdx.x != 3) { __syncwarp(); } }\n"
        "int main() { cudaLaunchConfig_t c{dim3(1), dim3(32), 0, nullptr};"
        " return cudaLaunchKernelEx(&c, kernel, 0); }\n"
    )
    program = tmp_path / "divergent"
    fibres = cuda_shim.SHIM / "fibres.cpp"
    include = f"-I{cuda_shim.SHIM}"
    cuda_shim.run(["g++", "-std=c++17", include, str(source), str(fibres), "-o", str(program)])
    result = subprocess.run([str(program)], capture_output=True, text=True, check=False)
    assert result.returncode != 0
    assert "not all of them reach" in result.stderr


def test_the_limit_of_shared_memory_is_never_lowered(kernels):
    """Another thread may be between its own call and its launch; the shim refuses a lower limit."""
    for size, n_classes in ((203, 150), (203, 120), (203, 150)):
        members, target = logits(2, n_classes, (size,), batch=1), labels(n_classes, (1, size))
        got = launched(kernels, members, target, maps=("mean",))
        torch.testing.assert_close(got.mean.sum(1), torch.ones(1, size))
