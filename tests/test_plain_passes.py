"""Plain passes, the softmax of few classes, in every way that they may reach their members.

They run on the kernels built for the CPU (tests/cpp/cuda_shim), like test_cuda_shim.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import cuda_shim
import oracle
import pytest
import torch
from map_checks import MAPS, assert_maps_match
from members import arranged, exact, labels, logits
from test_cuda_shim import assert_same, launched, using

import fastcal
from fastcal.backends.gpu_passes import GpuPasses
from fastcal.bench import peers

TYPES = (torch.float32, torch.bfloat16, torch.float16)
VARIANTS = ("loads", "ring", "persistent")

pytestmark = pytest.mark.filterwarnings("ignore:.*do not sum to 1")


@pytest.fixture(scope="module")
def kernels() -> GpuPasses:
    return cuda_shim.backend(cuda_shim.build())


@pytest.fixture(autouse=True)
def _one_variant_again(kernels: GpuPasses) -> Iterator[None]:
    module: Any = kernels._module
    before = module.variant()
    yield
    module.set_variant(before)


def test_there_are_variants_and_one_is_chosen(kernels):
    module = kernels._module
    assert tuple(module.variants()) == VARIANTS
    assert tuple(peers.VARIANTS) == tuple(f"cuda-{name}" for name in VARIANTS)
    assert module.variant() in VARIANTS
    with pytest.raises(ValueError, match="variant must be loads, ring or persistent, got other"):
        module.set_variant("other")


# Tiles of 128 and 256 voxels: one that ends with the volume, odd ones, and rows that end inside a
# tile, where the tile is not one run in memory.
SHAPES = {"even": (512,), "odd": (517,), "crop": (9, 67), "few": (3,)}


@pytest.mark.parametrize("layout", ["contiguous", "channels_last", "cropped", "strided"])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_every_way_to_the_members_gives_the_same_bits(kernels, dtype, shape, layout):
    n_classes = 3 if dtype == torch.float32 else 4
    members = logits(3, n_classes, shape, dtype=dtype)
    target = labels(n_classes, (2, *shape))
    laid = [arranged(member, layout) for member in members]
    got = []
    for variant in VARIANTS:
        kernels._module.set_variant(variant)
        got.append(launched(kernels, laid, target, maps=MAPS))
    assert_maps_match(got[0], oracle.maps([exact(m) for m in members]), MAPS)
    for other in got[1:]:
        assert_same(other, got[0])


@pytest.mark.parametrize("n_classes", range(2, 9))
def test_every_class_count_has_a_kernel(kernels, n_classes):
    for dtype in TYPES:
        members = logits(2, n_classes, (3, 87), dtype=dtype)
        got = launched(kernels, members, maps=MAPS)
        assert_maps_match(got, oracle.maps([exact(m) for m in members]), MAPS)
        alone = launched(kernels, members, maps=("entropy",))
        assert torch.equal(alone.entropy, got.entropy)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("CAPABILITY", 75),  # has no copies that run ahead
        ("PROCESSORS", 3),
        ("SHARED_BYTES", 32768),
        ("SHARED_BYTES", 20480),
        ("ORDER", 2),
    ],
)
def test_what_a_device_has_changes_nothing(kernels, monkeypatch, setting, value):
    members, target = logits(3, 4, (9, 131), batch=1), labels(4, (1, 9, 131))
    expected = launched(kernels, members, target, maps=MAPS)
    monkeypatch.setenv(f"FASTCAL_SHIM_{setting}", str(value))
    kernels._workspace_bytes.cache_clear()
    got = launched(kernels, members, target, maps=MAPS)
    kernels._workspace_bytes.cache_clear()
    assert_same(got, expected)


@pytest.mark.parametrize("shift", [1, 2, 3])
def test_rows_that_begin_anywhere_are_copied_whole(kernels, shift):
    """The aligned bytes around a row are copied, and no others are read."""
    expected = None
    for n_before in (0, shift):
        members = []
        for member in logits(2, 4, (130,), batch=1, dtype=torch.bfloat16):
            base = torch.full((4 * 130 + 16,), torch.nan, dtype=torch.bfloat16)
            members.append(base[n_before : n_before + 520].view(1, 4, 130).copy_(member))
        got = launched(kernels, members, maps=MAPS)
        expected = got if expected is None else expected
        assert_same(got, expected)


@pytest.mark.parametrize("n_members", [255, 256, 600])
def test_more_votes_than_a_packed_counter_holds_are_counted(kernels, n_members):
    one, other = logits(2, 3, (40,), batch=1)
    n_other = n_members // 3
    members = [other] * n_other + [one] * (n_members - n_other)
    got = launched(kernels, members, maps=("disagreement",)).disagreement
    apart = one.argmax(1) != other.argmax(1)
    assert apart.any()
    assert not apart.all()
    want = torch.where(apart, n_other / n_members, 0.0)
    torch.testing.assert_close(got, want, rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32, torch.int64], ids=str)
@pytest.mark.parametrize("size", [256, 257])
def test_labels_of_any_type_are_written(kernels, dtype, size):
    members = logits(2, 4, (size,))
    members[0][0, 0, 5] = torch.nan
    label = torch.empty((2, size), dtype=dtype)
    mean = torch.empty_like(members[0])
    with using(kernels):
        fastcal.ensemble_statistics(
            members, maps=("label", "mean"), out={"label": label, "mean": mean}
        )
    want = mean.argmax(1).to(dtype)
    want[0, 5] = -1 if dtype != torch.uint8 else 255
    assert torch.equal(label, want)


def test_normalised_means_are_those_of_the_stream(kernels):
    members = logits(3, 5, (77,))
    with using(kernels):
        stream = fastcal.EnsembleAccumulator(maps=MAPS)
        for member in members:
            stream.update(member)
        whole = fastcal.ensemble_statistics(members, maps=MAPS, normalise=True)
        assert_same(stream.finalize(normalise=True), whole)


@pytest.mark.parametrize("n_bins", [1, 2, 15, 100])
@pytest.mark.parametrize("closed", ["left", "right"])
def test_values_on_and_beside_an_edge_are_binned_as_by_the_reference(kernels, n_bins, closed):
    inner = torch.linspace(0, 1, n_bins + 1)
    near = torch.cat([inner, torch.nextafter(inner, torch.ones(())), inner - 1e-7]).clamp(0, 1)
    p = torch.stack([near, 1 - near])[None]
    counted = []
    for run in (using(kernels), fastcal.backend("reference")):
        with run:
            statistics = fastcal.CalibrationStatistics(2, n_bins=n_bins, closed=closed)
            statistics.update(p, labels(2, p[:, 0].shape))
            counted.append(statistics)
    assert counted[0] == counted[1]
