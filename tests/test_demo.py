"""The whole job in miniature: train, predict, ensemble, score, report; killed, it goes on."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch

from fastcal.core.errors import DataError
from fastcal.regions import dilated_box
from fastcal.report.scores import Comparison, markdown
from fastcal.study.demo import demo_config, run_demo
from fastcal.study.experiment import compare_losses
from fastcal.train import TrainConfig

SPLIT = (3, 2, 2)
TEST_CASES = ["prostate_005", "prostate_006"]
SMALL: dict[str, Any] = {
    "split": SPLIT,
    "members": 2,
    "config": TrainConfig().with_values(
        {
            "network.widths": [4, 8],
            "sampling.batch_size": 8,
            "loop": {"max_epochs": 2, "iterations_per_epoch": 4, "tensorboard": False},
        }
    ),
    "device": "cpu",
    "jobs": 1,
    "fine_bins": 64,
    "regions": ["box:4:1"],
}
PHANTOM: dict[str, Any] = {"kind": "prostate", "shape": (24, 24, 6)}


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Comparison]:
    out = tmp_path_factory.mktemp("demo") / "run"
    return out, run_demo(out, **SMALL, **PHANTOM, command="fastcal demo", progress=False)


def probabilities(folder: Path, case: str) -> np.ndarray:
    with np.load(folder / f"{case}.npz") as saved:
        return np.asarray(saved["probabilities"], dtype=np.float64).transpose(0, 3, 2, 1)


def oracle(out: Path, means: dict[str, np.ndarray]) -> dict[str, float]:
    """Dice, ECE, NLL and Brier of some cases' probabilities, from the formulas."""
    dice, p_all, y_all = [], [], []
    for case, p in means.items():
        file = out / "phantoms" / "labelsTr" / f"{case}.nii.gz"
        y = np.asanyarray(nib.load(file).dataobj).astype(int)
        label = p.argmax(0)
        dice.append(2 * ((label == 1) & (y == 1)).sum() / ((label == 1).sum() + (y == 1).sum()))
        p_all.append(p.reshape(2, -1))
        y_all.append(y.ravel())
    p, y = np.concatenate(p_all, 1), np.concatenate(y_all)
    confidence, right = p.max(0), p.argmax(0) == y
    place = np.clip(np.ceil(confidence * 15).astype(int) - 1, 0, 14)
    gaps = [abs((right[place == b] - confidence[place == b]).sum()) for b in range(15)]
    return {
        "dice": float(np.mean(dice)),
        "ece": float(np.sum(gaps) / len(y)),
        "nll": float(-np.log(np.take_along_axis(p, y[None], 0)).mean()),
        "brier": float(((p - np.eye(2)[y].T) ** 2).sum(0).mean()),
    }


@pytest.mark.parametrize("loss", ["ce", "dice"])
def test_table_is_that_of_the_saved_probabilities(
    loss: str, finished: tuple[Path, Comparison]
) -> None:
    out, comparison = finished
    compared = {one.loss: one for one in comparison.losses}[loss]
    folders = [out / "predictions" / loss / f"member_{m:02d}" for m in range(2)]
    members = [{c: probabilities(f, c) for c in TEST_CASES} for f in folders]
    together = {c: np.mean([member[c] for member in members], axis=0) for c in TEST_CASES}
    models = [*zip(members, compared.members, strict=True), (together, compared.ensemble)]
    for means, model in models:
        for measure, value in oracle(out, means).items():
            assert model.scores[measure] == pytest.approx(value, abs=2e-6)


def test_only_held_out_cases_are_scored(finished: tuple[Path, Comparison]) -> None:
    out, comparison = finished
    for loss in comparison.losses:
        stats = loss.ensemble.statistics
        assert stats is not None
        assert sorted(stats.case_ids) == TEST_CASES
        split = json.loads((out / "runs" / loss.loss / "splits.json").read_text())
        assert split["test"] == TEST_CASES
        assert not set(TEST_CASES) & {*split["train"], *split["val"]}


def test_results_are_written_for_people_and_programs(
    finished: tuple[Path, Comparison],
) -> None:
    out, comparison = finished
    assert Comparison.load(out / "results.json").to_dict() == comparison.to_dict()
    assert (out / "results.md").read_text() == markdown(comparison)
    page = (out / "report.html").read_text()
    assert "phantom_prostate" in page
    assert [sign.claim.split()[0] for sign in comparison.signs] == ["Dice", "Ensembling"]
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert found is not None
    numbers = {(n["model"], n["measure"], n["region"]): n for n in json.loads(found[1])["numbers"]}
    assert {region for _, _, region in numbers} == {"", "box:4:1"}
    for loss in comparison.losses:
        stats = loss.ensemble.statistics
        assert stats is not None
        assert loss.ensemble.scores["aurc"] == stats.aurc()
        truth = [nib.load(out / f"phantoms/labelsTr/{case}.nii.gz") for case in TEST_CASES]
        boxes = [dilated_box(np.asarray(t.dataobj), 4, 1, affine=t.affine).sum() for t in truth]
        inside = stats.region("box:4:1")
        assert inside.n_voxels == sum(boxes) < stats.n_voxels
        title = f"{loss.title}, ensemble of 2"
        assert numbers[title, "nll", "box:4:1"]["estimate"] == inside.nll()
        dice = numbers[title, "dice", ""]["estimate"]
        assert dice == pytest.approx(loss.ensemble.scores["dice"], abs=1e-12)


def forgotten(out: Path, *parts: str) -> None:
    for part in parts:
        path = out / part
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def test_killed_anywhere_it_goes_on_to_the_same_results(
    finished: tuple[Path, Comparison],
) -> None:
    out, comparison = finished
    kept = out / "runs" / "ce" / "member_00" / "best.safetensors"
    before = kept.stat().st_mtime_ns
    # What a kill leaves in the second loss's training, and in a prediction of the first.
    forgotten(
        out,
        *("report.html", "results.json", "results.md", "runs/dice/member_01", "predictions/dice"),
        f"predictions/ce/member_01/{TEST_CASES[1]}.nii.gz",
        "predictions/ce/ensemble",
    )
    resumed = run_demo(out, **SMALL, **PHANTOM, command="fastcal demo", progress=False)
    assert resumed.to_dict() == comparison.to_dict()
    assert kept.stat().st_mtime_ns == before
    assert (out / "report.html").exists()


def test_other_regions_are_counted_without_training_again(
    finished: tuple[Path, Comparison], monkeypatch: pytest.MonkeyPatch
) -> None:
    out, comparison = finished
    weights = sorted(out.rglob("best.safetensors"))
    before = [file.stat().st_mtime_ns for file in weights]

    def die(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("fastcal.predict.ensemble_folders", die)  # members are predicted by then
        with pytest.raises(KeyboardInterrupt):
            run_demo(out, **(SMALL | {"regions": ["foreground"]}), **PHANTOM, progress=False)
    again = run_demo(out, **SMALL, **PHANTOM, command="fastcal demo", progress=False)
    assert again.to_dict() == comparison.to_dict()
    assert json.loads((out / "experiment.json").read_text())["regions"] == ["box:4:1"]
    for first, second in zip(comparison.losses, again.losses, strict=True):
        assert second.ensemble.statistics == first.ensemble.statistics
        assert [m.statistics for m in second.members] == [m.statistics for m in first.members]
    assert [file.stat().st_mtime_ns for file in weights] == before


@pytest.mark.parametrize(("changed", "named"), [({"seed": 1}, "seed"), ({"members": 3}, "members")])
def test_a_folder_keeps_one_experiment(
    changed: dict[str, Any], named: str, finished: tuple[Path, Comparison]
) -> None:
    out, _ = finished
    with pytest.raises(DataError, match=f"{named} must be"):
        run_demo(out, **(SMALL | changed), **PHANTOM, progress=False)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"split": (3, 2, 0)}, "split must hold"),
        ({"split": (30, 2, 1)}, "sum to at most 7"),
        ({"members": 0}, "members must be from 1 to 10000, got 0"),
        ({"losses": ("ce", "ce")}, "losses must be some of"),
        ({"losses": ("focal",)}, "losses must be some of"),
        ({"regions": ["ball"]}, "region must be .*, got 'ball'"),
        ({"regions": ["prediction"]}, "regions must be made from the labels, got 'prediction'"),
        ({"fine_bins": 100}, "fine_bins must be 0 or a power of two from 64"),
    ],
)
def test_bad_arguments_are_named_before_anything_is_written(
    changed: dict[str, Any], message: str, finished: tuple[Path, Comparison], tmp_path: Path
) -> None:
    out, _ = finished
    with pytest.raises(ValueError, match=message):
        compare_losses(out / "phantoms", tmp_path / "new", **(SMALL | changed), progress=False)
    assert not (tmp_path / "new").exists()


def test_held_out_cases_need_labels(finished: tuple[Path, Comparison], tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(finished[0] / "phantoms", data)
    (data / "labelsTr" / f"{TEST_CASES[0]}.nii.gz").unlink()
    with pytest.raises(DataError, match=TEST_CASES[0]):
        compare_losses(data, tmp_path / "new", **SMALL, progress=False)


def test_progress_says_what_is_done_and_where_the_report_is(
    finished: tuple[Path, Comparison], capsys: pytest.CaptureFixture[str]
) -> None:
    out, _ = finished
    run_demo(out, **SMALL, **PHANTOM, progress=True)
    said = capsys.readouterr().err
    for part in ("training 2 members with cross entropy", "predicting 2 held-out cases with Dice"):
        assert part in said
    assert said.rstrip().endswith(str(out / "report.html"))


def test_demo_settings_are_the_papers_but_for_size_and_length() -> None:
    paper, demo = TrainConfig(), demo_config()
    shortened = {
        "network.widths": [8, 16, 32, 64],
        "sampling.batch_size": 8,
        "loop.max_epochs": 12,
        "loop.tensorboard": False,
        "loop.iterations_per_epoch": 24,
        "schedule.patience": 5,
    }
    assert demo == paper.with_values(shortened)


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize(("members", "jobs"), [(1, 1), (3, 3), (50, 3)])
def test_members_train_at_once_one_more_than_there_are_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, members: int, jobs: int
) -> None:
    asked = []

    def stand_in(*_: Any, **options: Any) -> None:
        asked.append(options["jobs"])

    monkeypatch.setattr("fastcal.study.experiment.compare_losses", stand_in)
    run_demo(tmp_path, split=(1, 1, 1), shape=(16, 16, 4), members=members, device="cpu")
    assert asked == [jobs]


def test_a_demo_that_was_moved_goes_on_where_it_was(
    finished: tuple[Path, Comparison], tmp_path: Path
) -> None:
    out, before = finished
    moved = tmp_path / "elsewhere" / "deep" / "run"
    shutil.copytree(out, moved)
    times = {path: path.stat().st_mtime_ns for path in moved.rglob("*.safetensors")}
    times |= {path: path.stat().st_mtime_ns for path in moved.rglob("entropy/*.nii.gz")}
    assert times
    after = run_demo(moved, **SMALL, **PHANTOM, command="fastcal demo", progress=False)
    assert {path: path.stat().st_mtime_ns for path in times} == times
    assert markdown(after) == markdown(before)
