"""Public functions refuse bad arguments by name; the walk finds the functions by itself.

A public function is listed in the ``__all__`` of its package or defined in its module. Each
argument whose name is a key of `BAD` receives each of the bad values there. The other arguments are
left out, or taken from `GOOD` where they are required. The error must be a TypeError or ValueError
that says what the argument "must" be and what it "got", before any file is opened.
"""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, is_dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

PACKAGES = (
    *("fastcal", "fastcal.functional", "fastcal.regions", "fastcal.calibration"),
    *("fastcal.losses", "fastcal.models", "fastcal.torchmetrics", "fastcal.monai"),
    *("fastcal.predict", "fastcal.evaluate", "fastcal.recalibrate", "fastcal.train"),
    *("fastcal.quality", "fastcal.ood", "fastcal.scores", "fastcal.convert", "fastcal.segments"),
    "fastcal.report.plots",
)
# Dataclasses that a user makes; all others are results, which only fastcal makes.
SETTINGS = frozenset(
    {
        *("Measure", "InferenceAugmentation", "SegmentSettings"),
        *("QualityPredictor", "OODDetector", "Draws"),
    }
)

# Values of required arguments. The folders do not exist, so that opening one first is an error.
GOOD: dict[str, Callable[[], Any]] = {
    "preds": lambda: torch.full((1, 3, 4, 4), 1 / 3),
    "probs": lambda: torch.full((1, 3, 4, 4), 1 / 3),
    "mean": lambda: torch.full((1, 3, 4, 4), 1 / 3),
    "member": lambda: torch.zeros(1, 3, 4, 4),
    "logits": lambda: torch.zeros(1, 3, 4, 4),
    "target": lambda: torch.zeros(1, 4, 4, dtype=torch.int64),
    "segmentation": lambda: torch.zeros(4, 4, 4, dtype=torch.int64),
    "reference": lambda: torch.ones(4, 4, 4, dtype=torch.bool).numpy(),
    "prediction": lambda: torch.ones(4, 4, 4, dtype=torch.bool).numpy(),
    "images": lambda: torch.zeros(1, 1, 8, 8),
    "network": lambda: torch.nn.Identity(),
    "model": lambda: torch.nn.Identity(),
    "stats": lambda: statistics(),
    "statistics": lambda: statistics(),
    "first": lambda: statistics(),
    "second": lambda: statistics(),
    "panels": lambda: {"one": statistics()},
    "calibrator": lambda: public()["TemperatureScaling"](),
    "members": lambda: [public()["UNet"](1, 2, widths=(2, 4))],
    "volumes": lambda: [(GOOD["preds"](), GOOD["target"]())],
    "streams": lambda: [GOOD["volumes"]()],
    "ensemble": lambda: "pool-then-calibrate",
    "spec": lambda: {"name": "UNet"},
    "loss": lambda: torch.nn.Identity(),
    "auxiliary": lambda: torch.nn.Identity(),
    "keys": lambda: "preds",
    "name": lambda: "ce",
    "head": lambda: "softmax",
    "task": lambda: "multiclass",
    "active": lambda: True,
    "patch": lambda: (8, 8),
    "spacing": lambda: (1.0, 1.0, 1.0),
    "distance_mm": lambda: 2.0,
    "num_classes": lambda: 3,
    "num_labels": lambda: 3,
    "in_channels": lambda: 1,
    "dims": lambda: 2,
    "cases": lambda: [],
    "labels": lambda: "no-such-folder",
    "folders": lambda: ["no-such-folder"],
    **dict.fromkeys(
        ("run", "out", "out_file", "predictions", "dataset", "path", "parts"),
        lambda: "no-such-folder",
    ),
    **dict.fromkeys(("folder", "detectors", "source"), lambda: "no-such-folder"),
    **dict.fromkeys(("inside", "outside"), lambda: case_folder()),
    "image": lambda: torch.rand(1, 8, 8).numpy(),
    "is_ood": lambda: [False, True],
    **dict.fromkeys(("score", "dice", "predicted", "unlikeness"), lambda: [0.25, 0.75]),
    "uncertainty": lambda: torch.rand(4, 4, 4).numpy(),
}
GOOD_THERE: dict[tuple[str, str], Callable[[], Any]] = {
    **dict.fromkeys(
        (
            *(("ensemble_statistics", "preds"), ("EnsembleCalibration.fit", "preds")),
            *(("EnsembleCalibration.fit_transform", "preds"), ("ensemble_mean", "preds")),
        ),
        lambda: [GOOD["preds"](), GOOD["preds"]()],
    ),
    ("EnsembleCalibration.fit_stream", "volumes"): lambda: [([GOOD["preds"]()], GOOD["target"]())],
    ("OODDetector", "score"): lambda: "binary_entropy",
    ("convert_dataset", "name"): lambda: "acdc",
    ("binary_calibration_error", "preds"): lambda: torch.full((1, 4, 4), 0.5),
    ("multilabel_calibration_error", "target"): lambda: torch.zeros(1, 3, 4, 4, dtype=torch.int64),
}
# Optional arguments without which others mean nothing.
ALWAYS = {
    **dict.fromkeys(("ensemble_statistics", "EnsembleAccumulator.finalize"), ("target",)),
    **dict.fromkeys(("boundary_band", "dilated_box"), ("spacing",)),
    "build_network": ("in_channels", "num_classes", "dims"),
    "fit_folders": ("ensemble",),
    "fit_ood": ("predictions",),
}

NONSENSE = "nonsense"
CHOICE: tuple[Any, ...] = (NONSENSE,)
NEGATIVE: tuple[Any, ...] = (-0.5,)
BAD: dict[str, tuple[Any, ...]] = {
    # counts
    **dict.fromkeys(("n_bins", "num_bins", "num_classes", "num_labels", "in_channels"), (0, -1)),
    **dict.fromkeys(("batch_size", "draws", "num_parts", "columns", "jobs", "n_resamples"), (0,)),
    **dict.fromkeys(("min_count", "mc_dropout", "margin_slices", "entropy_bins"), (-1,)),
    **dict.fromkeys(("n_trees", "n_thresholds"), (0, 10**9)),
    "fine_bins": (-1, 3),
    "dims": (0, 7),
    "class_dim": (9,),
    "class_index": (9,),
    "part_id": (-1, 1),
    "max_passes": (1,),
    "slice_axis": (5,),
    "kernel_size": (2,),
    # real numbers
    **dict.fromkeys(("eps", "weight", "tolerance_mm", "margin_mm", "distance_mm"), (-1.0,)),
    **dict.fromkeys(("noise", "gamma", "alpha", "factor", "margin", "ridge", "odir"), NEGATIVE),
    **dict.fromkeys(("lambda_dice", "lambda_ce"), NEGATIVE),
    **dict.fromkeys(("overlap", "dropout", "label_smoothing", "smoothing"), (-0.1, 1.0)),
    **dict.fromkeys(("level", "interval", "false_positive_rate"), (0.0, 1.0)),
    **dict.fromkeys(("clip", "calibration_share", "failure_dice"), (-0.5, 1.5)),
    **dict.fromkeys(("sigma", "empty_weight"), (0.0,)),
    "temperature": (0.0, -1.0),
    "threshold": (-0.5, 1.5),
    **dict.fromkeys(("interior_voxels", "interior_mm"), (-1.0,)),
    "component_voxels": (0,),
    "weights": ([1.0, -1.0],),
    "class_weights": ([1.0],),
    "spacing": ((1.0,), (0.0, 1.0, 1.0)),
    "patch": ((0, 8), (8,)),
    # choices
    **dict.fromkeys(("activation", "space", "calibration", "closed", "convention"), CHOICE),
    **dict.fromkeys(("norm", "average", "reduction", "kind", "measure", "nan_policy"), CHOICE),
    **dict.fromkeys(("method", "alternative", "order", "ensemble", "strategy", "task"), CHOICE),
    **dict.fromkeys(("precision", "resample", "dtype", "head", "kernel", "distance"), CHOICE),
    **dict.fromkeys(("downsampling", "loss", "covariance", "unsure"), CHOICE),
    "maps": ((NONSENSE,),),
    # tensors
    "logits": (torch.zeros(1, 3, 4, 4, dtype=torch.int64),),
    "target": (torch.zeros(1, 4, 4), torch.zeros(1, 5, 4, dtype=torch.int64)),
    "mask": (torch.zeros(1, 5, 4, dtype=torch.bool),),
    "segmentation": (torch.zeros(4, 4, 4),),
}
# Wrong types: the tensor functions check them, before an op complains about C++ casts.
TENSOR_ROOMS = frozenset(
    {
        *("ensemble", "accumulator", "functional", "regions", "segments"),
        *("calibration", "recalibrate"),
    }
)
WRONG_TYPE: dict[str, tuple[Any, ...]] = {
    **dict.fromkeys(("n_bins", "fine_bins", "entropy_bins", "num_classes"), (2.5, NONSENSE)),
    **dict.fromkeys(("class_dim", "ignore_index", "margin_slices"), (1.5, NONSENSE)),
    **dict.fromkeys(("temperature", "weight", "margin_mm", "distance_mm", "spacing"), (NONSENSE,)),
    **dict.fromkeys(("from_logits", "multilabel", "normalise", "moments", "excess"), ("yes", 1)),
    **dict.fromkeys(("paper_clip", "pairs", "segments"), ("yes", 1)),
    **dict.fromkeys(("mutual_information", "label"), (NONSENSE, 7)),
    **dict.fromkeys(("interior_voxels", "interior_mm", "component_voxels"), (NONSENSE,)),
    **dict.fromkeys(("preds", "probs", "member", "target", "mask", "segmentation"), (NONSENSE, 7)),
    "maps": ((7,), 7),
}
# Bad values for the argument of one function, where its name means something else.
BAD_THERE: dict[tuple[str, str], tuple[Any, ...]] = {
    # These take modules, not names.
    **dict.fromkeys((("AuxiliaryLoss", "loss"), ("DeepSupervisionLoss", "loss")), ()),
    # A number of draws elsewhere.
    ("mean_absolute_error", "draws"): (),
    **dict.fromkeys((("QualityPredictor", "model"), ("fit_quality", "model")), CHOICE),
    **dict.fromkeys((("QualityPredictor", "seed"), ("Draws", "seed")), (-1, 2**70)),
    ("OODDetector", "score"): CHOICE,
    ("convert_dataset", "name"): CHOICE,
    # pydantic checks these, with messages of its own.
    ("TrainConfig", "loss"): (),
    # These can only be checked once there is a member or a network.
    **dict.fromkeys((("EnsembleAccumulator", "class_dim"), ("Ensemble", "patch")), ()),
    **dict.fromkeys((("EnsembleUncertainty", "weights"), ("EnsembleUncertaintyd", "weights")), ()),
    **dict.fromkeys((("UncertaintyInferer", "weights"), ("EnsembleCalibration", "weights")), ()),
    **dict.fromkeys((("InferenceAugmentation", "noise"), ("InferenceAugmentation", "draws")), ()),
    # The shape of the target says whether preds have an axis of classes, so preds are named.
    ("binary_calibration_error", "target"): (),
    # These are checked with the files that they belong to, once those were found.
    **{
        (function, argument): ()
        for function, arguments in {
            "ensemble_folders": ("space", "weights", "temperature"),
            "fit_folders": ("method", "weights", "space", "n_bins", "odir"),
            "predict_cases": ("maps", "space", "dtype"),
            "train_ensemble": ("loss",),
        }.items()
        for argument in arguments
    },
    # A patch of as many voxels along every edge, and a spacing of any number of axes.
    **dict.fromkeys((("segment_scores", "patch"), ("SegmentSettings", "patch")), (0, NONSENSE)),
    ("SegmentSettings", "spacing"): ((0.0, 1.0), NONSENSE, 7),
    # Only metrics that have one number per class take these.
    **dict.fromkeys((("Measure", "class_index"), ("Measure", "threshold")), ()),
}


def statistics() -> Any:
    from fastcal import CalibrationStatistics

    counted = CalibrationStatistics(3, fine_bins=64, entropy_bins=4)
    probs, target = GOOD["probs"](), GOOD["target"]()
    for case in ("one", "two"):
        counted.update(probs, target, case_id=case)
    return counted


def case_folder() -> Any:
    from fastcal.ood import CaseFolder

    return CaseFolder("no-such-folder")


def accumulator() -> Any:
    from fastcal import EnsembleAccumulator

    accumulated = EnsembleAccumulator()
    accumulated.update(GOOD["member"]())
    return accumulated


def fitted(calibrator: Any) -> Any:
    preds = torch.linspace(-1, 1, 48).reshape(1, 3, 4, 4)
    several = type(calibrator).__name__ == "EnsembleCalibration"
    return calibrator.fit([preds] if several else preds, preds.flip(1).argmax(1))


# MONAI checks the arguments of the first, with messages of its own; the second is a base class.
SKIPPED = frozenset({"NACLLoss", "CalibrationMetric"})
# Classes whose methods are walked too, each with a function that makes an object.
OBJECTS: dict[str, Callable[[], Any]] = {
    "CalibrationStatistics": statistics,
    "EnsembleAccumulator": accumulator,
    "TemperatureScaling": lambda: fitted(GOOD["calibrator"]()),
    "EnsembleCalibration": lambda: fitted(public()["EnsembleCalibration"](GOOD["calibrator"]())),
    "DiceCELoss": lambda: public()["DiceCELoss"](),
    "SoftL1ACELoss": lambda: public()["SoftL1ACELoss"](),
    "WeightedCrossEntropy": lambda: public()["WeightedCrossEntropy"](),
}
# Methods for other rooms of the package, which users do not call.
INNER_METHODS = frozenset({"of_sums", "count", "open_count", "measured", "words_of"})


@dataclass(frozen=True)
class Call:
    """A public function, one of its arguments, and a bad value of it."""

    name: str
    argument: str
    value: Any
    required: tuple[str, ...]

    def __str__(self) -> str:
        value = "tensor" if isinstance(self.value, torch.Tensor) else repr(self.value)
        return f"{self.name}({self.argument}={value})"

    def __call__(self) -> None:
        owner, _, method = self.name.partition(".")
        function = getattr(OBJECTS[owner](), method) if method else public()[owner]
        given = {
            name: GOOD_THERE.get((self.name, name), GOOD[name])()
            for name in self.required
            if name != self.argument
        }
        function(**given, **{self.argument: self.value})


def public() -> dict[str, Any]:
    """Every public function and class that users call, by name."""
    found = {}
    for package in PACKAGES:
        module = importlib.import_module(package)
        own = (name for name, value in vars(module).items() if value_is_own(value, package))
        for name in getattr(module, "__all__", None) or own:
            value = getattr(module, name)
            record = is_dataclass(value) or (inspect.isclass(value) and issubclass(value, tuple))
            if (inspect.isfunction(value) or inspect.isclass(value)) and (
                not record or name in SETTINGS
            ):
                found[name] = value
    return found


def value_is_own(value: Any, package: str) -> bool:
    return getattr(value, "__module__", None) == package and not value.__name__.startswith("_")


def subjects() -> Iterator[tuple[str, inspect.Signature]]:
    for name, function in sorted(public().items()):
        if not inspect.isabstract(function):
            yield name, inspect.signature(function)
        if name in OBJECTS:
            for method, code in inspect.getmembers(function, inspect.isfunction):
                hidden = method.startswith("_") or method in INNER_METHODS
                if not hidden and code.__module__.startswith("fastcal."):
                    yield f"{name}.{method}", inspect.signature(getattr(function, method))


def calls() -> Iterator[Call]:
    for name, signature in subjects():
        if name in SKIPPED:
            continue
        required = (
            *(
                argument.name
                for argument in signature.parameters.values()
                if argument.default is argument.empty
                and argument.kind not in (argument.VAR_POSITIONAL, argument.VAR_KEYWORD)
                and argument.name != "self"
            ),
            *ALWAYS.get(name, ()),
        )
        for argument in signature.parameters:
            types = WRONG_TYPE.get(argument, ()) if checks_types(name) else ()
            usual = (*BAD.get(argument, ()), *types)
            for value in BAD_THERE.get((name, argument), usual):
                yield Call(name, argument, value, required)


def checks_types(name: str) -> bool:
    module = public()[name.partition(".")[0]].__module__
    return module.split(".")[1] in TENSOR_ROOMS and not name.endswith("_folders")


def complaint(call: Call) -> str | None:
    """Say what is wrong with the way that a bad value is refused, or return None."""
    unknown = [name for name in call.required if name not in GOOD and name != call.argument]
    if unknown:
        return f"no example of {unknown}: add it to GOOD"
    try:
        call()
    except (TypeError, ValueError) as error:
        message = str(error)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    else:
        return "is not refused"
    if not re.search(rf"(?<![\w.]){call.argument}\b.*\bmust\b.*\bgot\b", message, re.DOTALL):
        return f"says: {message}"
    return None


# What the walk makes in order to call its methods may warn, of tiny data above all.
@pytest.mark.filterwarnings("ignore")
def test_public_functions_refuse_bad_arguments_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    complaints = [f"{call} {found}" for call in calls() if (found := complaint(call))]
    assert complaints == []


def test_the_walk_reaches_the_public_surface() -> None:
    names = {call.name for call in calls()}
    assert {"ensemble_statistics", "EnsembleAccumulator.finalize", "dilated_box"} <= names
    assert {"CalibrationStatistics.ece", "brier_score", "predict_cases", "DiceLoss"} <= names
    assert len(names) > 60


@pytest.mark.parametrize(
    ("error", "found"),
    [
        (ValueError("n_bins must be at least 1, got 0"), None),
        (ValueError("n_bins: got 0, expected at least 1"), "says"),
        (ValueError("fine_n_bins must be at least 1, got 0"), "says"),
        (RuntimeError("n_bins must be at least 1, got 0"), "RuntimeError"),
        (None, "is not refused"),
    ],
)
def test_planted_refusals_are_told_apart(
    error: Exception | None, found: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def count(n_bins: int) -> None:
        if error is not None and n_bins < 1:
            raise error

    monkeypatch.setitem(globals(), "public", lambda: {"count": count})
    result = complaint(Call("count", "n_bins", 0, ("n_bins",)))
    assert result is None if found is None else found in str(result)
