"""Every Triton kernel compiled ahead of time for every architecture, and the PTX read."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import cache

import pytest
import torch
from members import arranged, labels, logits

from fastcal.core.problem import (
    MAPS,
    Counting,
    Extras,
    Finish,
    GapBins,
    LossReading,
    Reading,
    StateLayout,
    StatisticsLayout,
    SumsWanted,
    TemperatureLayout,
    TemperatureProblem,
)
from fastcal.core.segment_problem import SegmentProblem, SegmentWords

triton = pytest.importorskip("triton", reason="triton is not installed")

from triton_aot import Compiled, compile_kernels  # noqa: E402

from fastcal.triton_kernels import (  # noqa: E402
    bin_gaps,
    class_sums,
    ensemble_accumulate,
    ensemble_finalize,
    ensemble_statistics,
    segment_sums,
    temperature_sums,
)

CAPABILITIES = (75, 80, 90, 100, 120)
SHAPE = (32, 64)
SOFTMAX = Reading(1, True, "softmax", False, "prob")
MULTILABEL = Reading(1, False, "sigmoid", True, "prob")
NO_EXTRAS = Extras()
EXTRAS = Extras(moments=True, fine_bins=65536, entropy_bins=20)


def finish(
    reading: Reading,
    num_classes: int,
    names: tuple[str, ...],
    *,
    real: torch.dtype = torch.float32,
    batch: int = 1,
    count: bool = False,
    extras: Extras = NO_EXTRAS,
    n_regions: int = 0,
) -> Finish:
    """Maps to write, and statistics of one group of rows a batch item."""
    member = (batch, num_classes, *SHAPE)
    voxels = (batch, *SHAPE)
    by_class = {"mean", "label", "confidence"} if reading.multilabel else {"mean"}
    maps = {
        name: torch.empty(
            member if name in by_class else voxels,
            dtype=torch.int64 if name == "label" else real,
        )
        for name in names
    }
    if not count:
        return Finish(maps, False, None)
    target = labels(2, member if reading.multilabel else voxels)
    thresholds = torch.linspace(0, 1, 16, dtype=real)[1:-1]
    words = StatisticsLayout(num_classes, 15, "both", extras).words
    statistics = torch.zeros(batch * (1 + n_regions), words, dtype=torch.int64)
    mask = torch.ones(voxels, dtype=torch.bool)
    regions = mask.view(torch.uint8) if n_regions else None
    counting = Counting(
        *(target, mask, 1, thresholds, False, "both", 1e-30, statistics),
        *(regions, n_regions, extras),
    )
    return Finish(maps, False, counting)


def one_shot(
    num_classes: int,
    names: tuple[str, ...],
    *,
    reading: Reading = SOFTMAX,
    dtype: torch.dtype = torch.float32,
    layout: str = "contiguous",
    n_members: int = 5,
    batch: int = 1,
    count: bool = False,
    extras: Extras = NO_EXTRAS,
    n_regions: int = 0,
) -> None:
    real = torch.float64 if dtype == torch.float64 else torch.float32
    members = logits(n_members, num_classes, SHAPE, dtype=dtype, batch=batch)
    ensemble_statistics.ensemble_statistics(
        [arranged(member, layout) for member in members],
        [0.3 * (m + 1) for m in range(n_members)],
        [1.0] * n_members,
        reading,
        finish(
            *(reading, num_classes, names),
            real=real,
            batch=batch,
            count=count,
            extras=extras,
            n_regions=n_regions,
        ),
    )


def streaming(*, count: bool) -> None:
    """An update and a finalize, more classes than registers hold."""
    num_classes = 40
    (member,) = logits(1, num_classes, SHAPE, dtype=torch.float16, batch=1)
    layout = StateLayout(num_classes, entropy=True, square=True, votes=True)
    state = torch.zeros(layout.planes, 1, *SHAPE)
    ensemble_accumulate.ensemble_accumulate([member], [1.0], [1.7], SOFTMAX, layout, state)
    ensemble_finalize.ensemble_finalize(
        state, 1, 1.0, SOFTMAX, layout, finish(SOFTMAX, num_classes, MAPS, count=count)
    )


def temperature(num_classes: int, dtype: torch.dtype, *, per_class: bool, bernoulli: bool) -> None:
    (values,) = logits(1, num_classes, SHAPE, dtype=dtype, batch=1)
    problem = TemperatureProblem(
        *(values.movedim(1, 0), labels(num_classes, (1, *SHAPE)), torch.ones(1, *SHAPE).bool()),
        *(0, True, bernoulli, False, 1e-30, 1e-8),
    )
    parameters = num_classes if per_class else 1
    sums = torch.zeros(TemperatureLayout(parameters).words, dtype=torch.float64)
    counts = torch.zeros(3, dtype=torch.int64)
    temperature_sums.temperature_sums(problem, [0.7] * parameters, per_class, counts, sums)


def losses(num_classes: int, dtype: torch.dtype, head: str, *, bins: bool) -> None:
    """Sums and gradient, of classes or of soft and hard bins."""
    (z,) = logits(1, num_classes, SHAPE, dtype=dtype, batch=2)
    tensors = z.unsqueeze(0), labels(num_classes, (1, 2, *SHAPE))
    reading = LossReading(head, 1)
    gradient = torch.empty_like(tensors[0])
    if not bins:
        wanted = SumsWanted(overlaps=True, likelihood=True, rest=head == "sigmoid")
        sums = torch.zeros(1, 2, 6, num_classes, dtype=torch.float64)
        class_sums.class_sums(*tensors, reading, wanted, sums)
        class_sums.class_gradient(*tensors, reading, wanted, sums, gradient)
        return
    for soft in (True, False):
        gaps = torch.zeros(1, 2, num_classes, 41, dtype=torch.float64)
        bin_gaps.bin_gaps(*tensors, reading, GapBins(20, soft), gaps)
        bin_gaps.bin_gradient(*tensors, reading, GapBins(20, soft), gaps, gradient)


def segments(dtype: torch.dtype, *, multilabel: bool) -> None:
    """Everything that a pass over segments can read."""
    real = torch.float64 if dtype == torch.float64 else torch.float32
    (mean,) = logits(1, 3, SHAPE, dtype=dtype, batch=2)
    shape = mean.shape if multilabel else (2, *SHAPE)
    maps = torch.zeros(2, *SHAPE, dtype=real)
    inside = torch.ones(shape, dtype=torch.bool)
    problem = SegmentProblem(
        *(mean, labels(2, shape), maps, maps, mean.to(real), inside, -1, multilabel, True, True)
    )
    sums = torch.zeros(2, 3, SegmentWords.COUNT, dtype=torch.int64)
    segment_sums.segment_sums(problem, sums)


# Together every kernel but those of the bins, for every capability.
EVERYWHERE: dict[str, Callable[[], None]] = {
    "one shot": lambda: one_shot(4, ("entropy", "label"), count=True),
    "streaming": lambda: streaming(count=False),
    "temperature": lambda: temperature(4, torch.float32, per_class=False, bernoulli=False),
    "losses": lambda: losses(4, torch.float32, "softmax", bins=False),
    "segments": lambda: segments(torch.float32, multilabel=False),
}
# More of what a kernel is compiled for, for one capability.
ONCE: dict[str, Callable[[], None]] = {
    "entropy": lambda: one_shot(4, ("entropy",), n_members=50),
    "half": lambda: one_shot(4, MAPS, dtype=torch.bfloat16),
    "fourteen": lambda: one_shot(14, ("entropy",), n_members=10),
    "multilabel": lambda: one_shot(3, ("mean", "entropy"), reading=MULTILABEL, count=True),
    "double": lambda: one_shot(4, ("mean", "entropy"), dtype=torch.float64),
    "counted from a state": lambda: streaming(count=True),
    "extras": lambda: one_shot(4, ("entropy",), count=True, extras=EXTRAS, n_regions=2),
    "strided": lambda: one_shot(4, ("label",), layout="strided", batch=3),
    "per class": lambda: temperature(14, torch.float16, per_class=True, bernoulli=False),
    "Bernoullis": lambda: temperature(5, torch.float64, per_class=True, bernoulli=True),
    "sigmoid losses": lambda: losses(3, torch.bfloat16, "sigmoid", bins=False),
    "many classes": lambda: losses(104, torch.float32, "softmax", bins=False),
    "segments of labels": lambda: segments(torch.float64, multilabel=True),
    "bins": lambda: losses(4, torch.float32, "softmax", bins=True),
}
ONE = 90
LAUNCHES = EVERYWHERE | ONCE


@cache
def kernels(capability: int, launch: str) -> list[Compiled]:
    return compile_kernels(capability, LAUNCHES[launch])


@pytest.fixture(scope="module", autouse=True)
def _compiled_afresh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with triton.knobs.cache.scope():
        triton.knobs.cache.dir = str(tmp_path_factory.mktemp("triton"))
        yield


def launched(capability: int) -> list[tuple[str, Compiled]]:
    """Every kernel of every launch for a capability."""
    names = LAUNCHES if capability == ONE else EVERYWHERE
    return [(name, kernel) for name in names for kernel in kernels(capability, name)]


# One is compiled for in any run; the oldest Triton compiles every kernel once more.
on_every_capability = pytest.mark.parametrize(
    "capability",
    [pytest.param(it, marks=() if it == ONE else pytest.mark.slow) for it in CAPABILITIES],
)


@on_every_capability
def test_every_kernel_compiles(capability):
    compiled = {kernel.name for _, kernel in launched(capability)}
    expected = {"statistics_kernel", "accumulate_kernel", "finalize_kernel", "fold_kernel"}
    expected |= {"table_kernel", "temperature_kernel", "class_sums_kernel", "class_gradient_kernel"}
    expected |= {"segment_kernel"}
    assert compiled >= expected
    if capability == ONE:
        assert compiled == expected | {"bin_gaps_kernel", "bin_gradient_kernel"}
    for _, kernel in launched(capability):
        assert re.search(rf"^\.target sm_{capability}a?$", kernel.ptx, re.MULTILINE)


@on_every_capability
def test_no_kernel_keeps_anything_in_local_memory(capability, tmp_path):
    for launch, kernel in launched(capability):
        assert ".local" not in kernel.ptx, (launch, kernel.name)
        used = kernel.resources(tmp_path)
        assert used["REG"] > 0
        # Counting extras waits for atomics: ptxas may put up to eight registers aside there.
        spilled = 32 if launch == "extras" else 0
        assert used["STACK"] <= spilled, (launch, kernel.name, used)
        assert used["LOCAL"] == 0, (launch, kernel.name, used)


@on_every_capability
def test_every_address_is_computed_in_64_bits(capability):
    for launch, kernel in launched(capability):
        assert ".address_size 64" in kernel.ptx
        assert kernel.block_addresses() > 0
        assert kernel.narrow_addresses() == [], (launch, kernel.name)


@pytest.mark.parametrize(
    ("launch", "width", "n_loads"),
    [("entropy", 16, 4), ("half", 16, 4), ("fourteen", 16, 14), ("double", 16, 4)],
)
def test_members_are_read_sixteen_bytes_at_a_time(launch, width, n_loads):
    (kernel,) = [k for k in kernels(ONE, launch) if k.name == "statistics_kernel"]
    widths = kernel.global_loads()
    assert widths[:n_loads] == [width] * n_loads


@on_every_capability
def test_counting_reads_members_sixteen_bytes_at_a_time_too(capability):
    kernel = kernels(capability, "one shot")[0]
    assert kernel.global_loads().count(16) >= 4


def test_strided_members_are_read_one_by_one():
    kernel = kernels(ONE, "strided")[0]
    assert set(kernel.global_loads()) == {4}


@on_every_capability
def test_atomics_are_relaxed_integer_additions(capability):
    counting = kernels(capability, "one shot")[0]
    assert counting.atomics() == {"red.global.gpu.relaxed.add.u64"}
    (segment,) = kernels(capability, "segments")
    assert segment.atomics() == {"red.global.gpu.relaxed.add.u64"}
    for kernel in kernels(capability, "streaming"):
        assert kernel.atomics() == set(), kernel.name


@on_every_capability
def test_nothing_is_contracted_where_it_is_not_written_out(capability):
    """The statistics of equal probabilities are equal integers only without contraction."""
    for launch, kernel in launched(capability):
        assert kernel.fusion is False, (launch, kernel.name)
    fold = kernels(capability, "one shot")[-1]
    assert fold.name == "fold_kernel"
    assert "fma" not in fold.ptx


def test_division_of_the_statistics_is_correctly_rounded():
    kernel = kernels(ONE, "one shot")[0]
    assert "div.rn.f32" in kernel.ptx
    assert "div.full.f32" not in kernel.ptx
    assert "div.approx" not in kernel.ptx
