"""Scores, fits and adapters that are legal to ask for, and must not be silently wrong."""

from __future__ import annotations

import io
import json
import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .contents_limits import _maps_of, _one_class, _targets
from .kinds import Kind
from .scripts import fastcal, script
from .world import DATASET_JSON, save_nifti, write_json

# Means that hide


def _missed(shifts: tuple[int, ...], missed: tuple[int, ...]) -> Callable[[Path], str | None]:
    """Cases that are some millimetres off, of which some are missed altogether."""

    def run(folder: Path) -> str | None:
        found = {}
        for label, gone in (("found", ()), ("missed", missed)):
            for k, shift in enumerate(shifts):
                truth = np.zeros((24, 24, 4), np.uint8)
                truth[4:10, 4:10, 1:3] = 1
                predicted = np.zeros_like(truth) if k in gone else np.roll(truth, shift, 0)
                save_nifti(folder / label / "gt" / f"c{k}.nii.gz", truth, np.eye(4))
                save_nifti(folder / label / "pr" / f"c{k}.nii.gz", predicted, np.eye(4))
            words = ("-g", f"{label}/gt", "-p", f"{label}/pr", "-o", f"{label}.json")
            refused = fastcal("evaluate", *words, "--num-classes", "2", "-q")
            if refused is not None:
                return f"refused: {refused}"
            found[label] = json.loads((folder / f"{label}.json").read_text())["mean"]["1"]
        kept = [shift for k, shift in enumerate(shifts) if k not in missed]
        every = float(np.mean(shifts))
        if not math.isclose(found["found"]["HD95"], every, rel_tol=1e-6):
            return f"mean HD95 {found['found']['HD95']} for {every}"
        told = [k for k in found["missed"] if "HD95" in k and k != "HD95"]
        values = [found["missed"][k] for k in told]
        if any(value in (len(kept), len(missed)) for value in values):
            return None
        mean = found["missed"]["HD95"]
        if kept and mean is not None and mean < every:
            return f"mean HD95 falls from {every} to {mean} where {len(missed)} are missed"
        return None if told else "the mean does not say how many values it holds"

    return run


# The best epoch


def _kept(dices: tuple[float, ...], right: tuple[int, ...]) -> Callable[[Path], str | None]:
    """Which epochs replace the checkpoint; ``right``: those that must not."""

    def run(_: Path) -> str | None:
        from fastcal.train.config import TrainConfig
        from fastcal.train.schedule import Course

        course, config = Course(), TrainConfig()
        took = [course.end_epoch(dice, config) for dice in dices]
        wrong = [epoch for epoch in right if took[epoch]]
        return f"Dice {dices} by epoch; kept {took}" if wrong else None

    return run


# Temperature without a minimum


def _flat(
    values: torch.Tensor, *, from_logits: bool, **options: Any
) -> Callable[[Path], str | None]:
    def run(_: Path) -> str | None:
        from fastcal.recalibrate import TemperatureScaling

        classes, voxels = values.shape[1], values.shape[2]
        generator = torch.Generator().manual_seed(0)
        target = torch.randint(0, classes, (1, voxels), generator=generator)
        fit = TemperatureScaling(from_logits=from_logits, **options)
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            try:
                fit.fit(values, target)
            except ValueError:
                return None
        found = np.atleast_1d(np.asarray(fit.temperature_))
        if not np.isfinite(found).all():
            return f"T = {found}"
        if (np.abs(found - 1) > 1e-6).any() and not said:
            return f"T = {found}, without a warning"
        return None

    return run


def _separable(scale: float) -> Callable[[Path], str | None]:
    """Every voxel right: the likelihood rises for ever as T falls."""

    def run(_: Path) -> str | None:
        from fastcal.recalibrate import TemperatureScaling

        target = torch.arange(300).reshape(1, -1) % 3
        logits = torch.nn.functional.one_hot(target, 3).movedim(-1, 1).double() * scale
        fit = TemperatureScaling(from_logits=True)
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            try:
                fit.fit(logits, target)
            except ValueError:
                return None
        found = float(np.max(np.asarray(fit.temperature_)))
        if not math.isfinite(found) or found <= 0:
            return f"T = {found}"
        return None if said or found == 1 else f"T = {found} without a warning"

    return run


def _flat_files(value: float | None, method: str) -> Callable[[Path], str | None]:
    """The same over folders: a map that says nothing of the target."""

    def run(folder: Path) -> str | None:
        from fastcal.cli import main

        rng = np.random.default_rng(0)
        write_json(folder / "f/dataset.json", DATASET_JSON)
        p = np.full((3, 4, 5, 6), 1 / 3 if value is None else value, np.float32)
        np.savez(folder / "f/c.npz", probabilities=p)
        save_nifti(folder / "l/c.nii.gz", rng.integers(0, 3, (6, 5, 4)).astype(np.uint8), np.eye(4))
        logits = () if value is None else ("--from-logits",)
        words = ["recalibrate", "fit", "-i", "f", "-g", "l", "-o", "t.json", "-q"]
        said = io.StringIO()
        with redirect_stdout(io.StringIO()), redirect_stderr(said):
            code = main([*words, "--method", method, *logits])
        if code == 2 and len(said.getvalue().splitlines()) == 1:
            return None
        fitted = json.loads((folder / "t.json").read_text())["fitted"]
        found = np.atleast_1d(np.array(fitted.get("temperature", fitted.get("weight")), float))
        if not np.isfinite(found).all():
            return f"{method}: {found}"
        # The other methods learn the shares of the classes, whatever the maps say.
        if method == "temperature" and not np.allclose(found, 1, atol=1e-3) and not said.getvalue():
            return f"T = {found.tolist()} without a warning"
        return None

    return run


# torchmetrics


def _collections() -> dict[str, tuple[dict[str, Callable[[], Any]], list[Any]]]:
    from fastcal.torchmetrics import (
        BinaryCalibrationError,
        MulticlassBrierScore,
        MulticlassCalibrationError,
    )

    generator = torch.Generator().manual_seed(0)

    def batch(n: int, classes: int) -> Any:
        p = torch.rand(n, 4, generator=generator).pow(3)
        y = torch.randint(0, classes, (n,), generator=generator)
        return p / p.sum(1, keepdim=True), y

    absent = [batch(200, 3), batch(200, 4)]
    edges = [
        (torch.tensor([0.3, 0.8]), torch.tensor([1, 1])),
        (torch.tensor([0.5, 0.5, 0.9]), torch.tensor([1, 1, 0])),
    ]
    mce = MulticlassCalibrationError
    return {
        "ignore_index of an absent class": (
            {"a": lambda: mce(4), "b": lambda: mce(4, ignore_index=3)},
            absent,
        ),
        "two values of ignore_index": (
            {"a": lambda: mce(4, ignore_index=3), "b": lambda: mce(4, ignore_index=-1)},
            absent,
        ),
        "bins closed at either end": (
            {
                "a": lambda: BinaryCalibrationError(2),
                "b": lambda: BinaryCalibrationError(2, closed="left"),
            },
            edges,
        ),
        "Brier scores with ignore_index": (
            {
                "a": lambda: MulticlassBrierScore(4),
                "b": lambda: MulticlassBrierScore(4, ignore_index=3),
            },
            absent,
        ),
        "norms": ({"a": lambda: mce(4), "b": lambda: mce(4, norm="max")}, absent),
        "numbers of bins": ({"a": lambda: mce(4), "b": lambda: mce(4, 7)}, absent),
    }


def _collected(name: str) -> Callable[[Path], str | None]:
    def run(_: Path) -> str | None:
        from torchmetrics import MetricCollection

        warnings.simplefilter("ignore")
        make, batches = _collections()[name]
        together = MetricCollection({key: new() for key, new in make.items()})
        alone = {key: new() for key, new in make.items()}
        for preds, target in batches:
            together.update(preds, target)
            for metric in alone.values():
                metric.update(preds, target)
        got = {key: float(value) for key, value in together.compute().items()}
        want = {key: float(metric.compute()) for key, metric in alone.items()}
        same = all(abs(got[key] - want[key]) < 1e-7 for key in want)
        return None if same else f"in a collection {got}, alone {want}"

    return run


def _reset_in_inference(name: str) -> Callable[[Path], str | None]:
    def run(_: Path) -> str | None:
        import fastcal.torchmetrics as ours

        warnings.simplefilter("ignore")
        classes = () if name == "PredictiveEntropy" else (3,)
        metric = getattr(ours, name)(*classes)
        p, y = torch.rand(8, 3).softmax(1), torch.randint(0, 3, (8,))
        with torch.inference_mode():
            metric.update(p, y)
            metric.compute()
            metric.reset()
        try:
            metric.update(p, y)
            metric.compute()
        except RuntimeError as error:
            return str(error)[:120]
        return None

    return run


# dataset.json as nnU-Net version 2 reads it


def _dataset(folder: Path, names: tuple[str, ...], content: dict[str, Any]) -> None:
    for name in names:
        save_nifti(folder / f"imagesTr/{name}_0000.nii.gz", np.ones((4, 4, 4), np.float32))
        save_nifti(folder / f"labelsTr/{name}.nii.gz", np.ones((4, 4, 4), np.uint8))
    write_json(folder / "dataset.json", content)


def _cases_of(folder: Path, right: list[str]) -> str | None:
    from fastcal.data.dataset import Dataset

    try:
        found = [case.name for case in Dataset.open(folder).cases]
    except ValueError as error:
        return None if "dataset.json" in str(error) else f"refused without the file: {error}"
    return None if found == right else f"cases {found} for {right}"


def _stale_list(form: str) -> Callable[[Path], str | None]:
    def run(folder: Path) -> str | None:
        label = "./labelsTr/a.nii.gz"
        entry = {"image": "./imagesTr/a.nii.gz", "label": label} if form == "objects" else label
        content = DATASET_JSON | {"numTraining": 3, "training": [entry]}
        _dataset(folder / "d", ("a", "b", "c"), content)
        return _cases_of(folder / "d", ["a", "b", "c"])

    return run


def _paths(kind: str) -> Callable[[Path], str | None]:
    """The key ``dataset``: images and labels of each case, wherever they are."""

    def run(folder: Path) -> str | None:
        _dataset(folder / "other", ("x", "y"), DATASET_JSON)
        place = {"relative": "../other", "absolute": str(folder / "other")}[kind]
        entries = {
            name: {
                "images": [f"{place}/imagesTr/{name}_0000.nii.gz"],
                "label": f"{place}/labelsTr/{name}.nii.gz",
            }
            for name in ("x", "y")
        }
        _dataset(folder / "d", ("left",), DATASET_JSON | {"dataset": entries})
        return _cases_of(folder / "d", ["x", "y"])

    return run


def kinds() -> Iterator[Kind]:
    """Of scores."""
    for shifts, missed in (
        ((1, 2, 3, 4), (2, 3)),
        ((1, 2, 3, 4), (3,)),
        ((4, 3, 2, 1), (0,)),
        ((2, 2, 2), (0, 1, 2)),
        ((5, 1), (0,)),
    ):
        name = f"missed structures: shifts {shifts} mm, missed {missed}"
        yield script(name, "scores", _missed(shifts, missed))
    nan = math.nan
    for dices, right in (
        ((nan, nan, 0.0, nan), (2,)),
        ((nan, 0.0), (1,)),
        ((nan, nan, nan, 0.0, 0.0), (3, 4)),
    ):
        yield script(f"best epoch of Dice {dices}", "scores", _kept(dices, right))
    one, five = torch.zeros(1, 3, 500), torch.full((1, 3, 500), 5.0)
    ramp = torch.arange(500.0).reshape(1, 1, 500).expand(1, 3, 500).contiguous()
    for name, values, logits in (
        ("logits of 0", one, True),
        ("logits of 5", five, True),
        ("logits of -1e20", torch.full((1, 3, 500), -1e20), True),
        ("logits of 1e20 alike", torch.full((1, 3, 500), 1e20), True),
        ("logits that differ between voxels alone", ramp, True),
        ("uniform probabilities", torch.full((1, 3, 500), 1 / 3), False),
        ("uniform probabilities in float64", torch.full((1, 3, 500), 1 / 3).double(), False),
        ("uniform probabilities in float16", torch.full((1, 3, 500), 1 / 3).half(), False),
        ("one voxel", torch.zeros(1, 3, 1), True),
    ):
        run = _flat(values, from_logits=logits)
        yield script(f"temperature without a minimum: {name}", "scores", run)
    run = _flat(one, from_logits=True, per_class=True)
    yield script("temperature without a minimum: logits of 0, per class", "scores", run)
    for scale in (1.0, 100.0, 1e20):
        name = f"temperature without a minimum: every voxel right, logits of {scale:g}"
        yield script(name, "scores", _separable(scale))
    for method in ("temperature", "temperature-per-class", "vector", "dirichlet"):
        for value, name in ((None, "uniform probabilities"), (5.0, "logits of 5")):
            run = _flat_files(value, method)
            yield script(f"recalibrate fit --method {method}: {name}", "scores", run)
    for name in (
        *("ignore_index of an absent class", "two values of ignore_index"),
        *("bins closed at either end", "Brier scores with ignore_index", "norms"),
        "numbers of bins",
    ):
        yield script(f"MetricCollection: {name}", "scores", _collected(name))
    for name in ("MulticlassCalibrationError", "MulticlassBrierScore", "PredictiveEntropy"):
        yield script(f"reset under inference_mode: {name}", "scores", _reset_in_inference(name))
    for form in ("objects", "paths"):
        run = _stale_list(form)
        yield script(f"dataset.json: a stale training list of {form}", "scores", run)
    for kind in ("relative", "absolute"):
        yield script(f"dataset.json: the dataset key, {kind} paths", "scores", _paths(kind))
    for where in (
        *("ensemble_statistics", "ensemble_entropy", "ensemble_mean", "predictive_entropy"),
        *("EnsembleAccumulator", "EnsembleUncertainty", "UncertaintyInferer"),
    ):
        yield script(f"a class axis of 1: {where}", "scores", _one_class(where))
    for values in ("sums of 0.5", "zeros", "one member 1.4 and -0.4"):
        yield script(f"maps alone of probabilities with {values}", "scores", _maps_of(values))
    for value in (2**32, 2**32 + 1, -(2**32), -(2**63), 2**63 - 1):
        yield script(f"targets of {value}", "scores", _targets(value))
