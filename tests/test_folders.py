"""`fastcal.predict.ensemble_folders`: saved probabilities to maps, labels and calibration."""

from __future__ import annotations

import errno
import gzip
from pathlib import Path
from typing import IO

import nibabel as nib
import numpy as np
import pytest
from cohort import (
    CASES,
    SHAPE,
    assert_same_geometry,
    files_in,
    random_labels,
    random_probabilities,
    shifted_header,
    write_cohort,
    write_dataset_json,
    write_member,
    write_nifti,
)

from fastcal.core.errors import DataError
from fastcal.data import nifti
from fastcal.predict import ensemble_folders


def entropy_of(probabilities: np.ndarray) -> np.ndarray:
    p = probabilities.astype(np.float64)
    return -(p * np.log(p)).sum(0)


def loaded(path: Path) -> np.ndarray:
    return np.asarray(nib.load(path).dataobj)


def test_maps_are_those_of_numpy(tmp_path: Path) -> None:
    folders, _, drawn, _ = write_cohort(tmp_path)
    maps = ("mean", "confidence", "entropy", "expected_entropy", "mutual_information", "variance")
    summary = ensemble_folders(folders, tmp_path / "out", maps=maps)
    assert summary.done == CASES
    for case in CASES:
        members = np.stack(drawn[case]).astype(np.float64)
        mean = members.mean(0)
        expected_entropy = np.mean([entropy_of(p) for p in members], axis=0)
        expected = {
            "mean": np.moveaxis(mean, 0, -1),
            "confidence": mean.max(0),
            "entropy": entropy_of(mean),
            "expected_entropy": expected_entropy,
            "mutual_information": entropy_of(mean) - expected_entropy,
            "variance": members.var(0).mean(0),
        }
        for name, values in expected.items():
            made = loaded(tmp_path / "out" / name / f"{case}.nii.gz")
            assert made.dtype == np.float32
            np.testing.assert_allclose(made, values, atol=2e-6)
        labels = loaded(tmp_path / "out" / f"{case}.nii.gz")
        np.testing.assert_array_equal(labels, mean.argmax(0))
        assert labels.dtype == np.uint8


def test_files_lie_where_the_image_lies(tmp_path: Path) -> None:
    folders, *_ = write_cohort(tmp_path, members=1, cases=["case_a"])
    ensemble_folders(folders, tmp_path / "out", maps=("entropy", "mean"))
    for file in ("case_a.nii.gz", "entropy/case_a.nii.gz", "mean/case_a.nii.gz"):
        assert_same_geometry(tmp_path / "out" / file, folders[0] / "case_a.nii.gz")
    assert nib.load(tmp_path / "out/mean/case_a.nii.gz").shape == (*SHAPE, 3)


@pytest.mark.parametrize(("dtype", "steps"), [("uint8", 255), ("uint16", 65535)])
def test_integer_maps_err_by_half_a_step(tmp_path: Path, dtype: str, steps: int) -> None:
    folders, _, drawn, _ = write_cohort(tmp_path, cases=["case_a"])
    ensemble_folders(folders, tmp_path / "out", dtype=dtype)
    image = nib.load(tmp_path / "out/entropy/case_a.nii.gz")
    expected = entropy_of(np.mean(np.stack(drawn["case_a"]).astype(np.float64), axis=0))
    assert image.header.get_data_dtype() == dtype
    error = np.abs(image.get_fdata() - expected).max()
    assert error <= 0.5001 * expected.max() / steps + 2e-6
    assert_same_geometry(tmp_path / "out/entropy/case_a.nii.gz", folders[0] / "case_a.nii.gz")


def test_every_form_of_file_gives_the_same_bits(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    values = random_probabilities(rng)
    write_member(tmp_path / "v2", {"case_a": values})
    write_member(tmp_path / "v1", {"case_a": values}, key="softmax")
    write_nifti(tmp_path / "stack/case_a.nii.gz", np.moveaxis(values, 0, -1))
    write_nifti(tmp_path / "npy/case_a.nii.gz", values.argmax(0).astype(np.uint8))
    np.save(tmp_path / "npy/case_a.npy", values.transpose(0, 3, 2, 1))
    made = []
    for form in ("v2", "v1", "stack", "npy"):
        ensemble_folders([tmp_path / form], tmp_path / f"out_{form}")
        made.append(loaded(tmp_path / f"out_{form}/entropy/case_a.nii.gz"))
    np.testing.assert_allclose(made[0], entropy_of(values), atol=1e-6)
    for other in made[1:]:
        np.testing.assert_array_equal(other, made[0])


def test_members_may_differ_in_the_type_they_were_saved_in(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    halves = [random_probabilities(rng).astype(np.float16) for _ in range(2)]
    for number, types in enumerate(((np.float16, np.float32), (np.float32, np.float64))):
        for fold, (values, dtype) in enumerate(zip(halves, types, strict=True)):
            write_member(tmp_path / f"{number}/fold_{fold}", {"case_a": values.astype(dtype)})
        folders = [tmp_path / f"{number}/fold_{fold}" for fold in range(2)]
        ensemble_folders(folders, tmp_path / f"out_{number}")
    first, second = (loaded(tmp_path / f"out_{n}/entropy/case_a.nii.gz") for n in range(2))
    np.testing.assert_array_equal(first, second)
    np.testing.assert_allclose(first, entropy_of(np.mean(halves, 0, dtype=np.float64)), atol=1e-6)


def test_weights_and_temperatures_are_those_of_each_folder(tmp_path: Path) -> None:
    folders, _, drawn, _ = write_cohort(tmp_path, cases=["case_a"])
    weights, temperatures = [3.0, 0.0, 1.0], [2.0, 1.0, 0.5]
    ensemble_folders(
        folders, tmp_path / "out", maps=("mean",), weights=weights, temperature=temperatures
    )
    expected = np.zeros((3, *SHAPE))
    for member, weight, temperature in zip(drawn["case_a"], weights, temperatures, strict=True):
        scaled = member.astype(np.float64) ** (1 / temperature)
        expected += weight / 4 * scaled / scaled.sum(0)
    made = loaded(tmp_path / "out/mean/case_a.nii.gz")
    np.testing.assert_allclose(np.moveaxis(made, -1, 0), expected, atol=2e-6)


def test_logit_space_is_the_normalised_geometric_mean(tmp_path: Path) -> None:
    folders, _, drawn, _ = write_cohort(tmp_path, cases=["case_a"])
    ensemble_folders(folders, tmp_path / "out", maps=("mean",), space="logit")
    logits = np.log(np.stack(drawn["case_a"]).astype(np.float64)).mean(0)
    expected = np.exp(logits) / np.exp(logits).sum(0)
    made = loaded(tmp_path / "out/mean/case_a.nii.gz")
    np.testing.assert_allclose(np.moveaxis(made, -1, 0), expected, atol=2e-6)


def test_saved_probabilities_are_an_ensemble_of_one(tmp_path: Path) -> None:
    folders, *_ = write_cohort(tmp_path)
    ensemble_folders(folders, tmp_path / "out", save_probabilities=True)
    stored = np.load(tmp_path / "out/case_a.npz")["probabilities"]
    assert stored.shape == (3, *reversed(SHAPE))
    ensemble_folders([tmp_path / "out"], tmp_path / "again")
    for case in CASES:
        name = f"entropy/{case}.nii.gz"
        np.testing.assert_array_equal(
            loaded(tmp_path / "again" / name), loaded(tmp_path / "out" / name)
        )


def test_regions_are_painted_in_their_order(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    members = [rng.random((3, *SHAPE)).astype(np.float32) for _ in range(2)]
    for number, values in enumerate(members):
        write_member(tmp_path / f"fold_{number}", {"case_a": values})
    regions = {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "enhancing": 3}
    write_dataset_json(tmp_path / "fold_0", labels=regions, regions_class_order=[1, 2, 3])
    labels = random_labels(rng, 4)
    write_nifti(tmp_path / "labels/case_a.nii.gz", labels)
    summary = ensemble_folders(
        [tmp_path / "fold_0", tmp_path / "fold_1"], tmp_path / "out", labels=tmp_path / "labels"
    )
    mean = np.mean(np.stack(members).astype(np.float64), axis=0)
    painted = np.zeros(SHAPE, np.uint8)
    for region, label in zip(mean, (1, 2, 3), strict=True):
        painted[region > 0.5] = label
    np.testing.assert_array_equal(loaded(tmp_path / "out/case_a.nii.gz"), painted)
    bernoulli = -(mean * np.log(mean) + (1 - mean) * np.log1p(-mean)).sum(0)
    np.testing.assert_allclose(loaded(tmp_path / "out/entropy/case_a.nii.gz"), bernoulli, atol=4e-6)
    target = np.stack([labels >= 1, labels >= 2, labels == 3])
    assert summary.statistics is not None
    brier = ((mean - target) ** 2).sum(0).mean()
    assert summary.statistics.brier() == pytest.approx(brier, rel=1e-6)


def test_statistics_are_those_of_numpy_and_leave_the_ignore_label_out(tmp_path: Path) -> None:
    folders, labels, drawn, reference = write_cohort(tmp_path)
    write_dataset_json(tmp_path, labels={"background": 0, "a": 1, "b": 2, "ignore": 3})
    ignored = reference["case_b"].copy()
    ignored[:3] = 3
    write_nifti(labels / "case_b.nii.gz", ignored)
    reference["case_b"] = ignored
    summary = ensemble_folders(folders, tmp_path / "out", labels=labels)
    squared, right, nll, count = 0.0, 0, 0.0, 0
    for case in CASES:
        mean = np.mean(np.stack(drawn[case]).astype(np.float64), axis=0)
        kept = reference[case] < 3
        probabilities, truth = mean[:, kept], reference[case][kept].astype(int)
        squared += ((probabilities - np.eye(3)[truth].T) ** 2).sum()
        right += (probabilities.argmax(0) == truth).sum()
        nll -= np.log(probabilities[truth, np.arange(truth.size)]).sum()
        count += truth.size
    statistics = summary.statistics
    assert statistics is not None
    assert statistics.n_voxels == count
    assert statistics.accuracy() == right / count
    assert statistics.brier() == pytest.approx(squared / count, rel=1e-6)
    assert statistics.nll() == pytest.approx(nll / count, rel=1e-6)
    assert set(statistics.case_ids) == set(CASES)


def test_finished_cases_are_skipped_and_a_killed_run_resumes_to_the_same_files(
    tmp_path: Path,
) -> None:
    folders, labels, *_ = write_cohort(tmp_path)
    options = {"labels": labels, "save_probabilities": True, "maps": ("entropy", "variance")}

    def die(_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ensemble_folders(folders, tmp_path / "killed", progress=die, **options)
    assert (tmp_path / "killed/case_a.nii.gz").exists()
    assert not (tmp_path / "killed/calibration.npz").exists()
    resumed = ensemble_folders(folders, tmp_path / "killed", **options)
    assert (resumed.skipped, resumed.done) == (("case_a",), ("case_b", "case_c"))
    ensemble_folders(folders, tmp_path / "whole", **options)
    assert files_in(tmp_path / "killed") == files_in(tmp_path / "whole")


def test_case_is_done_again_when_a_file_asked_for_is_missing(tmp_path: Path) -> None:
    folders, labels, *_ = write_cohort(tmp_path)
    ensemble_folders(folders, tmp_path / "out")
    summary = ensemble_folders(folders, tmp_path / "out", labels=labels)
    assert summary.done == CASES
    assert ensemble_folders(folders, tmp_path / "out", labels=labels).skipped == CASES


def test_folder_made_with_other_settings_is_refused_unless_overwritten(tmp_path: Path) -> None:
    folders, *_ = write_cohort(tmp_path)
    ensemble_folders(folders, tmp_path / "out")
    before = files_in(tmp_path / "out")
    with pytest.raises(DataError, match=r"prediction\.json: .* space = 'prob', but now .* 'logit'"):
        ensemble_folders(folders, tmp_path / "out", space="logit")
    assert files_in(tmp_path / "out") == before
    summary = ensemble_folders(folders, tmp_path / "out", space="logit", overwrite=True)
    assert summary.done == CASES
    assert files_in(tmp_path / "out") != before


def break_missing(tmp_path: Path) -> str:
    (tmp_path / "fold_1/case_b.npz").unlink()
    return r"fold_1: no probabilities of case case_b"


def break_shape(tmp_path: Path) -> str:
    values = random_probabilities(np.random.default_rng(3))[:, :-1]
    np.savez(tmp_path / "fold_1/case_b.npz", probabilities=values.transpose(0, 3, 2, 1))
    (tmp_path / "fold_1/case_b.nii.gz").unlink()
    return r"fold_1/case_b\.npz: shape \(6, 6, 5\) differs from \(7, 6, 5\) of .*fold_0/case_b"


def break_affine(tmp_path: Path) -> str:
    path = tmp_path / "fold_1/case_b.nii.gz"
    write_nifti(path, np.zeros(SHAPE, np.uint8), shifted_header(5.0))
    return r"fold_1/case_b\.npz: its affine differs from that of .*fold_0/case_b\.npz"


def break_classes(tmp_path: Path) -> str:
    values = random_probabilities(np.random.default_rng(3), 4)
    np.savez(tmp_path / "fold_1/case_b.npz", probabilities=values.transpose(0, 3, 2, 1))
    return r"fold_1/case_b\.npz: probabilities must be of 3 classes, got 4"


def break_nan(tmp_path: Path) -> str:
    values = random_probabilities(np.random.default_rng(3))
    values[1, 2, 3, 4] = np.nan
    write_member(tmp_path / "fold_1", {"case_b": values})
    return r"fold_1/case_b\.npz: 1 values are NaN or infinite"


def break_logits(tmp_path: Path) -> str:
    values = 20 * random_probabilities(np.random.default_rng(3)) - 10
    write_member(tmp_path / "fold_1", {"case_b": values})
    return r"fold_1/case_b\.npz: probabilities must be from 0 to 1, got -.*logits need from_logits"


def break_npz(tmp_path: Path) -> str:
    path = tmp_path / "fold_1/case_b.npz"
    path.write_bytes(path.read_bytes()[:200])
    return r"fold_1/case_b\.npz: damaged, or not an npz file"


def break_label_value(tmp_path: Path) -> str:
    write_nifti(tmp_path / "labels/case_b.nii.gz", np.full(SHAPE, 7, np.uint8))
    return r"labels/case_b\.nii\.gz: labels must be from 0 to 2, got 7 "


def break_label_gz(tmp_path: Path) -> str:
    path = tmp_path / "labels/case_b.nii.gz"
    path.write_bytes(path.read_bytes()[:-20])
    return r"labels/case_b\.nii\.gz: damaged, or not a NIfTI file"


def break_label_grid(tmp_path: Path) -> str:
    write_nifti(tmp_path / "labels/case_b.nii.gz", np.zeros(SHAPE, np.uint8), shifted_header(5.0))
    return r"labels/case_b\.nii\.gz: its affine differs"


def break_label_missing(tmp_path: Path) -> str:
    (tmp_path / "labels/case_b.nii.gz").unlink()
    return r"labels: no label map of case case_b"


BREAKS = [
    break_missing,
    break_shape,
    break_affine,
    break_classes,
    break_nan,
    break_logits,
    break_npz,
    break_label_value,
    break_label_gz,
    break_label_grid,
    break_label_missing,
]


@pytest.mark.parametrize("damage", BREAKS)
def test_bad_case_is_one_line_that_names_the_file_and_spares_the_others(
    tmp_path: Path, damage
) -> None:
    folders, labels, *_ = write_cohort(tmp_path)
    message = damage(tmp_path)
    with pytest.raises(DataError, match=message) as caught:
        ensemble_folders(folders, tmp_path / "stopped", labels=labels)
    assert "\n" not in str(caught.value)

    summary = ensemble_folders(folders, tmp_path / "out", labels=labels, keep_going=True)
    assert summary.done == ("case_a", "case_c")
    (failure,) = summary.failed
    assert failure.case == "case_b"
    assert failure.reason == str(caught.value)
    assert summary.statistics is not None
    assert set(summary.statistics.case_ids) == {"case_a", "case_c"}
    assert not [name for name in files_in(tmp_path / "out") if "case_b" in name]


def test_empty_folder_is_named(tmp_path: Path) -> None:
    folders, *_ = write_cohort(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="empty: no saved probabilities"):
        ensemble_folders([*folders, tmp_path / "empty"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_probabilities_without_any_geometry_are_refused(tmp_path: Path) -> None:
    folders, labels, *_ = write_cohort(tmp_path, members=1)
    for path in folders[0].glob("*.nii.gz"):
        path.unlink()
    with pytest.raises(DataError, match=r"case_a\.npz: no geometry"):
        ensemble_folders(folders, tmp_path / "out")
    ensemble_folders(folders, tmp_path / "with_labels", labels=labels)
    assert_same_geometry(tmp_path / "with_labels/case_a.nii.gz", labels / "case_a.nii.gz")


def test_full_disk_leaves_nothing_half_written_and_ends_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders, *_ = write_cohort(tmp_path)
    compressed = nifti.gzip_writer
    written = 0

    def fill_up(file: IO[bytes]) -> gzip.GzipFile:
        nonlocal written
        written += 1
        if written > 3:
            file.write(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")
        return compressed(file)

    monkeypatch.setattr(nifti, "gzip_writer", fill_up)
    with pytest.raises(OSError, match=r"No space left on device: .*case_b\.nii\.gz"):
        ensemble_folders(folders, tmp_path / "out", keep_going=True)
    names = set(files_in(tmp_path / "out"))
    assert names == {
        "prediction.json",
        "case_a.nii.gz",
        "entropy/case_a.nii.gz",
        "entropy/case_b.nii.gz",
        "record/case_a.json",
        "segments/case_a.json",
        "segments/case_b.json",
    }


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"maps": ("entropi",)}, "maps must be among mean, .*, got 'entropi'"),
        ({"dtype": "int16"}, "dtype must be float32 or uint8 or uint16, got 'int16'"),
        ({"weights": [1.0]}, "weights must hold one number per folder: 3, got 1"),
        ({"weights": [1.0, -1.0, 1.0]}, "weights must be at least 0"),
        ({"temperature": 0.0}, "temperature must be above 0"),
        ({"device": "cuda:99"}, "device must exist here, .*, got 'cuda:99'"),
        ({"labels": "labels", "n_bins": 0}, "n_bins must be between 1 and 65536, got 0"),
        ({"num_parts": 2, "part_id": 2}, r"part_id must be .* below num_parts \(2\), got 2"),
        ({"space": "logit", "maps": ("mutual_information",)}, "mutual_information"),
        ({"cases": ["case_x"]}, "case_x"),
    ],
)
def test_bad_option_is_named_before_anything_is_written(
    tmp_path: Path, options: dict[str, object], message: str
) -> None:
    folders, *_ = write_cohort(tmp_path)
    if "labels" in options:
        options = {**options, "labels": tmp_path / str(options["labels"])}
    with pytest.raises(ValueError, match=message):
        ensemble_folders(folders, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_progress_counts_cases_and_tells_time_left(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders, *_ = write_cohort(tmp_path, members=1)
    ensemble_folders(folders, tmp_path / "out", progress=True)
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(",")[0] for line in lines] == ["1/3 case_a", "2/3 case_b", "3/3 case_c"]
    assert lines[-1].endswith("0:00 left")
