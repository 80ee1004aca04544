"""The torchmetrics adapters: values, and everything torchmetrics does with a metric."""

from __future__ import annotations

import copy
import inspect
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torchmetrics
import torchmetrics.classification as theirs
from torch import Tensor

import fastcal.torchmetrics as ours
from fastcal import CalibrationStatistics, ensemble_entropy

CLASSES = 4


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """These tensors are too small to share."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def problem(n: int = 60, seed: int = 7) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    probs = (2 * torch.randn(2, CLASSES, n, generator=generator, dtype=torch.float64)).softmax(1)
    return probs, torch.randint(0, CLASSES, (2, n), generator=generator)


def binary_problem() -> tuple[Tensor, Tensor]:
    probs, target = problem()
    return probs[:, 0], (target == 0).long()


def labels_problem() -> tuple[Tensor, Tensor]:
    probs, target = problem()
    return probs, torch.stack([(target == k) | (target == 0) for k in range(CLASSES)], 1).long()


Make = Callable[..., torchmetrics.Metric]
Data = Callable[[], tuple[Tensor, Tensor]]

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


def double(metric: torchmetrics.Metric) -> torchmetrics.Metric:
    return metric.set_dtype(torch.float64)


# --- values ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("norm", ["l1", "l2", "max"])
@pytest.mark.parametrize("ignore_index", [None, 1])
def test_calibration_errors_equal_those_of_torchmetrics(
    norm: Any, ignore_index: int | None
) -> None:
    settings: dict[str, Any] = {"n_bins": 7, "norm": norm, "ignore_index": ignore_index}
    probs, target = problem()
    mine = double(ours.MulticlassCalibrationError(CLASSES, **settings))(probs, target)
    reference = theirs.MulticlassCalibrationError(CLASSES, **settings)(probs, target)
    # Theirs rounds the confidences of several classes to float32.
    assert mine.item() == pytest.approx(reference.item(), abs=2e-7)
    positive, present = binary_problem()
    settings["ignore_index"] = None if ignore_index is None else -1
    present[:, :9] = -1 if ignore_index is not None else present[:, :9]
    mine = double(ours.BinaryCalibrationError(**settings))(positive, present)
    reference = theirs.BinaryCalibrationError(**settings)(positive, present)
    assert mine.item() == pytest.approx(reference.item(), abs=1e-12)


def test_golden_numbers_of_torchmetrics() -> None:
    """torchmetrics' own documentation, and its issue #3510 for what becomes of 1.0."""
    preds, target = torch.tensor([0.25, 0.25, 0.55, 0.75, 0.75]), torch.tensor([0, 0, 1, 1, 1])
    for norm, expected in {"l1": 0.2900, "l2": 0.2918, "max": 0.3167}.items():
        value = ours.BinaryCalibrationError(n_bins=2, norm=norm)(preds, target)  # type: ignore[arg-type]
        assert value.item() == pytest.approx(expected, abs=5e-5)
    sure = torch.tensor([0.95, 1.0]), torch.tensor([1, 0])
    assert ours.BinaryCalibrationError()(*sure).item() == pytest.approx(0.475)
    assert theirs.BinaryCalibrationError()(*sure).item() == pytest.approx(0.525)


def test_convention_of_torchmetrics_gives_its_numbers_at_every_edge() -> None:
    edges = torch.linspace(0, 1, 16)
    near = torch.cat([edges, edges.nextafter(torch.tensor(0.5)), torch.ones(3)])
    target = torch.arange(len(near)).remainder(3).eq(0).long()
    logits = torch.logit(near.double())
    for norm in ("l1", "l2", "max"):
        expected = theirs.BinaryCalibrationError(norm=norm)(near, target).item()
        metric = ours.BinaryCalibrationError(norm=norm, convention="torchmetrics")
        assert metric(near, target).item() == pytest.approx(expected, abs=1e-6)
        metric.reset()
        assert ours.BinaryCalibrationError(norm=norm)(near, target).item() != pytest.approx(
            expected, abs=1e-3
        )
    finite = logits.isfinite()
    told = ours.BinaryCalibrationError(from_logits=True, convention="torchmetrics")
    asked = ours.BinaryCalibrationError(convention="torchmetrics")
    assert told(logits[finite], target[finite]).item() == pytest.approx(
        asked(logits[finite].sigmoid(), target[finite]).item()
    )


def test_classwise_and_multilabel_errors_are_binary_errors_of_each_class() -> None:
    probs, target = problem()
    classwise = ours.ClasswiseCalibrationError(CLASSES, average="none")
    one_by_one = [
        ours.BinaryCalibrationError()(probs[:, k], (target == k).long()) for k in range(CLASSES)
    ]
    torch.testing.assert_close(classwise(probs, target), torch.stack(one_by_one))
    mean = ours.ClasswiseCalibrationError(CLASSES)(probs, target)
    torch.testing.assert_close(mean, torch.stack(one_by_one).mean())
    labels = torch.stack([target == k for k in range(CLASSES)], 1)
    multilabel = ours.MultilabelCalibrationError(CLASSES, average=None)
    torch.testing.assert_close(multilabel(probs, labels), torch.stack(one_by_one))
    micro = ours.MultilabelCalibrationError(CLASSES, average="micro")(probs, labels)
    pooled = ours.BinaryCalibrationError()(probs.flatten(), labels.flatten())
    torch.testing.assert_close(micro, pooled)


def test_brier_scores_equal_their_formulas() -> None:
    probs, target = problem()
    hot = torch.nn.functional.one_hot(target, CLASSES).movedim(-1, 1)
    expected = (probs - hot).square().sum(1).mean().item()
    value = double(ours.BrierScore("multiclass", num_classes=CLASSES))(probs, target)
    assert value.item() == pytest.approx(expected, abs=1e-12)
    labels = double(ours.BrierScore("multilabel", num_labels=CLASSES))(probs, hot)
    assert labels.item() == pytest.approx(expected, abs=1e-12)
    positive, present = binary_problem()
    value = double(ours.BrierScore("binary"))(positive, present)
    assert value.item() == pytest.approx((positive - present).square().mean().item(), abs=1e-12)


def test_predictive_entropy_is_the_mean_of_the_entropy_map() -> None:
    probs, target = problem()
    other = probs.flip(1)
    metric = double(ours.PredictiveEntropy())
    metric.update(probs)
    metric.update([probs, other])
    expected = torch.cat(
        [ensemble_entropy(members, from_logits=False) for members in ([probs], [probs, other])]
    )
    assert metric.compute().item() == pytest.approx(expected.mean().item(), abs=1e-12)
    kept = double(ours.PredictiveEntropy(ignore_index=2))(probs, target)
    entropy = ensemble_entropy([probs], from_logits=False)
    assert kept.item() == pytest.approx(entropy[target != 2].mean().item(), abs=1e-12)


def test_entropies_are_summed_exactly_in_any_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    from fastcal.torchmetrics import predictive_entropy

    probs, _ = problem(200)
    whole, parts = ours.PredictiveEntropy(), ours.PredictiveEntropy()
    whole.update(probs)
    monkeypatch.setattr(predictive_entropy, "_CHUNK", 7)
    for part in probs.split(33, dim=2):
        parts.update(part)
    assert torch.equal(whole.counts, parts.counts)


def test_logits_are_what_from_logits_says() -> None:
    probs, target = problem()
    logits = probs.log() + 3
    for make in (
        lambda **k: ours.MulticlassCalibrationError(CLASSES, **k),
        lambda **k: ours.MulticlassBrierScore(CLASSES, **k),
        lambda **k: ours.PredictiveEntropy(**k),
    ):
        assert make(from_logits=True)(logits, target).item() == pytest.approx(
            make()(probs, target).item(), abs=1e-6
        )
    with pytest.raises(ValueError, match="from_logits=True"):
        ours.MulticlassCalibrationError(CLASSES)(logits, target)


def test_statistics_hold_every_other_metric() -> None:
    probs, target = problem()
    metric = ours.MulticlassCalibrationError(CLASSES, n_bins=5)
    for half in (0, 1):
        metric.update(probs[half : half + 1], target[half : half + 1])
    expected = CalibrationStatistics(CLASSES, 5, calibration="top-label")
    expected.update(probs, target)
    assert metric.statistics() == expected


@pytest.mark.parametrize(
    ("task", "data", "calibration", "read"),
    [
        ("binary", binary_problem, "classwise", lambda s: (s.adaptive_ece(), s.auroc())),
        ("multiclass", problem, "top-label", lambda s: (s.adaptive_ece(), s.auroc(), s.aurc())),
        ("multilabel", labels_problem, "classwise", lambda s: (s.tace(), *s.classwise_auroc())),
    ],
)
def test_fine_bins_keep_what_is_read_in_the_order_of_the_probability(
    task: Any,
    data: Data,
    calibration: Any,
    read: Callable[[CalibrationStatistics], tuple[float, ...]],
) -> None:
    preds, target = data()
    classes = {"num_classes": CLASSES, "num_labels": CLASSES}
    metrics = [ours.CalibrationError(task, n_bins=7, **classes, fine_bins=1024) for _ in range(2)]
    for half, metric in enumerate(metrics):
        metric.update(preds[half : half + 1], target[half : half + 1])
    first, second = metrics
    first.merge_state(second)
    counted = first.statistics()  # type: ignore[operator]
    whole = CalibrationStatistics(
        1 if task == "binary" else CLASSES,
        7,
        calibration=calibration,
        multilabel=task == "multilabel",
        fine_bins=1024,
    )
    whole.update(preds, target)
    assert counted == whole
    assert read(counted) == read(whole)
    plain = double(ours.CalibrationError(task, n_bins=7, **classes))
    assert double(first).compute() == plain(preds, target)
    with pytest.raises(ValueError, match="fine cells were not kept"):
        read(plain.statistics())  # type: ignore[operator]


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


# --- arguments ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["CalibrationError", "BinaryCalibrationError", "MulticlassCalibrationError"]
)
def test_arguments_are_those_of_torchmetrics_in_their_order(name: str) -> None:
    signatures = [inspect.signature(getattr(library, name)) for library in (theirs, ours)]
    wanted, found = (list(signature.parameters) for signature in signatures)
    assert found[: len(wanted) - 1] == wanted[:-1]


def test_tasks_choose_the_metric() -> None:
    assert isinstance(ours.CalibrationError("binary"), ours.BinaryCalibrationError)
    multiclass = ours.CalibrationError("multiclass", num_classes=3, n_bins=4, norm="max")
    assert isinstance(multiclass, ours.MulticlassCalibrationError)
    assert (multiclass.n_bins, multiclass.norm) == (4, "max")
    multilabel = ours.CalibrationError("multilabel", num_labels=3, average="none")
    assert isinstance(multilabel, ours.MultilabelCalibrationError)
    assert isinstance(ours.BrierScore("binary"), ours.BinaryBrierScore)
    with pytest.raises(ValueError, match="task must be"):
        ours.CalibrationError("regression")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="num_classes is needed"):
        ours.BrierScore("multiclass")


def test_bad_arguments_and_data_are_named_and_leave_the_counts() -> None:
    probs, target = problem()
    metric = ours.MulticlassCalibrationError(CLASSES)
    metric.update(probs, target)
    before = metric.counts.clone()
    with pytest.raises(ValueError, match="4 classes along axis 1"):
        metric.update(probs[:, :3], target)
    with pytest.raises(ValueError, match=r"target is outside \[0, 4\)"):
        metric.update(probs, target + 1)
    broken = probs.clone()
    broken[0, 0, 0] = float("nan")
    with pytest.raises(ValueError, match="no valid probabilities at 1 voxel"):
        metric.update(broken, target)
    assert torch.equal(metric.counts, before)
    with pytest.raises(ValueError, match="no valid probabilities at 1 voxel"):
        ours.PredictiveEntropy().update(broken)
    for trusting in (
        ours.MulticlassCalibrationError(CLASSES, validate_args=False),
        ours.PredictiveEntropy(validate_args=False),
    ):
        trusting.update(broken, target)
        assert trusting.compute().isfinite()
    with pytest.raises(ValueError, match="fine_bins must be"):
        ours.CalibrationError("binary", fine_bins=100)
    with pytest.raises(ValueError, match="norm must be one of"):
        ours.BinaryCalibrationError(norm="l3")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="average must be"):
        ours.ClasswiseCalibrationError(3, average="micro")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="num_labels must be 2 or more"):
        ours.MultilabelCalibrationError(1)
    with pytest.raises(ValueError, match="Unexpected keyword arguments"):
        ours.BinaryCalibrationError(bins=3)
    with pytest.raises(ValueError, match="ignore_index needs a target"):
        ours.PredictiveEntropy(ignore_index=0).update(probs)


def test_without_torchmetrics_the_import_names_the_extra() -> None:
    program = (
        "import sys\nimport fastcal\nassert 'torchmetrics' not in sys.modules\n"
        "sys.modules['torchmetrics'] = None\n"
        "try:\n    import fastcal.torchmetrics\n"
        "except ImportError as error:\n    print(error)"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert "fastcal[torchmetrics]" in result.stdout
