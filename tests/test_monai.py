"""The MONAI adapters: the metric and the transforms against MONAI's own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.metrics import CalibrationErrorMetric as Theirs
from monai.transforms import Compose, EnsureTyped, MeanEnsemble, MeanEnsembled
from torch import Tensor, nn

from fastcal import ensemble_statistics
from fastcal.monai import (
    CalibrationError,
    CalibrationErrorMetric,
    EnsembleUncertainty,
    EnsembleUncertaintyd,
    UncertaintyInferer,
)

CLASSES = 3


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """These tensors are too small to share."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


AFFINE = np.diag([0.8, 0.9, 2.5, 1.0]) + np.eye(4, k=3) * 7


def problem(seed: int = 1) -> tuple[Tensor, Tensor]:
    """Probabilities and one-hot targets ``[B, C, *S]``."""
    generator = torch.Generator().manual_seed(seed)
    probs = (2 * torch.randn(2, CLASSES, 6, 7, generator=generator)).softmax(1)
    target = torch.randint(0, CLASSES, (2, 6, 7), generator=generator)
    return probs, nn.functional.one_hot(target, CLASSES).movedim(-1, 1).float()


def members(n: int = 3, *shape: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(2)
    return [
        torch.randn(CLASSES, *(shape or (4, 5, 3)), generator=generator, dtype=torch.float64)
        for _ in range(n)
    ]


# --- metric ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("reduction", ["expected", "average", "maximum"])
@pytest.mark.parametrize("include_background", [True, False])
@pytest.mark.parametrize("right", [True, False])
def test_errors_equal_those_of_monai(reduction: str, include_background: bool, right: bool) -> None:
    probs, hot = problem()
    settings: dict[str, Any] = {
        "num_bins": 8,
        "calibration_reduction": reduction,
        "include_background": include_background,
        "right": right,
    }
    found = CalibrationErrorMetric(**settings)(probs, hot)
    torch.testing.assert_close(found, Theirs(**settings)(probs, hot), rtol=0, atol=2e-6)


def test_bins_include_their_upper_edge_as_those_of_monai_do() -> None:
    """[0.5, 0.3] and [0.9]: gaps 0.1 and 0.1; with 0.5 in the upper bin 0.3 and 0.2."""
    probs = torch.tensor([[[0.5, 0.3, 0.9]]])
    hot = torch.tensor([[[1, 0, 1]]])
    found = CalibrationErrorMetric(2)(probs, hot)
    assert found.item() == pytest.approx((2 * 0.1 + 0.1) / 3)
    torch.testing.assert_close(found, Theirs(2)(probs, hot), rtol=0, atol=1e-6)


def test_edges_are_those_of_monai() -> None:
    """Each probability is an edge of numpy's, of torch's or of MONAI's, or a neighbour of one."""
    edges = torch.cat([torch.linspace(0, end, 21) for end in (1.0, 1 + 2.0**-23)])
    near = torch.cat([edges, edges.nextafter(torch.tensor(0.0)), edges.nextafter(edges + 1)])
    near = near[(near >= 0) & (near <= 1)]
    hot = torch.arange(len(near)).remainder(3).eq(0)[None, None].long()
    for reduction in ("expected", "average", "maximum"):
        settings: dict[str, Any] = {"calibration_reduction": reduction}
        found = CalibrationErrorMetric(**settings)(near[None, None], hot)
        torch.testing.assert_close(found, Theirs(**settings)(near[None, None], hot))


@pytest.mark.parametrize(
    "reduction",
    ["none", "mean", "sum", "mean_batch", "sum_batch", "mean_channel", "sum_channel"],
)
def test_batches_aggregate_as_in_monai(reduction: str) -> None:
    ours = CalibrationErrorMetric(metric_reduction=reduction, get_not_nans=True)
    theirs = Theirs(metric_reduction=reduction, get_not_nans=True)
    for seed in (1, 2):
        for metric in (ours, theirs):
            metric(*problem(seed))
    for found, expected in zip(ours.aggregate(), theirs.aggregate(), strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    again, _ = ours.aggregate("mean")
    torch.testing.assert_close(again, theirs.aggregate("mean")[0], rtol=0, atol=1e-6)
    ours.reset()
    with pytest.raises(ValueError, match="before aggregate is called"):
        ours.aggregate()


def test_lists_of_images_are_taken_too() -> None:
    probs, hot = problem()
    metric = CalibrationErrorMetric()
    torch.testing.assert_close(metric(list(probs), list(hot)), metric(probs, hot))
    one = CalibrationErrorMetric()(MetaTensor(probs[:, :1]), hot[:, :1].bool())
    torch.testing.assert_close(one, metric(probs, hot)[:, :1])


def test_bad_targets_and_probabilities_are_named() -> None:
    probs, hot = problem()
    metric = CalibrationErrorMetric()
    with pytest.raises(ValueError, match="y must have the shape of y_pred"):
        metric(probs, hot[:, :1])
    with pytest.raises(ValueError, match="y must hold 0 and 1"):
        metric(probs, hot / 2)
    with pytest.raises(ValueError, match=r"target must lie in \[0, 2\)"):
        metric(probs, 2 * hot.long())
    with pytest.raises(ValueError, match="outside"):
        metric(9 * probs, hot)
    with pytest.raises(ValueError, match="num_bins"):
        CalibrationErrorMetric(0)


# --- transforms -----------------------------------------------------------------------------------


@pytest.mark.parametrize("weights", [None, [1.0, 2.0, 0.5]])
@pytest.mark.parametrize("kind", ["list", "tuple", "stacked", "numpy", "numpy stacked"])
def test_transform_takes_what_mean_ensemble_takes(kind: str, weights: list[float] | None) -> None:
    parts: Any = [member.softmax(0) for member in members()]
    if "numpy" in kind:
        parts = [part.numpy() for part in parts]
    if "stacked" in kind:
        parts = np.stack(parts) if "numpy" in kind else torch.stack(parts)
    if kind == "tuple":
        parts = tuple(parts)
    found = EnsembleUncertainty(weights=weights, from_logits=False)(parts)
    expected: Any = MeanEnsemble(weights)(parts)
    assert type(found["mean"]) is type(expected)
    np.testing.assert_allclose(found["mean"], expected, atol=1e-7)
    mean = np.asarray(expected)
    entropy = -(mean * np.log(mean)).sum(0, keepdims=True)
    np.testing.assert_allclose(found["entropy"], entropy, atol=1e-6)
    assert type(found["entropy"]) is type(expected)


def test_transform_gives_the_maps_of_the_pass_channel_first() -> None:
    parts = members()
    names = ("mean", "label", "confidence", "expected_entropy", "variance", "disagreement")
    found = EnsembleUncertainty(maps=names)(parts)
    expected = ensemble_statistics(parts, maps=names, class_dim=0)
    for name in names:
        array = getattr(expected, name)
        assert torch.equal(found[name], array if name == "mean" else array[None])
        assert found[name].dtype == array.dtype
    labels = EnsembleUncertainty(maps=("label", "entropy"), multilabel=True)(parts)
    assert labels["label"].shape == (CLASSES, 4, 5, 3)
    assert labels["entropy"].shape == (1, 4, 5, 3)
    vector = EnsembleUncertainty(maps="entropy")([part[:, 0, 0, 0] for part in parts])
    assert vector.shape == (1,)


def test_metatensors_keep_their_affine_and_metadata() -> None:
    parts = [MetaTensor(part, affine=AFFINE, meta={"name": "case 7"}) for part in members()]
    stacked = MetaTensor(torch.stack(members()), affine=AFFINE, meta={"name": "case 7"})
    for given in (parts, stacked):
        for name, array in EnsembleUncertainty()(given).items():
            assert isinstance(array, MetaTensor), name
            np.testing.assert_array_equal(array.affine, AFFINE)
            assert array.meta["name"] == "case 7"


def test_dictionary_transform_is_mean_ensembled_with_more() -> None:
    parts = [MetaTensor(part.softmax(0), affine=AFFINE) for part in members()]
    data: dict[Any, Any] = {f"pred{i}": part for i, part in enumerate(parts)}
    keys, weights = list(data), [3.0, 1.0, 1.0]
    found = EnsembleUncertaintyd(keys, "pred", weights=weights, from_logits=False)(data)
    expected = MeanEnsembled(keys, "pred", weights)(data)
    torch.testing.assert_close(found["pred"], expected["pred"], atol=1e-7, rtol=0)
    assert set(found) - set(expected) == {"pred_entropy", "pred_mutual_information"}
    np.testing.assert_array_equal(found["pred_entropy"].affine, AFFINE)
    assert "pred" not in data

    listed = EnsembleUncertaintyd("pred", from_logits=False, weights=weights)({"pred": parts})
    assert torch.equal(listed["pred"], found["pred"])
    stacked = {"pred": torch.stack(parts)}
    pipeline = Compose([EnsureTyped("pred"), EnsembleUncertaintyd("pred", from_logits=False)])
    torch.testing.assert_close(
        pipeline(stacked)["pred"], MeanEnsemble()(stacked["pred"]), atol=1e-7, rtol=0
    )


def test_missing_members_are_an_error_unless_allowed() -> None:
    parts = members(2)
    data = {"a": parts[0], "b": parts[1]}
    with pytest.raises(KeyError):
        EnsembleUncertaintyd(["a", "b", "c"], "pred")(data)
    found = EnsembleUncertaintyd(["a", "b", "c"], "pred", allow_missing_keys=True)(data)
    assert torch.equal(found["pred"], EnsembleUncertaintyd(["a", "b"], "pred")(data)["pred"])
    none = EnsembleUncertaintyd(["c"], "pred", allow_missing_keys=True)(data)
    assert set(none) == {"a", "b"}


def test_bad_arguments_of_the_transforms_are_named() -> None:
    with pytest.raises(ValueError, match="weights must be one number per member"):
        EnsembleUncertainty(weights=np.ones((3, 2)))
    with pytest.raises(
        ValueError, match="space must be 'prob' for the map 'mutual_information', got 'logit'"
    ):
        EnsembleUncertainty(space="logit")
    with pytest.raises(ValueError, match="got 'sharpness'"):
        EnsembleUncertaintyd("a", maps="sharpness")
    with pytest.raises(ValueError, match="at least one map"):
        EnsembleUncertainty(maps=())
    with pytest.raises(ValueError, match="weights must be one number per member, got 'entropy'"):
        EnsembleUncertainty("entropy")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="output_key must be given with 2 keys"):
        EnsembleUncertaintyd(["a", "b"])
    with pytest.raises(ValueError, match=r"preds\[1\] must have shape"):
        EnsembleUncertainty()([torch.zeros(3, 4), torch.zeros(3, 5)])


def test_one_class_is_refused_unless_it_is_multilabel() -> None:
    outputs = [torch.randn(1, 4, 5) for _ in range(2)]
    with pytest.raises(ValueError, match="multilabel must be True"):
        EnsembleUncertainty()(outputs)
    with pytest.raises(ValueError, match="multilabel must be True"):
        EnsembleUncertaintyd("a")({"a": outputs})
    with pytest.raises(ValueError, match="multilabel must be True"):
        UncertaintyInferer()(torch.zeros(1, 1, 4, 5), nn.Conv2d(1, 1, 3))
    entropy = EnsembleUncertainty(maps="entropy", multilabel=True)(outputs)
    mean = torch.stack(outputs).sigmoid().mean(0)
    expected = torch.distributions.Bernoulli(mean).entropy()
    torch.testing.assert_close(entropy, expected)


# --- ignite, and no MONAI -------------------------------------------------------------------------


def test_handler_reports_what_the_metric_aggregates() -> None:
    Engine = pytest.importorskip("ignite.engine", reason="pytorch-ignite is missing").Engine

    engine = Engine(lambda _, seed: problem(seed))
    CalibrationError(num_bins=8, include_background=False).attach(engine, "ece")
    engine.state.metric_details = {}
    state = engine.run([1, 2], max_epochs=1)
    metric = CalibrationErrorMetric(8, include_background=False)
    for seed in (1, 2):
        metric(*problem(seed))
    assert state.metrics["ece"] == pytest.approx(float(metric.aggregate()))
    assert state.metric_details["ece"].shape == (4, CLASSES - 1)


def test_handler_without_ignite_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastcal.monai.handler.find_spec", lambda _: None)
    with pytest.raises(ImportError, match="pip install pytorch-ignite"):
        CalibrationError()


def test_without_monai_the_import_names_the_extra() -> None:
    program = (
        "import sys\nsys.modules['monai'] = None\n"
        "try:\n    import fastcal.monai\nexcept ImportError as error:\n    print(error)"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert "fastcal[train]" in result.stdout
