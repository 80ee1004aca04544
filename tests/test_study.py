"""A study in miniature: every stage, killed and resumed, against independent computations."""

from __future__ import annotations

import csv
import json
import re
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch

from fastcal.core.errors import DataError
from fastcal.data.affines import affine_from
from fastcal.data.phantom import write_dataset
from fastcal.predict import predict_cases
from fastcal.regions import dilated_box
from fastcal.report import style
from fastcal.study import design, run_study
from fastcal.study.comparison import ENSEMBLE, IN_BOX, Quantity
from fastcal.study.found import Results
from fastcal.study.records import CaseRecord

SETTINGS: dict[str, Any] = {
    "members": 3,
    "split": (3, 1, 4),
    "fast": True,
    "shifts": ("noise",),
    "device": "cpu",
    "training": {
        "network.widths": [4, 8],
        "sampling.batch_size": 6,
        "optimiser.learning_rate": 0.02,
        "loop.iterations_per_epoch": 20,
        "loop.max_epochs": 2,
        "preprocessing.size": None,
        "preprocessing.spacing": None,
    },
    "command": "fastcal study",
    "progress": False,
}
TEST_CASES = [f"prostate_{number:03d}" for number in (4, 5, 6, 7)]
PASSES = 3


@pytest.fixture(scope="module", autouse=True)
def _small() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        fast = {"draws": 2, "passes": PASSES, "length_members": 2, "length_epochs": 2}
        patch.setattr(design, "_FAST", {**design._FAST, **fast})
        for module in ("report.measured", "study.quality"):
            patch.setattr(f"fastcal.{module}.N_RESAMPLES", 200)
        patch.setattr(style, "png_bytes", partial(style.png_bytes, dpi=20))
        # Drawing the curves of each member takes longer than training it.
        patch.setattr("fastcal.train.learner.draw_curves", lambda _: None)
        yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    for seed, (name, count) in enumerate((("prostatex", 8), ("promise12", 3))):
        write_dataset(
            folder / name,
            kind="prostate",
            n_cases=count,
            seed=seed,
            shape=(24, 24, 6),
            ood=name == "promise12",
        )
    return folder


@pytest.fixture(scope="module")
def finished(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Results]:
    out = tmp_path_factory.mktemp("study") / "out"
    return out, run_study("prostate", out, data=data, **SETTINGS)


def rows(out: Path, name: str) -> list[dict[str, str]]:
    with (out / "tables" / f"{name}.csv").open() as file:
        return list(csv.DictReader(file))


def value(out: Path, loss: str, model: str, size: int, quantity: str) -> float:
    measure, _, region = quantity.partition(", ")
    (found,) = (
        row
        for row in rows(out, "scores")
        if (row["loss"], row["model"], row["size"], row["measure"], row["region"])
        == (loss, model, str(size), measure, region)
    )
    return float(found["value"])


def members(out: Path, data: Path, run: str, **options: Any) -> list[dict[str, np.ndarray]]:
    """Probabilities of each member, predicted apart by another way through the package."""
    found = []
    numbers = options.pop("members", range(3))
    for number in numbers:
        folder = out.parent / f"{run}_{number}"
        predict_cases(
            out / "runs" / run,
            data / "prostatex" / "imagesTr",
            folder,
            cases=TEST_CASES,
            members=[number],
            maps=(),
            save_probabilities=True,
            device="cpu",
            **options,
        )
        found.append(
            {
                case: np.load(folder / f"{case}.npz")["probabilities"]
                .astype(np.float64)
                .transpose(0, 3, 2, 1)
                for case in TEST_CASES
            }
        )
    return found


def truth(data: Path, case: str) -> tuple[np.ndarray, np.ndarray]:
    image = nib.load(data / "prostatex" / "labelsTr" / f"{case}.nii.gz")
    return np.asarray(image.dataobj).astype(int), image.affine


def oracle(data: Path, means: dict[str, np.ndarray]) -> dict[str, float]:
    """Dice, NLL, Brier score and ECE of ten bins, from the formulas of the paper."""
    dice: list[float] = []
    parts: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {"whole volume": [], "box": []}
    for case, p in means.items():
        y, affine = truth(data, case)
        label = p.argmax(0)
        dice.append(2 * ((label == 1) & (y == 1)).sum() / ((label == 1).sum() + (y == 1).sum()))
        box = dilated_box(y, 8.0, 2, affine=affine)
        parts["whole volume"].append((p.reshape(2, -1), y.ravel()))
        parts["box"].append((p[:, box], y[box]))
    found = {"dice": float(np.mean(dice))}
    for region, pairs in parts.items():
        p, y = (np.concatenate(arrays, axis=-1) for arrays in zip(*pairs, strict=True))
        confidence, right = p.max(0), p.argmax(0) == y
        place = np.clip(np.ceil(confidence * 10).astype(int) - 1, 0, 9)
        gaps = [abs((right[place == b] - confidence[place == b]).sum()) for b in range(10)]
        picked = np.take_along_axis(p, y[None], 0)
        found[f"ece, {region}"] = float(np.sum(gaps) / len(y))
        found[f"nll, {region}"] = float(-np.log(np.maximum(picked, 1e-15)).mean())
        found[f"brier, {region}"] = float(((p - np.eye(2)[y].T) ** 2).sum(0).mean())
    return found


@pytest.mark.parametrize("loss", ["ce", "dice"])
def test_tables_are_those_of_members_that_were_predicted_one_by_one(
    loss: str, data: Path, finished: tuple[Path, Results]
) -> None:
    out, results = finished
    pool = members(out, data, loss)
    streamed = {model.size: model for model in results.comparison.by_size(loss)}
    assert sorted(streamed) == [1, 2, 3]
    together = {case: np.mean([one[case] for one in pool], axis=0) for case in TEST_CASES}
    for name, expected in oracle(data, together).items():
        assert value(out, loss, "ensemble", 3, name) == pytest.approx(expected, rel=6e-6, abs=3e-6)
    # Two of the three members are drawn; which ones is what the seed says.
    drawn = design.design("prostate", fast=True)
    from fastcal.study.subsets import draw_subsets

    subsets = draw_subsets(3, drawn.sizes(3), draws=drawn.draws, seed=0)
    for size in (1, 2):
        alone = [
            oracle(
                data,
                {c: np.mean([pool[m][c] for m in one.members], axis=0) for c in TEST_CASES},
            )
            for one in subsets
            if one.size == size
        ]
        kind = "single" if size == 1 else "ensemble"
        for name in alone[0]:
            expected = np.mean([one[name] for one in alone])
            assert value(out, loss, kind, size, name) == pytest.approx(expected, rel=6e-6, abs=3e-6)


def test_dropout_is_the_mean_of_its_passes(data: Path, finished: tuple[Path, Results]) -> None:
    out, _ = finished
    (mean,) = members(out, data, "ce-dropout", members=[0], mc_dropout=PASSES)
    for name, expected in oracle(data, mean).items():
        assert value(out, "ce", "MC dropout", PASSES, name) == pytest.approx(
            expected, rel=6e-6, abs=3e-6
        )


def test_entropy_of_segments_is_the_papers(data: Path, finished: tuple[Path, Results]) -> None:
    out, _ = finished
    found = 0
    for loss in ("ce", "dice"):
        pool = members(out, data, loss)
        for case in TEST_CASES:
            record = CaseRecord.read(out / "streamed" / loss / "test" / f"{case}.npz")
            p = np.mean([one[case] for one in pool], axis=0)
            inside = p.argmax(0) == 1
            entropy = record.scores["binary_entropy"][1, 0]
            if not inside.any():
                assert np.isnan(entropy)
                continue
            q = p[1][inside]
            expected = -(q * np.log(q) + (1 - q) * np.log1p(-q)).mean()
            assert entropy == pytest.approx(expected, abs=1e-5)
            masks = [one[case].argmax(0) == 1 for one in pool]
            pairs = [
                2 * (masks[i] & masks[j]).sum() / (masks[i].sum() + masks[j].sum())
                for i in range(3)
                for j in range(i)
                if (masks[i] | masks[j]).any()
            ]
            agreement = record.scores["pairwise_dice"][1, 0]
            assert agreement == pytest.approx(np.mean(pairs), abs=1e-6)
            found += 1
    assert found


def test_every_table_and_figure_is_written(finished: tuple[Path, Results]) -> None:
    out, results = finished
    content = json.loads((out / "results.json").read_text())
    assert content["members"] == 3
    assert content["from_outside"] == "PROMISE12"
    assert len(content["claims"]) == len(results.signs) == 6
    assert {row["set"] for row in rows(out, "outside")} == {"outside", "noise"}
    assert {row["epoch"] for row in rows(out, "lengths")} == {"1", "2"}
    assert {row["steps"] for row in rows(out, "lengths")} == {"20", "40"}
    names = {file.stem for file in (out / "figures").glob("*.png")}
    assert {"members", "reliability_box", "reliability_whole", "outside", "lengths"} <= names
    page = (out / "report.html").read_text(encoding="utf-8")
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert found is not None
    shown = json.loads(found[1])
    assert [one["claim"] for one in shown["findings"]] == [sign.claim for sign in results.signs]
    numbers = {(n["model"], n["measure"], n["region"]): n["estimate"] for n in shown["numbers"]}
    ensemble = results.comparison.of("dice", ENSEMBLE).measured[Quantity("nll", IN_BOX)]
    assert numbers["Dice loss, ensemble of 3", "nll", "box:8:2"] == ensemble.estimate
    section = (out / "results.md").read_text()
    assert section.startswith("## Prostate, PROSTATEx\n")
    assert all(sign.claim in section for sign in results.signs)
    stages = json.loads((out / "stages.json").read_text())
    assert all(stage["finished"] for stage in stages.values())
    assert next(iter(stages)) == "train ce"


def test_differences_are_paired(finished: tuple[Path, Results]) -> None:
    out, results = finished
    by_case = {
        (row["loss"], row["model"], row["case"]): float(row["nll box"])
        for row in rows(out, "cases")
    }
    assert len(by_case) == 2 * 3 * len(TEST_CASES)
    (row,) = (
        row
        for row in rows(out, "differences")
        if (row["first"], row["second"], row["measure"], row["region"])
        == ("dice ensemble", "dice single", "nll", "box")
    )
    ensemble = results.comparison.of("dice", "ensemble")
    single = results.comparison.of("dice", "single")
    (nll,) = (q for q in ensemble.measured if (q.measure, q.region) == ("nll", "box"))
    expected = ensemble.measured[nll].estimate - single.measured[nll].estimate
    assert float(row["difference"]) == pytest.approx(expected, rel=1e-4)
    assert int(row["cases"]) == len(TEST_CASES)
    assert float(row["low"]) <= expected <= float(row["high"])


def test_killed_anywhere_it_goes_on_to_the_same_results(
    data: Path, finished: tuple[Path, Results], monkeypatch: pytest.MonkeyPatch
) -> None:
    out, _ = finished
    monkeypatch.setattr("fastcal.study.figures.figures", lambda _: {})  # they are drawn already
    before = (out / "results.json").read_bytes()
    kept = out / "runs" / "ce" / "member_00" / "best.safetensors"
    stamp = kept.stat().st_mtime_ns
    record = out / "streamed" / "dice" / "test" / f"{TEST_CASES[0]}.npz"
    other = out / "streamed" / "dice" / "test" / f"{TEST_CASES[1]}.npz"
    untouched = other.stat().st_mtime_ns
    # What kills leave: no results, a record that is missing, one that is cut, a lost member.
    for name in ("results.json", "results.md", "stages.json"):
        (out / name).unlink()
    record.unlink()
    cut = out / "streamed" / "ce" / "noise" / f"{TEST_CASES[2]}.npz"
    cut.write_bytes(cut.read_bytes()[:100])
    shutil.rmtree(out / "runs" / "dice" / "member_02")
    run_study("prostate", out, data=data, **SETTINGS)
    after = json.loads((out / "results.json").read_text())
    expected = json.loads(before)
    for content in (after, expected):
        content.pop("stages")
    assert after == expected
    assert kept.stat().st_mtime_ns == stamp
    assert other.stat().st_mtime_ns == untouched


@pytest.mark.parametrize(
    ("name", "changed", "message"),
    [
        ("prostate", {"seed": 1}, "study.json: holds an experiment whose seed must be 1, got 0"),
        ("prostate", {"split": (2, 1, 4)}, "holds an experiment whose split must be"),
        ("prostate", {"shifts": ("blur",)}, "shifts must be some of contrast, .*, got 'blur'"),
        ("prostate", {"members": 1}, "members must be at least 2, for ensembles of them, got 1"),
        ("prostate", {"jobs": 0}, "jobs must be at least 1, got 0"),
        ("prostate", {"split": (4, 3, 1)}, "split must hold at least 2 cases to test, got 1"),
        ("prostate", {"training": {"loop.epochs": 3}}, "config has no setting loop.epochs"),
        ("lung", {}, "study must be one of brain, .*, got 'lung'"),
        ("heart", {"data": None}, "data must be the folder of a dataset for the study 'heart'"),
        ("phantom", {}, "data and outside must be left out for phantoms, which are drawn, got"),
    ],
)
def test_bad_arguments_are_named(
    name: str,
    changed: dict[str, Any],
    message: str,
    data: Path,
    finished: tuple[Path, Results],
) -> None:
    with pytest.raises(ValueError, match=message):
        run_study(name, finished[0], **{"data": data, **SETTINGS, **changed})


def test_a_study_of_another_form_of_affine_is_another_study(
    data: Path, finished: tuple[Path, Results]
) -> None:
    with affine_from("qform"), pytest.raises(DataError, match="affine must be 'qform', got 'auto'"):
        run_study("prostate", finished[0], data=data, **SETTINGS)


def test_cases_without_reference_cannot_be_tested_with(data: Path, tmp_path: Path) -> None:
    copy = tmp_path / "data"
    shutil.copytree(data / "prostatex", copy)
    (copy / "labelsTr" / f"{TEST_CASES[0]}.nii.gz").unlink()
    with pytest.raises(DataError, match=f"{TEST_CASES[0]}.*has no reference label map"):
        run_study("prostate", tmp_path / "out", data=copy, **SETTINGS)
