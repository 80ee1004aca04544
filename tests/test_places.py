"""Where outputs may go: never onto an input, nor into other data, nor beside a second training."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from blobs import TINY, write_blobs
from cohort import CASES, files_in, write_cohort, write_dataset_json, write_images, write_run

from fastcal import load_ensemble
from fastcal.core.errors import DataError
from fastcal.core.lock import sole_use
from fastcal.core.places import check_out_file, check_out_folder, check_outputs, check_own
from fastcal.data.dataset import Dataset, image_cases
from fastcal.data.predictions import PredictionFolder
from fastcal.evaluate import evaluate_folder
from fastcal.models import export_run
from fastcal.models.run import Run
from fastcal.predict import ensemble_folders, predict_cases
from fastcal.recalibrate import apply_folders, fit_folders
from fastcal.study import run_study
from fastcal.study.demo import run_demo
from fastcal.study.experiment import compare_losses
from fastcal.train import train_ensemble

# The check itself


def as_it_is(path: Path, _: Path) -> Path:
    return path


def by_a_link(path: Path, link: Path) -> Path:
    link.symlink_to(path)
    return link


def by_a_hard_link(path: Path, link: Path) -> Path:
    os.link(path, link)
    return link


def by_a_detour(path: Path, _: Path) -> Path:
    return path.parent / ".." / path.parent.name / path.name


def by_a_folders_link(path: Path, link: Path) -> Path:
    link.symlink_to(path.parent)
    return link / path.name


WAYS = (as_it_is, by_a_link, by_a_hard_link, by_a_detour, by_a_folders_link)


@pytest.mark.parametrize("way", WAYS)
def test_an_output_is_never_an_input(tmp_path: Path, way: Callable[[Path, Path], Path]) -> None:
    (tmp_path / "labels").mkdir()
    path = tmp_path / "labels/case.nii.gz"
    path.write_bytes(b"mine")
    out = way(path, tmp_path / "out")
    with pytest.raises(DataError, match=rf"^{re.escape(str(out))}: is an input"):
        check_outputs([tmp_path / "new", out], [tmp_path / "gone", path])
    check_outputs([tmp_path / "labels/other.nii.gz"], [path])


@pytest.mark.parametrize("way", [way for way in WAYS if way is not by_a_hard_link])
def test_a_folder_of_inputs_is_never_the_output(
    tmp_path: Path, way: Callable[[Path, Path], Path]
) -> None:
    folder = tmp_path / "data/labels"
    folder.mkdir(parents=True)
    with pytest.raises(DataError, match="is a folder of inputs"):
        check_out_folder(way(folder, tmp_path / "out"), [tmp_path / "gone", folder])
    check_out_folder(folder / "inside", [folder])


def test_loops_pipes_and_folders_are_no_files_to_write(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    os.mkfifo(tmp_path / "pipe")
    for path, problem in (
        (tmp_path / "loop", "symbolic links"),
        (tmp_path / "pipe", "must be a file to write, got no regular file"),
        (tmp_path, "must be a file to write, got a folder"),
    ):
        with pytest.raises(DataError, match=problem):
            check_outputs([path], [])
    with pytest.raises(DataError, match="symbolic links"):
        check_out_folder(tmp_path / "loop", [])


@pytest.mark.parametrize(
    "name", ["a.nii", "b.npz", "dataset.json", "config.json", "imagesTr", "member_00", "x.pt"]
)
def test_a_folder_of_other_data_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "notes.txt").touch()
    (tmp_path / ".tmp-1-2-case.npz").touch()
    check_own(tmp_path)
    (tmp_path / name).mkdir()
    with pytest.raises(DataError, match=rf"holds {re.escape(name)}, which this command did not"):
        check_own(tmp_path)
    check_own(tmp_path, but=[name])
    check_own(tmp_path / "missing")


# The commands


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Folds, labels, images, an untrained run and a calibrator."""
    write_cohort(tmp_path, members=2)
    for fold in tmp_path.glob("fold_*"):
        write_dataset_json(fold)
    write_images(tmp_path / "images")
    write_run(tmp_path / "run")
    fit_folders([tmp_path / "fold_0"], tmp_path / "labels", tmp_path / "calibrators.json")
    (tmp_path / "other").mkdir()
    for name in ("best.pt", "last.pt", "epoch_0100.pt"):
        (tmp_path / "other" / name).write_bytes(b"days of training")
    (tmp_path / "calibrators").mkdir()
    (tmp_path / "calibrators.json").rename(tmp_path / "calibrators/one.json")
    return tmp_path


def ensemble(folder: Path, out: Path) -> object:
    folds = sorted(folder.glob("fold_*"))
    return ensemble_folders(folds, out, labels=folder / "labels", overwrite=True)


def predict(folder: Path, out: Path) -> object:
    labels = folder / "labels"
    return predict_cases(folder / "run", folder / "images", out, labels=labels, overwrite=True)


def apply(folder: Path, out: Path) -> object:
    calibrator = folder / "calibrators/one.json"
    return apply_folders(
        calibrator, [folder / "fold_0"], out, labels=folder / "labels", overwrite=True
    )


def evaluate(folder: Path, out: Path) -> object:
    return evaluate_folder(folder / "labels", folder / "fold_0", out, surface=False)


def fit(folder: Path, out: Path) -> object:
    return fit_folders([folder / "fold_0"], folder / "labels", out)


def export(folder: Path, out: Path) -> object:
    return export_run(folder / "run", out, format="torchscript")


@pytest.mark.parametrize(
    ("command", "places"),
    [
        (ensemble, ["labels", "fold_1", "images", "run", "."]),
        (predict, ["labels", "images", "run", "run/member_01", "fold_0"]),
        (apply, ["labels", "fold_0", "calibrators", "run"]),
        (evaluate, ["labels/case_a.nii.gz", "fold_0/case_b.npz", "fold_0/dataset.json"]),
        (evaluate, ["images/case_a_0000.nii.gz", "run/config.json"]),
        (fit, ["labels/case_a.nii.gz", "fold_0/case_b.npz", "fold_0/dataset.json"]),
        (export, ["run/config.json", "run/member_00/best.pt", "run/dataset.json"]),
        (export, ["other/best.pt", "other/last.pt", "other/epoch_0100.pt"]),
    ],
)
def test_no_command_writes_where_inputs_or_other_data_are(
    project: Path, command: Callable[[Path, Path], object], places: list[str]
) -> None:
    for place in places:
        if place == ".":  # data of its own, beside the folders that are read
            shutil.copy(project / "labels/case_a.nii.gz", project)
        before = files_in(project)
        with pytest.raises(DataError, match=re.escape(str(project / place))):
            command(project, project / place)
        assert files_in(project) == before


def test_a_map_never_takes_the_place_of_an_input(project: Path) -> None:
    (project / "fold_0").rename(project / "entropy")
    before = files_in(project)
    with pytest.raises(DataError, match="entropy: is a folder of inputs"):
        ensemble_folders([project / "entropy", project / "fold_1"], project)
    assert files_in(project) == before


def test_results_may_be_written_again(project: Path) -> None:
    for command, out in ((evaluate, "fold_0/summary.json"), (fit, "fitted.json"), (export, "x.ts")):
        for _ in range(2):
            command(project, project / out)
    check_out_file(project / "fold_0/summary.json", [])


def test_a_picture_among_pictures_that_are_read_is_data(tmp_path: Path) -> None:
    for name in ("read.png", "other_0001.png", "figure.png"):
        (tmp_path / name).touch()
    (tmp_path / "elsewhere").mkdir()
    with pytest.raises(DataError, match=r"other_0001\.png: holds data"):
        check_out_file(tmp_path / "elsewhere/../other_0001.png", [tmp_path / "read.png"])
    check_out_file(tmp_path / "new.png", [tmp_path / "read.png"])
    check_out_file(tmp_path / "figure.png", [tmp_path / "read.nii.gz"])


# Training


@pytest.fixture
def blobs(tmp_path: Path) -> Path:
    return write_blobs(tmp_path / "data")


def test_training_writes_nothing_into_a_dataset_or_other_data(blobs: Path, tmp_path: Path) -> None:
    shutil.copytree(blobs, tmp_path / "other")
    (tmp_path / "out").mkdir()
    os.link(blobs / "dataset.json", tmp_path / "out/dataset.json")
    before = files_in(tmp_path)
    for out in ("data", "data/imagesTr", "data/labelsTr", "other", "out"):
        with pytest.raises(DataError, match=re.escape(str(tmp_path / out))):
            train_ensemble(blobs, tmp_path / out, config=TINY, members=1, progress=False)
    with pytest.raises(DataError, match="imagesTr: is a folder of inputs"):
        train_ensemble(blobs, tmp_path / "run", prepared=blobs / "imagesTr", progress=False)
    assert files_in(tmp_path) == before


@pytest.mark.parametrize("place", ["data", "data/imagesTr", "data/labelsTr", "run", "outside"])
def test_studies_write_nothing_into_datasets_or_run_folders(tmp_path: Path, place: str) -> None:
    data, outside = write_blobs(tmp_path / "data"), write_blobs(tmp_path / "outside")
    write_run(tmp_path / "run")
    before, out = files_in(tmp_path), tmp_path / place
    study = partial(run_study, "prostate", out, data=data, outside=outside, split=(2, 1, 2))
    compare = partial(compare_losses, outside if place == "outside" else data, out)
    calls = [study, partial(compare, split=(2, 1, 2), members=2), partial(run_demo, out)]
    for call in calls:
        with pytest.raises(DataError, match=re.escape(str(out))):
            call(progress=False)
        assert files_in(tmp_path) == before


def test_a_second_training_in_a_run_folder_is_refused(blobs: Path, tmp_path: Path) -> None:
    script = (
        "import sys, time; from fastcal.core.lock import sole_use\n"
        "with sole_use(sys.argv[1], 'training'):\n    print('held', flush=True); time.sleep(600)"
    )
    run = tmp_path / "run"
    words = [sys.executable, "-c", script, str(run)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as holder:
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "held\n"
            with pytest.raises(DataError, match=rf"run: is in use by process {holder.pid} on .*: "):
                train_ensemble(blobs, run, config=TINY, members=1, progress=False)
        finally:
            holder.kill()
    # The lock has died with its process, whose file is still there.
    assert (run / ".lock").exists()
    with sole_use(run, "training"):
        pass
    assert not (run / ".lock").exists()


def test_a_refused_training_leaves_no_folder(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), sole_use(tmp_path / "run", "training"):
        raise RuntimeError
    assert not (tmp_path / "run").exists()


# What is there twice, and names that begin with a dot


def test_a_member_is_not_taken_twice_unless_that_is_allowed(project: Path) -> None:
    first = project / "fold_0"
    (project / "linked").symlink_to(first)
    shutil.copytree(first, project / "copy")
    for second in (first, project / "linked", project / "copy", project / "fold_1/../fold_0"):
        with pytest.raises(DataError, match=r"must be another member than .*fold_0, got the same"):
            ensemble_folders([first, project / "fold_1", second], project / "out")
    summary = ensemble_folders(
        [first, project / "copy"], project / "out", allow_duplicates=True, maps=("variance",)
    )
    assert summary.done == CASES


def test_a_number_of_a_member_is_not_taken_twice_unless_that_is_allowed(project: Path) -> None:
    run, message = project / "run", r"members must be different numbers .*, got \[1, 1\]"
    with pytest.raises(ValueError, match=message):
        predict_cases(run, project / "images", project / "out", members=[1, 1])
    with pytest.raises(ValueError, match=message):
        export_run(run, project / "out.ts", members=[1, 1])
    with pytest.raises(ValueError, match=message):
        load_ensemble(run, members=[1, 1])
    assert len(load_ensemble(run, members=[1, 1], allow_duplicates=True).members) == 2
    assert len(Run.open(run).chosen([0, 1])) == 2


def test_a_copy_of_a_member_is_no_second_one_unless_that_is_allowed(project: Path) -> None:
    run = project / "run"
    shutil.copyfile(run / "member_00/best.pt", run / "member_01/best.pt")
    message = r"member_0\d/best\.pt: must be another member than .*/best\.pt, got the same weights"
    for members in (None, [1, 0]):
        with pytest.raises(DataError, match=message):
            predict_cases(run, project / "images", project / "out", members=members)
        with pytest.raises(DataError, match=message):
            load_ensemble(run, members=members)
    with pytest.raises(DataError, match=message):
        export_run(run, project / "out.ts")
    assert len(load_ensemble(run, allow_duplicates=True).members) == 2
    assert len(load_ensemble(run, members=[1]).members) == 1


def named_twice(read: Callable[[], object], *names: str) -> None:
    with pytest.raises(DataError) as raised:
        read()
    assert all(name in str(raised.value) for name in names), str(raised.value)


def test_a_case_that_is_there_twice_is_named_with_both_files(project: Path) -> None:
    fold = project / "fold_0"
    np.save(fold / "case_a.npy", np.load(fold / "case_a.npz")["probabilities"])
    read = PredictionFolder(fold).probabilities
    named_twice(lambda: read("case_a"), "case_a.npz", "case_a.npy")
    (fold / "case_a.npy").unlink()
    labels = project / "labels"
    shutil.copy(labels / "case_b.nii.gz", labels / "case_b.nii")
    for use in (evaluate, ensemble, fit):
        named_twice(partial(use, project, project / "out"), "case_b.nii.gz:", "case_b.nii;")
    images = project / "images"
    shutil.copy(images / "case_c_0000.nii.gz", images / "case_c_0000.nii")
    named_twice(lambda: image_cases(images), "case_c_0000.nii.gz", "case_c_0000.nii:")
    (images / "case_c_0000.nii").rename(images / "case_c_0000.nrrd")
    named_twice(lambda: image_cases(images), "case_c_0000.nii.gz", "case_c_0000.nrrd:")
    (images / "case_c_0000.nrrd").rename(images / "case_c_0000.png")  # a figure
    assert len(image_cases(images)) == len(CASES)
    shutil.copy(fold / "case_b.nii.gz", fold / "case_b.mha")
    named_twice(lambda: read("case_b"), "case_b.nii.gz", "case_b.mha")


def test_names_that_begin_with_a_dot_are_cases_and_rubbish_is_not(project: Path) -> None:
    for path in sorted(project.rglob("case_a*")):
        shutil.copy(path, path.with_name(path.name.replace("case_a", ".x")))
        # What macOS writes beside files on foreign disks.
        path.with_name(f"._{path.name}").write_bytes(b"\x00\x05\x16\x07")
        path.with_name(f"._gone_{path.name}").write_bytes(b"\x00\x05\x16\x07")
        path.with_name(f".tmp-1-2-3-{path.name}").write_bytes(b"half")
    wanted = (".x", *CASES)
    assert tuple(PredictionFolder(project / "fold_0").cases()) == wanted
    assert tuple(case.name for case in image_cases(project / "images")) == wanted
    assert ensemble_folders([project / "fold_0"], project / "out").done == wanted
    scores = evaluate_folder(
        project / "labels", project / "fold_0", project / "scores.json", surface=False
    )
    assert tuple(one["case"] for one in scores["metric_per_case"]) == wanted


def test_a_dataset_says_which_case_is_there_twice(blobs: Path) -> None:
    name = Dataset.open(blobs).cases[0].name
    shutil.copy(blobs / f"labelsTr/{name}.nii.gz", blobs / f"labelsTr/{name}.nii")
    problems = [str(one) for one in Dataset.open(blobs).left_over()]
    assert len(problems) == 1
    assert f"{name}.nii: is a second label map" in problems[0]
