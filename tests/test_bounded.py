"""Numbers that would become loops or memory are bounded before they do."""

from __future__ import annotations

import json
import re
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cohort import write_dataset_json, write_run

from fastcal import regions
from fastcal.bench.points import read_volume
from fastcal.bench.settings import Settings
from fastcal.cases.labels import LabelScheme
from fastcal.cases.region_rules import RegionRule
from fastcal.core.errors import DataError
from fastcal.data import description
from fastcal.data.checks import integers
from fastcal.data.nifti import Geometry
from fastcal.data.phantom import write_dataset
from fastcal.data.preprocess import Preprocessing
from fastcal.models import build_network, export_run
from fastcal.predict.members import Inference, InferenceAugmentation
from fastcal.recalibrate import (
    EnsembleCalibration,
    HistogramBinning,
    IsotonicRegression,
    TemperatureScaling,
    load,
)
from fastcal.study.demo import run_demo
from fastcal.train import train_ensemble

BILLION, BEYOND = 10**9, 10**22
LABELS = np.ones((4, 4, 4), np.uint8)
LIKE = Geometry((64, 64, 8), np.diag([1.0, 1.0, 3.0, 1.0]), None)
IMAGE = np.zeros((1, 64, 64, 8), np.float32)


def bench(**axes: tuple[Any, ...]) -> Settings:
    return Settings({**Settings.quick(gpu=False).axes, **axes})


CALLS: dict[str, tuple[Callable[[int], object], str]] = {
    "num_classes": (LabelScheme.of_classes, "num_classes must be from 1 to 32767"),
    "draws": (lambda n: InferenceAugmentation(noise=0.1, draws=n).check(2), "draws must be from"),
    "mc_dropout": (lambda n: Inference(mc_dropout=n), "mc_dropout must be from 0 to 10000"),
    "n_cases": (lambda n: write_dataset("x", n_cases=n), "n_cases must be from 1 to 10000"),
    "split": (lambda n: run_demo("x", split=(n, 1, 1)), "split must hold at least one case"),
    "members": (lambda n: train_ensemble("x", "y", members=n), "members must be from 1 to 10000"),
    "seed": (lambda n: train_ensemble("x", "y", seed=-n), "seed must be from 0 to"),
    "margin_mm": (
        lambda n: regions.dilated_box(LABELS, float(n), spacing=(1, 1, 1)),
        "margin_mm must be a distance in mm, not negative and at most 1000000",
    ),
    "margin_slices": (
        lambda n: regions.dilated_box(LABELS, 1.0, n, spacing=(1, 1, 1)),
        "margin_slices must be from 0 to 1000000",
    ),
    "region": (lambda n: RegionRule.parse(f"box:1:{n}"), "region must have margins of at least 0"),
    "bench classes": (lambda n: bench(classes=(n,)), "classes must be from 2 to 65535"),
    "bench members": (lambda n: bench(members=(n,)), "members must be from 1 to 10000"),
    "bench volume": (lambda n: read_volume(str(n)), "volumes must have at most 2147483648 voxels"),
    "widths": (
        lambda n: build_network({"widths": [n, n]}, in_channels=1, num_classes=2, dims=2),
        "network.widths.0 must be less than or equal to 8192",
    ),
    "channels": (
        lambda n: build_network({}, in_channels=n, num_classes=2, dims=2),
        "^in_channels must be from 1 to 65536",
    ),
    "size": (lambda n: Preprocessing(size=(n, n)), "size must have at most 2147483648 voxels"),
    "spacing": (
        lambda n: Preprocessing(spacing=(1 / n, 1 / n)).apply(IMAGE, LIKE),
        "spacing must leave at most 2147483648 voxels",
    ),
}


@pytest.mark.parametrize("number", [BILLION, BEYOND])
@pytest.mark.parametrize("name", CALLS)
def test_a_number_is_refused_before_it_takes_memory(
    name: str, number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    call, words = CALLS[name]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises((ValueError, TypeError), match=words):
        call(number)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # KiB
    assert list(tmp_path.iterdir()) == []


def test_a_size_that_only_the_memory_does_not_hold_is_refused() -> None:
    large = Preprocessing(size=(46_000, 46_000))
    deep = Geometry((64, 64, 10_000), LIKE.affine, None)
    with pytest.raises(ValueError, match="size and spacing must be such that a case fits"):
        large.apply(np.broadcast_to(np.float32(0), (1, 64, 64, 10_000)), deep)


def test_the_size_of_an_export_is_bounded(tmp_path: Path) -> None:
    write_run(tmp_path / "run", members=1)
    for size, words in (
        ((BILLION, BILLION), "size must be smaller"),
        ((BEYOND, 8), "size must be smaller"),
        ((8, -8), "size must be 2 positive extents"),
    ):
        with pytest.raises(ValueError, match=words):
            export_run(tmp_path / "run", tmp_path / "out.ts", size=size)


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        ({"background": 0, "a": 1.7}, "label of 'a' must be a whole number from 0 to 65535, got 1"),
        ({"background": 0, "a": True}, "label of 'a' must be .*, got True"),
        ({"background": 0, "a": -1}, "label of 'a' must be .*, got -1"),
        ({"background": 0, "a": [1, 2.5]}, r"label of 'a' must be .*, got 2\.5"),
        ({"background": 0, "a": BILLION}, "label of 'a' must be .*, got 1000000000"),
        ({"background": 0, "a": None}, "label of 'a' must be .*, got None"),
        ({"background": 0, "a": 1, "ignore": 1}, "ignore label must be no label of a class, got 1"),
        ({"background": 0, "a": 1, "ignore": -1}, "label of 'ignore' must be .*, got -1"),
        ({"background": 0, "a": []}, "labels must have at least one value each"),
    ],
)
def test_labels_that_are_none_are_refused(
    tmp_path: Path, labels: dict[str, Any], words: str
) -> None:
    write_dataset_json(tmp_path, labels=labels)
    with pytest.raises(DataError, match=rf"dataset\.json: .*{words}"):
        description.read(tmp_path / "dataset.json")


def test_labels_that_nnunet_reads_too_are_whole_numbers(tmp_path: Path) -> None:
    write_dataset_json(tmp_path, labels={"background": 0, "a": 1.0, "b": "2", "ignore": 3})
    found = description.read(tmp_path / "dataset.json")
    assert (found.labels, found.ignore_label) == ({"background": 0, "a": 1, "b": 2}, 3)


@pytest.mark.parametrize("value", [2.0**32 + 1, 1e300, -(2.0**32), np.float32(2**31)])
def test_labels_beyond_32_bits_do_not_become_others(value: float) -> None:
    words = rf"^a\.nii\.gz: labels must be integers of 32 bits, got {re.escape(f'{value:.12g}')}$"
    with pytest.raises(DataError, match=words):
        integers(Path("a.nii.gz"), np.array([0, value], np.asarray(value).dtype))


@pytest.mark.parametrize("weights", [(-1, 1), (float("nan"), 1), (float("inf"), 1), (0, 0)])
def test_weights_of_members_are_checked_before_a_case_is_read(weights: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="weights must be finite, at least 0 and not all 0"):
        EnsembleCalibration(TemperatureScaling(), weights=weights)


RNG = np.random.default_rng(0)
P = RNG.dirichlet(np.ones(3), 500).T.reshape(1, 3, 500)
TARGET = (RNG.random(500) > P[0].cumsum(0)).sum(0)[None].clip(max=2)
"""Drawn from the probabilities, so that they are calibrated."""


@pytest.mark.parametrize(
    ("kind", "place", "value", "words"),
    [
        (TemperatureScaling, "fitted.temperature", True, "temperature must be numbers, got true"),
        (TemperatureScaling, "fitted.temperature", 0.0, "temperature must be positive"),
        (TemperatureScaling, "settings.from_logits", ..., "settings must hold from_logits"),
        (TemperatureScaling, "settings.eps", ..., "settings must hold eps"),
        (TemperatureScaling, "num_classes", BILLION, "num_classes must be from 1 to 65535"),
        (TemperatureScaling, "num_classes", True, "num_classes must be an integer, got True"),
        (HistogramBinning, "fitted.frequency.0.0", 7.0, r"frequency must lie in \[0, 1\]"),
        (HistogramBinning, "fitted.frequency.0.0", -1.0, r"frequency must lie in \[0, 1\]"),
        (HistogramBinning, "fitted.frequency.0.0", "x", "cannot be read as"),
        (
            IsotonicRegression,
            "fitted.knots.0.1.-1",
            7.0,
            r"knots must lie in .*, got .* to 7",
        ),
        (IsotonicRegression, "fitted.knots.0.0.0", -1.0, r"knots must lie in \[0, 1\], got -1"),
    ],
)
def test_calibrators_whose_numbers_cannot_be_are_refused(
    tmp_path: Path, kind: Any, place: str, value: object, words: str
) -> None:
    file = tmp_path / "calibrator.json"
    kind(from_logits=False).fit(P, TARGET).save(file)
    content = json.loads(file.read_text())
    *outer, last = (int(one) if one.lstrip("-").isdigit() else one for one in place.split("."))
    holder = content
    for name in outer:
        holder = holder[name]
    if value is ...:
        del holder[last]
    else:
        holder[last] = value
    file.write_text(json.dumps(content))
    with pytest.raises(DataError, match=rf"calibrator\.json: .*{words}"):
        load(file)
