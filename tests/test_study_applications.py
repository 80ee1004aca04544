"""Brain, heart and prostate from the official layouts to every table and figure of the paper."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from fastcal.cli.app import app
from fastcal.data.dataset import Dataset
from fastcal.report import style
from fastcal.study import design
from tests import study_trees

pytestmark = pytest.mark.slow

SMALL = {
    **{"network.widths": "[4,8]", "sampling.batch_size": "6", "loop.iterations_per_epoch": "20"},
    **{"optimiser.learning_rate": "0.02", "loop.max_epochs": "3"},
    **{"preprocessing.size": "null", "preprocessing.spacing": "null"},
}
TABLES = {
    *("scores", "cases", "differences", "segments", "entropy_fits", "failures", "coverage"),
    *("outside", "lengths", "claims", "stages"),
}
FIGURES = {
    *("members", "reliability_box", "reliability_whole", "entropy_dice", "outside", "lengths"),
}
MEMBERS = 3


def run(*arguments: object) -> str:
    result = CliRunner().invoke(app, [str(one) for one in arguments])
    assert result.exit_code == 0, result.output
    return result.stdout


def rows(out: Path, name: str) -> list[dict[str, str]]:
    with (out / "tables" / f"{name}.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    fast = {"draws": 2, "passes": 3, "length_members": 2, "length_epochs": 2}
    monkeypatch.setattr(design, "_FAST", {**design._FAST, **fast})
    for module in ("report.measured", "study.quality"):
        monkeypatch.setattr(f"fastcal.{module}.N_RESAMPLES", 200)
    monkeypatch.setattr(style, "png_bytes", partial(style.png_bytes, dpi=20))
    monkeypatch.setattr("fastcal.train.learner.draw_curves", lambda _: None)
    yield
    torch.set_num_threads(threads)


def study(name: str, data: Path, out: Path, split: str, *more: object) -> str:
    settings = [one for name, value in SMALL.items() for one in ("--set", f"{name}={value}")]
    command = ("study", name, "-d", data, "-o", out, "--fast", "--members", MEMBERS)
    return run(*command, "--split", split, "--shift", "noise", "--device", "cpu", *settings, *more)


def brain(root: Path) -> tuple[Path, str, list[str]]:
    centres = ["CBICA"] * 4 + ["TCIA01", "TCIA02", "TCIA03", "TCIA08"]
    run("convert", "brats2017", study_trees.brats2017(root / "brats", centres), root / "data")
    tested = [f"Brats17_TCIA{number}_{letter}AA_1" for number, letter in
              (("01", "E"), ("02", "F"), ("03", "G"), ("08", "H"))]  # fmt: skip
    return root / "data", "3,1,4", tested


def heart(root: Path) -> tuple[Path, str, list[str]]:
    run("convert", "acdc", study_trees.acdc(root / "acdc", 8), root / "data")
    return root / "data", "3,1,4", [f"patient{number:03d}_frame01" for number in (5, 6, 7, 8)]


def prostate(root: Path) -> tuple[Path, str, list[str]]:
    for name, tree in (
        ("prostatex", study_trees.prostatex(root / "px", 12)),
        ("promise12", study_trees.promise12(root / "p12", 3)),
    ):
        run("convert", name, tree, root / "data" / f"Dataset_{name}")
    return root / "data", "3,1,8", [f"ProstateX-{number:04d}" for number in range(8, 16)]


@pytest.mark.parametrize("prepare", [brain, heart, prostate])
def test_a_study_gives_every_table_and_figure(
    prepare: Callable[[Path], tuple[Path, str, list[str]]], tmp_path: Path
) -> None:
    name = prepare.__name__
    data, split, tested = prepare(tmp_path)
    out = tmp_path / "study"
    printed = study(name, data, out, split)
    content = json.loads((out / "results.json").read_text())
    assert {file.stem for file in (out / "tables").glob("*.csv")} == TABLES
    assert {file.stem for file in (out / "figures").glob("*.png")} == FIGURES
    assert printed.startswith((out / "results.md").read_text())

    # The paper's cases: patients apart, its centres and phases.
    assert sorted({row["case"] for row in rows(out, "cases")}) == tested
    # Dice and HD95, NLL, Brier score and ECE in both regions, each with an interval.
    scores = {
        (row["loss"], row["model"], int(row["size"]), row["measure"], row["region"]): row
        for row in rows(out, "scores")
    }
    measures = {("dice", ""), ("hd95", "")} | {
        (measure, region)
        for measure in ("nll", "brier", "ece")
        for region in ("box", "whole volume")
    }
    models = {("single", 1), ("ensemble", 2), ("ensemble", MEMBERS), ("MC dropout", 3)}
    assert {key[:3] for key in scores} == {
        (loss, *model) for loss in ("ce", "dice") for model in models
    }
    for key, row in scores.items():
        assert key[3:] in measures
        if row["value"]:
            low, value, high = (float(row[part]) for part in ("low", "value", "high"))
            assert low <= value <= high
    assert len(scores) == 2 * len(models) * len(measures)
    # Against M over random subsets.
    draws = {(row["loss"], row["size"]): row["draws"] for row in rows(out, "scores")
             if row["model"] in ("single", "ensemble")}  # fmt: skip
    assert {int(size) for _, size in draws} == {1, 2, MEMBERS}
    assert draws["ce", "2"] == "2"
    # Paired differences with their tests.
    differences = rows(out, "differences")
    assert {row["first"] for row in differences} >= {"ce ensemble", "dice ensemble", "dice single"}
    assert all(row["cases"] == str(len(tested)) for row in differences if row["measure"] == "dice")
    assert any(row["wilcoxon_p"] for row in differences)
    # Entropy against logit Dice: slope, r and its interval, and the points of the figure.
    fits = rows(out, "entropy_fits")
    assert {(row["loss"], row["model"]) for row in fits} >= {
        ("ce", "ensemble"),
        ("dice", "ensemble"),
    }
    assert all(-1 <= float(row["r"]) <= 1 and row["slope"] for row in fits)
    structures = Dataset.open(data if name != "prostate" else data / "Dataset_prostatex").labels
    assert {row["structure"] for row in rows(out, "segments")} == set(structures) - {"background"}
    # Detection of other data, of failures, and the coverage of the intervals.
    assert {row["set"] for row in rows(out, "outside")} == (
        {"outside", "noise"} if name == "prostate" else {"noise"}
    )
    assert {row["score"] for row in rows(out, "outside")} == {
        *("binary_entropy", "mutual_information", "pairwise_dice"),
    }
    assert {row["measure"] for row in rows(out, "failures")} >= {"aurc", "augrc", "auroc"}
    assert all(row["covered"] or row["reason"] for row in rows(out, "coverage"))
    # Six signs with verdicts and numbers.
    assert len(content["claims"]) == 6
    for claim in content["claims"]:
        assert claim["verdict"] in ("supported", "contradicted", "undecided")
        assert claim["tests"]
        assert claim["claim"] in printed
    lengths = rows(out, "lengths")
    assert {row["region"] for row in lengths} == {"box", "whole volume"}
    assert np.isfinite([float(row["ece_single"]) for row in lengths]).all()

    # Nothing is done twice.
    times = {file: file.stat().st_mtime_ns for file in (out / "streamed").rglob("*.npz")}
    assert study(name, data, out, split).splitlines()[0] == printed.splitlines()[0]
    assert times == {file: file.stat().st_mtime_ns for file in (out / "streamed").rglob("*.npz")}
