"""Records of images that consist of several files, and of which description was read."""

from __future__ import annotations

import importlib
import warnings
import zlib
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from cohort import CASES, write_cohort, write_dataset_json, write_member

from fastcal import report
from fastcal.core.doors import digest
from fastcal.core.errors import DataError, DataWarning
from fastcal.evaluate import evaluate_folder
from fastcal.predict import ensemble_folders, folder_status
from fastcal.recalibrate import apply_folders, fit_folders

sitk = pytest.importorskip("SimpleITK")


def as_metaimage(folder: Path) -> None:
    """Write every NIfTI file at the top of a folder as a header and voxels beside it."""
    for path in sorted(folder.glob("*.nii.gz")):
        image = sitk.ReadImage(path)
        path.unlink()
        sitk.WriteImage(image, path.with_name(path.name.replace(".nii.gz", ".mhd")))


def other_voxels(path: Path) -> None:
    """Change voxels that lie beside a header."""
    voxels = np.fromfile(path, np.uint8)
    np.where(voxels == 1, 0, voxels).tofile(path)


@pytest.fixture
def cohort(tmp_path: Path) -> tuple[list[Path], Path]:
    folders, labels, *_ = write_cohort(tmp_path)
    as_metaimage(labels)
    return folders, labels


def test_labels_whose_voxels_have_changed_beside_their_header_are_named(cohort, tmp_path):
    folders, labels = cohort
    ensemble_folders(folders, tmp_path / "out", labels=labels)
    other_voxels(labels / f"{CASES[1]}.raw")
    with pytest.raises(DataError, match=rf"labels/{CASES[1]}\.raw: has changed since"):
        ensemble_folders(folders, tmp_path / "out", labels=labels)
    assert [one.case for one in folder_status(tmp_path / "out").unfit] == [CASES[1]]


def test_label_maps_whose_voxels_are_not_what_was_written_are_made_again(tmp_path):
    folders, *_ = write_cohort(tmp_path)
    write_dataset_json(tmp_path, file_ending=".mhd")
    ensemble_folders(folders, tmp_path / "out")
    written = (tmp_path / f"out/{CASES[0]}.zraw").read_bytes()
    (tmp_path / f"out/{CASES[0]}.zraw").write_bytes(written[:-4] + bytes(4))
    (tmp_path / f"out/{CASES[1]}.zraw").unlink()
    assert len(folder_status(tmp_path / "out").unfit) == 2
    assert ensemble_folders(folders, tmp_path / "out").done == tuple(CASES[:2])
    assert (tmp_path / f"out/{CASES[0]}.zraw").read_bytes() == written


def test_an_evaluation_scores_a_case_again_whose_voxels_have_changed(cohort, tmp_path):
    folders, labels = cohort
    ensemble_folders(folders, tmp_path / "out")

    def evaluate(stop: bool) -> dict:
        def progress(state):
            if stop and state.done == 2:
                raise KeyboardInterrupt

        return evaluate_folder(
            labels, tmp_path / "out", tmp_path / "scores.json", num_classes=3, surface=False,
            progress=progress,
        )  # fmt: skip

    whole = evaluate(False)
    with pytest.raises(KeyboardInterrupt):
        evaluate(True)
    other_voxels(labels / f"{CASES[0]}.raw")
    now = evaluate(False)
    assert now["metric_per_case"][0]["metrics"] != whole["metric_per_case"][0]["metrics"]


def described_twice(folder: Path) -> tuple[list[Path], Path]:
    """Two members with a description each, of which one has an ignore label."""
    folders, labels, *_ = write_cohort(folder, members=2)
    write_dataset_json(folders[0])
    groups = {"background": 0, "anterior": [1], "posterior": [2]}
    write_dataset_json(folders[1], labels=groups | {"ignore": 3})
    return folders, labels


def test_an_ensemble_read_by_the_description_of_another_member_does_not_go_on(tmp_path):
    folders, labels = described_twice(tmp_path)
    first, second = (folder / "dataset.json" for folder in folders)
    options = {"labels": labels, "out": tmp_path / "out"}
    ensemble_folders(folders, dataset_json=first, **options)
    with pytest.raises(DataError, match=r"made with dataset_json = '.*fold_0/dataset\.json', but"):
        ensemble_folders(folders, dataset_json=second, **options)


def test_an_evaluation_by_another_description_scores_every_case_again(tmp_path):
    folders, labels = described_twice(tmp_path)
    out = tmp_path / "out"
    ensemble_folders(folders[:1], out)
    write_dataset_json(labels, labels={"background": 0, "a": 1, "b": 2, "ignore": 3})
    scored = []

    def evaluate(stop: bool, **options):
        def progress(state):
            scored.append(state.case)
            if stop and state.done == 2:
                raise KeyboardInterrupt

        evaluate_folder(labels, out, tmp_path / "s.json", surface=False, progress=progress,
                        **options)  # fmt: skip

    with pytest.raises(KeyboardInterrupt):
        evaluate(True)
    scored.clear()
    evaluate(False, dataset_json=labels / "dataset.json")
    assert scored == list(CASES)


def test_what_changed_between_the_ends_of_an_uncompressed_file_is_a_change(tmp_path):
    shape = (128, 128, 130)  # more than 2 MiB, of which both ends are background
    member, labels = tmp_path / "member", tmp_path / "labels"
    member.mkdir()
    labels.mkdir()
    truth = np.zeros(shape, np.uint8)
    truth[60:64, 60:64, 64:66] = 1
    path = labels / "a.nii"
    nib.save(nib.Nifti1Image(truth, np.eye(4)), path)
    nib.save(nib.Nifti1Image(truth, np.eye(4)), member / "a.nii.gz")
    p = np.where(truth, 0.9, 0.1).astype(np.float16).transpose(2, 1, 0)
    np.savez_compressed(member / "a.npz", probabilities=np.stack([1 - p, p]))
    options = {"labels": labels, "segments": False, "maps": ()}
    ensemble_folders([member], tmp_path / "out", **options)
    path.touch()
    assert ensemble_folders([member], tmp_path / "out", **options).skipped == ("a",)
    content = bytearray(path.read_bytes())
    content[352 + 128 * (128 * 64 + 60) + 60] = 0  # one voxel of the structure
    path.write_bytes(content)
    assert nib.load(path).get_fdata().sum() == truth.sum() - 1
    with pytest.raises(DataError, match=r"labels/a\.nii: has changed since case a was done"):
        ensemble_folders([member], tmp_path / "out", **options)


def test_a_large_file_that_looks_the_same_is_not_read_as_a_whole_again(tmp_path, monkeypatch):
    path = tmp_path / "a.npy"
    path.write_bytes(bytes(3 << 20))
    known = digest(path, whole=True)
    assert known.whole == zlib.crc32(bytes(3 << 20))
    assert digest(path) == replace(known, whole=None)
    assert digest(Path(path.rename(tmp_path / "a.npz")), whole=True).whole is None
    path.write_bytes(bytes(3 << 20))
    module = importlib.import_module("fastcal.core.doors.digest")
    monkeypatch.setattr(module, "crc32", lambda *_: 7)
    now = digest(path, whole=True, known=known)
    assert now.whole == 7
    assert not now.same_content(known)
    assert digest(path, whole=True, known=replace(now, whole=5)).whole == 5


def test_zarr_arrays_of_one_shape_are_not_taken_for_one_case(tmp_path):
    zarr = pytest.importorskip("zarr")
    folders, labels, drawn, _ = write_cohort(tmp_path, members=1)
    for case, values in drawn.items():
        stored = values[0].transpose(0, 3, 2, 1).copy()
        (folders[0] / f"{case}.npz").unlink()
        store = str(folders[0] / f"{case}.zarr")
        made = zarr.create_array(store=store, shape=stored.shape, chunks=stored.shape, dtype="f4")
        made[:] = stored
    fit_folders(folders, labels, tmp_path / "fitted.json", cases=CASES[:1], folds=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        apply_folders(tmp_path / "fitted.json", folders, tmp_path / "b", cases=CASES[1:])
    with pytest.warns(DataWarning, match=f"fitted to these predictions of case {CASES[0]}:"):
        apply_folders(tmp_path / "fitted.json", folders, tmp_path / "a", cases=CASES[:1])


@pytest.mark.parametrize("part", [{}, {"num_parts": 2, "part_id": 1}])
def test_sums_over_old_cases_do_not_outlive_a_killed_overwrite(tmp_path, part):
    folders, labels, drawn, _ = write_cohort(tmp_path, members=2)
    out = tmp_path / "out"
    ensemble_folders(folders, out, labels=labels, **part)
    sums = {path.name for path in out.glob("*.*") if path.stem.startswith(("cal", "seg"))}
    assert len(sums) == 4
    for case, values in drawn.items():
        write_member(folders[0], {case: values[0][::-1]})

    def progress(_state):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ensemble_folders(folders, out, labels=labels, overwrite=True, progress=progress, **part)
    assert not [path for path in out.glob("*.*") if path.name in sums]
    ensemble_folders(folders, out, labels=labels, **part)
    assert {path.name for path in out.glob("*.*")} >= sums


def test_cases_whose_names_no_json_holds_are_refused_before_anything_is_written(tmp_path):
    name = b"k\xff".decode("utf-8", "surrogateescape")
    folders, labels, *_ = write_cohort(tmp_path, members=1, cases=(name, "ok"))
    write_dataset_json(tmp_path)
    words = r"must hold cases whose names are UTF-8, got 'k\\udcff'"
    out = tmp_path / "out"
    for call in (
        lambda: ensemble_folders(folders, out),
        lambda: fit_folders(folders, labels, out),
        lambda: evaluate_folder(labels, folders[0], out, surface=False),
        lambda: report.build(folders, labels, out),
    ):
        with pytest.raises(DataError, match=words):
            call()
        assert not out.exists()
    ensemble_folders(folders, out, cases=["ok"])
