"""The record of a prediction folder: nothing of other inputs or settings mixes into it."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cohort import CASES, files_in, random_labels, write_cohort, write_dataset_json, write_nifti

from fastcal.cases import record
from fastcal.cases.journal import Journal, journals, last_entries, read_journal, read_journals
from fastcal.cli import main
from fastcal.core.errors import DataError
from fastcal.predict import (
    PredictionSummary,
    ensemble_folders,
    folder_status,
    merge_statistics,
)
from fastcal.recalibrate import apply_folders, fit_folders


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two folds with labels, combined into ``out``, and a calibrator."""
    folder = tmp_path_factory.mktemp("record") / "done"
    write_cohort(folder, members=2)
    for fold in folder.glob("fold_*"):
        write_dataset_json(fold)
    ensemble(folder)
    fit_folders([folder / "fold_0"], folder / "labels", folder / "calibrator.json")
    return folder


@pytest.fixture
def project(done: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(done, tmp_path / "project"))


def ensemble(folder: Path, out: str = "out", **options: Any) -> PredictionSummary:
    folds = sorted(folder.glob("fold_*"))
    settings = {"labels": folder / "labels", "save_probabilities": True} | options
    return ensemble_folders(folds, folder / out, **settings)


def rewrite_member(folder: Path) -> None:
    path = folder / "fold_1/case_b.npz"
    np.savez_compressed(path, probabilities=np.load(path)["probabilities"][::-1])


def rewrite_member_of_its_size_and_time(folder: Path) -> None:
    path = folder / "fold_1/case_b.npz"
    before = path.stat()
    content = bytearray(path.read_bytes())
    content[200] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def rewrite_labels(folder: Path) -> None:
    write_nifti(folder / "labels/case_b.nii.gz", random_labels(np.random.default_rng(9)))


def move_image(folder: Path) -> None:
    (folder / "fold_0/case_b.nii.gz").unlink()


def add_geometry(folder: Path) -> None:
    (folder / "fold_0/case_b.pkl").write_bytes(b"new")


def rename_labels(folder: Path) -> None:
    write_dataset_json(folder / "fold_1", labels={"background": 0, "b": 1, "a": 2})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (rewrite_member, r"fold_1/case_b\.npz: has changed since case case_b was done"),
        (rewrite_member_of_its_size_and_time, r"fold_1/case_b\.npz: has changed since"),
        (rewrite_labels, r"labels/case_b\.nii\.gz: has changed since"),
        (move_image, r"fold_0/case_b\.nii\.gz: has changed since"),
        (add_geometry, r"fold_0/case_b\.pkl: has changed since"),
        (rename_labels, r"fold_1/dataset\.json: is not what .*prediction\.json was made with"),
    ],
)
def test_changed_inputs_are_named_and_nothing_is_written(
    project: Path, change: Callable[[Path], None], message: str
) -> None:
    change(project)
    before = files_in(project)
    with pytest.raises(DataError, match=message):
        ensemble(project)
    assert files_in(project) == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": 2.0}, r"made with temperature = \[1\.0, 1\.0\], but now it is \[2\.0"),
        ({"space": "logit"}, "made with space = 'prob', but now it is 'logit'"),
        ({"weights": [1, 2]}, "made with weights"),
        ({"dtype": "uint8"}, "made with dtype"),
        ({"n_bins": 10}, "made with n_bins = 15, but now it is 10"),
        ({"regions": ["foreground"]}, "made with regions"),
    ],
)
def test_other_settings_are_named(project: Path, options: dict[str, Any], message: str) -> None:
    before = files_in(project)
    with pytest.raises(DataError, match=rf"prediction\.json: this folder was {message}"):
        ensemble(project, **options)
    assert files_in(project) == before


def test_another_version_or_command_is_named(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(DataError, match=r"made with command = 'ensemble', but now .*apply"):
        apply_folders(project / "calibrator.json", [project / "fold_0"], project / "out")
    apply_folders(project / "calibrator.json", [project / "fold_0"], project / "applied")
    with pytest.raises(DataError, match="made with command = 'recalibrate apply', but now"):
        ensemble_folders([project / "fold_0"], project / "applied")
    monkeypatch.setattr(record, "__version__", "99.0")
    with pytest.raises(DataError, match=r"made with fastcal = .*, but now it is '99\.0'"):
        ensemble(project)
    monkeypatch.setattr(record, "__version__", "1.2.0.dev7+g0123abc")
    assert record.versions()["fastcal"] == "1.2.0"


def test_a_folder_of_an_older_version_is_refused_until_it_is_overwritten(project: Path) -> None:
    path = project / "out/prediction.json"
    content = json.loads(path.read_text())
    del content["format"]
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"prediction\.json: is of another version of fastcal"):
        ensemble(project)
    assert ensemble(project, overwrite=True).done == CASES


def test_copies_of_the_inputs_are_no_change(project: Path) -> None:
    for path in project.glob("fold_*/*"):
        os.utime(path, ns=(10**18, 10**18))
    assert ensemble(project).skipped == CASES


def test_a_project_may_be_moved(project: Path) -> None:
    moved = project.rename(project.with_name("elsewhere"))
    assert ensemble(moved).skipped == CASES


def test_a_missing_entry_of_the_record_is_a_difference(project: Path) -> None:
    path = project / "out/prediction.json"
    content = json.loads(path.read_text())
    del content["space"]
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match="made with space = None, but now it is 'prob'"):
        ensemble(project)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-5])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [truncate, flip, Path.unlink])
@pytest.mark.parametrize("file", ["{}.nii.gz", "entropy/{}.nii.gz", "calibration/{}.npz", "{}.npz"])
def test_a_damaged_output_is_made_again(
    project: Path, file: str, damage: Callable[[Path], None]
) -> None:
    before = files_in(project / "out")
    damage(project / "out" / file.format("case_b"))
    assert ensemble(project).done == ("case_b",)
    assert files_in(project / "out") == before


@pytest.mark.parametrize("damage", [truncate, Path.unlink])
def test_a_case_whose_record_is_damaged_is_made_again(
    project: Path, damage: Callable[[Path], None]
) -> None:
    before = files_in(project / "out")
    damage(project / "out/record/case_b.json")
    assert ensemble(project).done == ("case_b",)
    assert files_in(project / "out") == before


def test_a_folder_that_has_lost_its_record_is_refused_until_it_is_overwritten(
    project: Path,
) -> None:
    (project / "out/prediction.json").unlink()
    with pytest.raises(DataError, match=r"out/prediction\.json: is missing, though"):
        ensemble(project)
    with pytest.raises(
        DataError, match=r"out/prediction\.json: is missing, .*would keep case case_b"
    ):
        ensemble(project, overwrite=True, cases=["case_a"])
    assert ensemble(project, overwrite=True).done == CASES


def test_a_changed_case_is_listed_and_the_others_go_on(project: Path) -> None:
    rewrite_member(project)
    (project / "out/case_c.nii.gz").unlink()
    summary = ensemble(project, keep_going=True)
    assert (summary.skipped, summary.done) == (("case_a",), ("case_c",))
    assert "case_b.npz: has changed since" in summary.failed[0].reason


def test_maps_and_labels_may_be_added(project: Path) -> None:
    assert ensemble(project, "more", labels=None).done == CASES
    assert ensemble(project, "more").done == CASES
    assert ensemble(project, "more", maps=("variance",)).done == CASES
    assert ensemble(project, "more").skipped == CASES
    assert ensemble(project, "more", labels=None).skipped == CASES
    for name in ("calibration.npz", "entropy/case_a.nii.gz"):
        assert (project / "more" / name).read_bytes() == (project / "out" / name).read_bytes()


def test_overwrite_with_other_settings_starts_the_folder_anew(project: Path) -> None:
    ensemble(project, maps=("variance",))
    ensemble(project, overwrite=True, temperature=2.0)
    ensemble(project, "fresh", temperature=2.0)
    assert files_in(project / "out") == files_in(project / "fresh")
    rewrite_member(project)
    assert ensemble(project, overwrite=True, temperature=2.0).done == CASES


@pytest.mark.parametrize("part", [{"cases": ["case_a"]}, {"num_parts": 2, "part_id": 0}])
def test_overwrite_of_a_part_is_refused_where_it_would_mix(
    project: Path, part: dict[str, Any]
) -> None:
    before = files_in(project)
    with pytest.raises(DataError, match=r"made with temperature.*overwrite must start the folder"):
        ensemble(project, overwrite=True, temperature=2.0, **part)
    assert files_in(project) == before
    # With the same settings, and inputs that may have changed, it is done again.
    assert ensemble(project, overwrite=True, **part).done[0] == "case_a"
    summary = ensemble(project)
    assert summary.skipped == CASES
    assert files_in(project).items() >= before.items()


def test_a_record_names_nothing_outside_its_folder(project: Path) -> None:
    path = project / "out/record/case_a.json"
    content = json.loads(path.read_text())
    content["outputs"]["../labels/case_a.nii.gz"] = {"size": 1, "sha256": "0"}
    path.write_text(json.dumps(content))
    ensemble(project, overwrite=True, temperature=2.0)
    assert (project / "labels/case_a.nii.gz").exists()


# The journal


def tell(path: Path, case: str, state: Any, worker: str = "worker 0") -> None:
    with Journal(path) as journal:
        journal.note(case, state, worker, seconds=1.0)


def reasons(folder: Path) -> dict[str, str]:
    return {one.case: one.reason for one in folder_status(folder).unfit}


def test_overwrite_forgets_what_the_journal_said_of_its_cases(project: Path) -> None:
    out = project / "out"
    for case in ("case_a", "case_b", "case_of_old"):
        tell(out / "journal.jsonl", case, "failed")
    tell(out / "journal.part-1-of-2.jsonl", "case_a", "aside")
    ensemble(project, cases=["case_a"], overwrite=True)
    left = [(one.case, one.state) for one in read_journals(out)]
    assert left == [("case_b", "failed"), ("case_of_old", "failed")]
    assert not (out / "journal.part-1-of-2.jsonl").exists(), "it had no other lines"
    assert reasons(out) == {"case_of_old": "failed by worker 0 at " + read_journals(out)[-1].at}
    # With other settings the folder starts anew, and so does all that is said of it.
    ensemble(project, overwrite=True, temperature=2.0)
    assert (read_journals(out), reasons(out)) == ([], {})
    assert folder_status(out).workers == ()


def test_overwrite_of_a_part_leaves_the_journal_of_its_neighbour(project: Path) -> None:
    out = project / "out"
    for case, part in (("case_a", 0), ("case_b", 1), ("case_c", 1)):
        tell(out / f"journal.part-{part}-of-2.jsonl", case, "begun")
    ensemble(project, overwrite=True, num_parts=2, part_id=0)  # case_a and case_c
    left = [(path.name[13:], one.case) for path in journals(out) for one in read_journal(path)]
    assert left == [("1-of-2.jsonl", "case_b"), ("1-of-2.jsonl", "case_c")]


def test_status_believes_the_latest_line_whichever_journal_has_it(tmp_path: Path) -> None:
    lines = {
        "journal.jsonl": ("lost", "2026-03-29T01:59:59+0100"),
        "journal.part-0-of-2.jsonl": ("failed", "2026-03-29T02:30:00+0200"),
    }
    for name, (state, at) in lines.items():
        entry = {"case": "case_a", "state": state, "worker": "worker 0", "at": at}
        (tmp_path / name).write_text(json.dumps(entry) + "\n")
    assert last_entries(read_journals(tmp_path))["case_a"].state == "lost"


# Merging


def parts(folder: Path, out: str = "parts", numbers: tuple[int, ...] = (0, 1), **options: Any):
    for part_id in numbers:
        ensemble(folder, out, num_parts=2, part_id=part_id, **options)


def test_parts_of_other_settings_are_not_added(project: Path) -> None:
    parts(project, "parts", (0,))
    parts(project, "hot", (1,), temperature=2.0)
    with pytest.raises(DataError, match=r"made with temperature = \[1\.0, 1\.0\], but now it is"):
        merge_statistics([project / "parts", project / "hot"], project / "sum")
    assert not (project / "sum").exists()


@pytest.mark.parametrize(
    ("change", "name"), [(rewrite_member, "fold_1/case_b.npz"), (rewrite_labels, "labels/case_b")]
)
def test_parts_whose_inputs_have_changed_are_not_added(
    project: Path, change: Callable[[Path], None], name: str
) -> None:
    parts(project)
    merge_statistics(project / "parts", project / "sum")
    change(project)
    with pytest.raises(DataError, match=rf"{name}.*: has changed since case case_b was done"):
        merge_statistics(project / "parts", project / "sum")


def test_a_part_older_than_its_cases_is_not_added(project: Path) -> None:
    parts(project)
    part = project / "parts/calibration.part-1-of-2.npz"
    old = part.read_bytes()
    rewrite_member(project)
    parts(project, "parts", (1,), overwrite=True)
    merge_statistics(project / "parts", project / "sum")
    part.write_bytes(old)
    with pytest.raises(DataError, match=r"part-1-of-2\.npz: is older than its cases"):
        merge_statistics(project / "parts", project / "sum")


def test_a_sum_does_not_replace_that_of_other_predictions(project: Path) -> None:
    parts(project)
    ensemble(project, "hot", temperature=2.0)
    before = files_in(project / "hot")
    with pytest.raises(DataError, match="made with temperature"):
        merge_statistics(project / "parts", project / "hot")
    assert files_in(project / "hot") == before
    with pytest.raises(DataError, match=r"fold_0: holds case_a\.nii\.gz, which this command did"):
        merge_statistics(project / "parts", project / "fold_0")
    whole = (project / "out/calibration.npz").read_bytes()
    merge_statistics(project / "parts", project / "out")
    assert (project / "out/calibration.npz").read_bytes() == whole


# Status


def test_status_names_what_a_folder_was_made_with_and_what_does_not_fit(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["status", "-p", str(project / "out")]
    assert main(words) == 0
    said = capsys.readouterr().out
    assert "command: ensemble\n" in said
    assert "temperature: [1.0, 1.0]\n" in said
    assert f"{len(CASES)} cases finished" in said
    rewrite_member(project)
    truncate(project / "out/entropy/case_a.nii.gz")
    found = folder_status(project / "out")
    assert found.finished == ("case_c",)
    reasons = {one.case: one.reason for one in found.unfit}
    assert reasons["case_a"].endswith("out/entropy/case_a.nii.gz: is not what was written")
    assert "fold_1/case_b.npz: has changed since" in reasons["case_b"]
    assert main(words) == 1
    with pytest.raises(DataError, match=r"labels: has no prediction\.json"):
        folder_status(project / "labels")
