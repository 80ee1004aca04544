"""What torchmetrics does with a metric, on one process and on two."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
import torchmetrics
from torch import Tensor, nn
from torchmetrics_cases import (
    CLASSES,
    Data,
    Make,
    binary_problem,
    double,
    labels_problem,
    one_thread,  # noqa: F401
    problem,
)

import fastcal.torchmetrics as ours
from fastcal import CalibrationStatistics
from fastcal.core.problem import FRACTION_BITS

METRICS: dict[str, tuple[Make, Data]] = {
    "binary": (ours.BinaryCalibrationError, binary_problem),
    "multiclass": (lambda **k: ours.MulticlassCalibrationError(CLASSES, **k), problem),
    "classwise": (lambda **k: ours.ClasswiseCalibrationError(CLASSES, **k), problem),
    "multilabel": (lambda **k: ours.MultilabelCalibrationError(CLASSES, **k), labels_problem),
    "fine": (lambda **k: ours.MulticlassCalibrationError(CLASSES, fine_bins=64, **k), problem),
    "brier-binary": (ours.BinaryBrierScore, binary_problem),
    "brier": (lambda **k: ours.MulticlassBrierScore(CLASSES, **k), problem),
    "brier-labels": (lambda **k: ours.MultilabelBrierScore(CLASSES, **k), labels_problem),
    "entropy": (ours.PredictiveEntropy, problem),
}


@pytest.fixture(params=METRICS)
def case(request: pytest.FixtureRequest) -> tuple[Make, Tensor, Tensor]:
    make, data = METRICS[request.param]
    return make, *data()


# --- what torchmetrics does with a metric ---------------------------------------------------------


def test_batches_in_any_order_give_the_same_integers(case: tuple[Make, Tensor, Tensor]) -> None:
    make, preds, target = case
    whole, parts = make(), make()
    whole.update(preds, target)
    for index in (1, 0):
        parts.update(preds[index : index + 1], target[index : index + 1])
    assert torch.equal(whole.counts, parts.counts) or whole.compute() == parts.compute()
    assert whole.counts.dtype == torch.int64


def test_forward_gives_the_batch_and_keeps_the_total(case: tuple[Make, Tensor, Tensor]) -> None:
    make, preds, target = case
    metric, alone, total = make(), make(), make()
    metric(preds[:1], target[:1])
    second = metric(preds[1:], target[1:])
    alone.update(preds[1:], target[1:])
    assert second == alone.compute()
    total.update(preds, target)
    assert metric.compute() == total.compute()


def test_reset_clone_copy_and_pickle(case: tuple[Make, Tensor, Tensor]) -> None:
    make, preds, target = case
    metric = make()
    metric.update(preds, target)
    value = metric.compute()
    for twin in (metric.clone(), copy.deepcopy(metric), pickle.loads(pickle.dumps(metric))):
        assert twin.compute() == value
        twin.update(preds[:1], target[:1])
        assert not torch.equal(twin.counts, metric.counts)
    metric.reset()
    assert metric.counts.eq(0).all()
    metric.update(preds, target)
    assert metric.compute() == value


def test_checkpoints_restore_the_counts() -> None:
    probs, target = problem()
    metric, restored = (ours.MulticlassCalibrationError(CLASSES) for _ in range(2))
    metric.persistent(True)
    restored.persistent(True)
    metric.update(probs, target)
    restored.load_state_dict(metric.state_dict())
    assert torch.equal(restored.counts, metric.counts)


def test_counts_stay_integers_whatever_the_type(case: tuple[Make, Tensor, Tensor]) -> None:
    make, preds, target = case
    metric = make()
    metric.update(preds, target)
    before = metric.counts.clone()
    for change in (metric.half, metric.double, metric.float):
        change()
        assert torch.equal(metric.counts, before)
        assert metric.counts.dtype == torch.int64
    metric.set_dtype(torch.float64)
    assert metric.counts.dtype == torch.int64
    assert metric.compute().dtype == torch.float64
    metric.to("meta")
    assert metric.counts.device.type == "meta"


@pytest.mark.filterwarnings("ignore:This property will be removed:DeprecationWarning")  # theirs
def test_metrics_are_scriptable_as_torchmetrics_own_tests_ask(
    case: tuple[Make, Tensor, Tensor],
) -> None:
    make, preds, target = case
    metric = make()
    assert isinstance(torch.jit.script(metric), torch.jit.ScriptModule)
    metric.update(preds, target)


def test_results_are_float32_inside_a_module_in_half_precision(
    case: tuple[Make, Tensor, Tensor],
) -> None:
    make, preds, target = case
    expected = make()
    expected.update(preds, target)
    inside = nn.ModuleDict({"metric": make()}).to(torch.bfloat16)["metric"]
    inside.update(preds, target)
    assert inside.compute().dtype == torch.float32
    assert torch.equal(inside.compute(), expected.compute())


def test_messages_name_the_arguments_that_the_metrics_have() -> None:
    preds, target = problem()
    for metric in (
        ours.MulticlassCalibrationError(CLASSES),
        ours.MulticlassCalibrationError(CLASSES, from_logits=True),
        ours.MulticlassBrierScore(CLASSES),
    ):
        with pytest.raises(ValueError, match=r"^preds must .*validate_args=False") as error:
            metric.update(preds * float("nan"), target)
        assert "nan_policy" not in str(error.value)
        assert "update_from_logits" not in str(error.value)
        with pytest.raises(TypeError, match=r"^preds must be a torch tensor"):
            metric.update("preds", target)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"^preds must .*\(for logits pass from_logits=True\)"):
        ours.MulticlassCalibrationError(CLASSES).update(5 * preds, target)
    with pytest.raises(ValueError, match=r"^preds must have the shape of target, \(2, 60\)"):
        ours.BinaryCalibrationError().update(preds, target)


def test_metrics_stand_in_a_collection() -> None:
    probs, target = problem()
    collection = torchmetrics.MetricCollection(
        {
            "ece": ours.MulticlassCalibrationError(CLASSES),
            "mce": ours.MulticlassCalibrationError(CLASSES, norm="max"),
            "fine": ours.MulticlassCalibrationError(CLASSES, fine_bins=64),
            "brier": ours.MulticlassBrierScore(CLASSES),
            "entropy": ours.PredictiveEntropy(),
        }
    )
    for half in (0, 1):
        collection.update(probs[half : half + 1], target[half : half + 1])
    found = collection.compute()
    statistics = CalibrationStatistics(CLASSES)
    statistics.update(probs, target)
    assert found["ece"].item() == pytest.approx(statistics.ece())
    assert found["fine"] == found["ece"]
    assert collection["fine"].statistics().fine_bins == 64
    assert found["mce"].item() == pytest.approx(statistics.ece("max"))
    assert found["brier"].item() == pytest.approx(statistics.brier())


def test_plot_draws_values_on_axes(case: tuple[Make, Tensor, Tensor]) -> None:
    from matplotlib.figure import Figure

    make, preds, target = case
    metric = make()
    values = [metric(preds[index : index + 1], target[index : index + 1]) for index in (0, 1)]
    ax = Figure().add_subplot()
    assert metric.plot(values, ax=ax)[1] is ax
    heights = ax.lines[0].get_ydata()
    assert list(heights) == pytest.approx([value.item() for value in values])


def test_nothing_counted_is_nan() -> None:
    with pytest.warns(UserWarning, match="before the ``update``"):
        assert ours.PredictiveEntropy().compute().isnan()
    metric = ours.MulticlassCalibrationError(2, ignore_index=0)
    metric.update(torch.tensor([[0.3, 0.7]]), torch.tensor([0]))
    assert metric.compute().isnan()


# --- two processes --------------------------------------------------------------------------------

WORKER = """
import sys
import torch
import torch.distributed as dist
import fastcal.torchmetrics as ours

rank, folder = int(sys.argv[1]), sys.argv[2]
torch.set_num_threads(1)
dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
data = torch.load(f"{folder}/data.pt")
metrics = [
    ours.MulticlassCalibrationError(4, fine_bins=64),
    ours.MulticlassBrierScore(4),
    ours.PredictiveEntropy(),
]
for probs, target in zip(data["probs"][rank::2], data["target"][rank::2]):
    for metric in metrics:
        metric.update(probs, target)
mine = [metric.counts.clone() for metric in metrics]
values = [metric.set_dtype(torch.float64).compute() for metric in metrics]
total = metrics[0].statistics().state_dict()["total"]
back = all(torch.equal(a, m.counts) for a, m in zip(mine, metrics))
torch.save({"values": values, "total": total, "back": back}, f"{folder}/{rank}.pt")
dist.destroy_process_group()
"""


def test_two_gloo_processes_give_the_bits_of_one(tmp_path: Path) -> None:
    probs, target = problem(300)
    batches = [part.contiguous() for part in probs.split(60, dim=2)]
    targets = [part.contiguous() for part in target.split(60, dim=1)]
    torch.save({"probs": batches, "target": targets}, tmp_path / "data.pt")
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, str(rank), str(tmp_path)],
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in (0, 1)
    ]
    for process in processes:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
    metrics = (
        ours.MulticlassCalibrationError(CLASSES, fine_bins=64),
        ours.MulticlassBrierScore(CLASSES),
        ours.PredictiveEntropy(),
    )
    expected = [double(metric)(probs, target) for metric in metrics]
    for rank in (0, 1):
        found = torch.load(tmp_path / f"{rank}.pt")
        assert [value.item() for value in found["values"]] == [v.item() for v in expected]
        assert torch.equal(found["total"], metrics[0].statistics().state_dict()["total"])
        assert found["back"]


def test_metrics_of_different_settings_do_not_share_a_state() -> None:
    settings: list[dict[str, Any]] = [
        {},
        {"ignore_index": 0},
        {"closed": "left"},
        {"norm": "max"},  # counts the same as the first one
    ]
    together = torchmetrics.MetricCollection(
        {str(s): ours.MulticlassCalibrationError(2, n_bins=4, **s) for s in settings}
    )
    first = (torch.tensor([[0.1, 0.9], [0.2, 0.8]]), torch.tensor([1, 1]))
    second = (torch.tensor([[0.75, 0.25], [0.4, 0.6]]), torch.tensor([0, 1]))
    for batch in (first, second):
        together.update(*batch)
    values = together.compute()
    for s in settings:
        alone = ours.MulticlassCalibrationError(2, n_bins=4, **s)
        for batch in (first, second):
            alone.update(*batch)
        assert torch.equal(values[str(s)], alone.compute()), s
    assert sorted(map(len, together.compute_groups.values())) == [1, 1, 2]


def test_a_metric_that_was_reset_under_inference_mode_is_updated_outside() -> None:
    metric = ours.MulticlassCalibrationError(2)
    entropy = ours.PredictiveEntropy()
    batch = (torch.tensor([[0.1, 0.9], [0.2, 0.8]]), torch.tensor([1, 1]))
    with torch.inference_mode():
        for each in (metric, entropy):
            each.update(*batch)
            each.reset()
    for each in (metric, entropy):
        each.update(*batch)
    assert metric.compute() == pytest.approx(0.15)
    assert entropy.compute() > 0


@pytest.mark.parametrize("way", ["update", "forward"])
def test_no_batch_of_several_threads_is_lost(way: str, case: tuple[Make, Tensor, Tensor]) -> None:
    make, preds, target = case
    metric, alone = make(), make()
    batches = [(preds[:, ..., i : i + 8], target[..., i : i + 8]) for i in range(0, 64, 8)] * 8
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda batch: getattr(metric, way)(*batch), batches))
    finally:
        sys.setswitchinterval(before)
    for batch in batches:
        alone.update(*batch)
    if isinstance(metric, ours.PredictiveEntropy):  # fractions that forward adds may exceed 1
        for each in (metric, alone):
            voxels, whole, fraction = each.counts.tolist()
            each.counts = torch.tensor([voxels, (whole << FRACTION_BITS) + fraction])
    assert torch.equal(metric.counts, alone.counts)
