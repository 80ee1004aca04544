"""The torchmetrics adapters: their values and their arguments."""

from __future__ import annotations

import inspect
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torchmetrics.classification as theirs
from torchmetrics_cases import (
    CLASSES,
    Data,
    binary_problem,
    double,
    labels_problem,
    one_thread,  # noqa: F401
    problem,
)

import fastcal.torchmetrics as ours
from fastcal import CalibrationStatistics, ensemble_entropy

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
    with pytest.raises(ValueError, match="fine_bins must be set"):
        read(plain.statistics())  # type: ignore[operator]


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
    with pytest.raises(ValueError, match="num_classes must be given"):
        ours.BrierScore("multiclass")


def test_bad_arguments_and_data_are_named_and_leave_the_counts() -> None:
    probs, target = problem()
    metric = ours.MulticlassCalibrationError(CLASSES)
    metric.update(probs, target)
    before = metric.counts.clone()
    with pytest.raises(ValueError, match="4 classes along axis 1"):
        metric.update(probs[:, :3], target)
    with pytest.raises(ValueError, match=r"target must lie in \[0, 4\)"):
        metric.update(probs, target + 1)
    broken = probs.clone()
    broken[0, 0, 0] = float("nan")
    with pytest.raises(ValueError, match="got no valid probabilities at 1"):
        metric.update(broken, target)
    assert torch.equal(metric.counts, before)
    with pytest.raises(ValueError, match="got no valid probabilities at 1"):
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
    with pytest.raises(ValueError, match="num_labels must be at least 2"):
        ours.MultilabelCalibrationError(1)
    with pytest.raises(ValueError, match="Unexpected keyword arguments"):
        ours.BinaryCalibrationError(bins=3)
    with pytest.raises(ValueError, match="target must be given with ignore_index"):
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
