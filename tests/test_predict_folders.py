"""`fastcal.predict.predict_cases` over folders: resume, parts, the command, bad input."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import oracle
import pytest
import torch
from cohort import (
    CASES,
    SHAPE,
    assert_same_geometry,
    files_in,
    write_images,
    write_nifti,
    write_references,
    write_run,
)

from fastcal.cli import main
from fastcal.core.errors import DataError
from fastcal.predict import InferenceAugmentation, merge_segments, merge_statistics, predict_cases


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_killed_run_resumes_to_the_same_files(tmp_path: Path) -> None:
    write_run(tmp_path / "run", dropout=0.5)
    write_images(tmp_path / "images")
    write_references(tmp_path / "labels")
    options = {
        "labels": tmp_path / "labels",
        "mc_dropout": 3,
        "save_probabilities": True,
        "dtype": "uint16",
    }

    def die(_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        predict_cases(
            tmp_path / "run", tmp_path / "images", tmp_path / "killed", progress=die, **options
        )
    resumed = predict_cases(tmp_path / "run", tmp_path / "images", tmp_path / "killed", **options)
    assert (resumed.skipped, resumed.done) == (("case_a",), ("case_b", "case_c"))
    predict_cases(tmp_path / "run", tmp_path / "images", tmp_path / "whole", **options)
    assert files_in(tmp_path / "killed") == files_in(tmp_path / "whole")


def test_shards_add_up_to_the_bytes_of_one_run(tmp_path: Path) -> None:
    write_run(tmp_path / "run")
    write_images(tmp_path / "images")
    write_references(tmp_path / "labels")
    run, images, labels = tmp_path / "run", tmp_path / "images", tmp_path / "labels"
    options: dict[str, Any] = {"labels": labels, "regions": ["band:2"], "fine_bins": 64}
    predict_cases(run, images, tmp_path / "whole", **options)
    for part_id in range(2):
        predict_cases(run, images, tmp_path / "parts", num_parts=2, part_id=part_id, **options)
    merge_statistics(tmp_path / "parts", tmp_path / "parts")
    merge_segments(tmp_path / "parts", tmp_path / "parts")
    parts, whole = files_in(tmp_path / "parts"), files_in(tmp_path / "whole")
    assert {name: parts[name] for name in whole} == whole


def test_the_command_counts_regions_and_the_order_of_the_confidence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(tmp_path / "run")
    write_images(tmp_path / "images")
    label = np.zeros(SHAPE, np.uint8)
    label[3:5, 2:4, 2] = [[1, 0], [0, 2]]
    for case in CASES:
        write_nifti(tmp_path / f"labels/{case}.nii.gz", label)
    folders = [str(tmp_path / name) for name in ("run", "images", "out", "labels")]
    arguments = [
        word for pair in zip(("-m", "-i", "-o", "-g"), folders, strict=True) for word in pair
    ]
    wanted = "--save-probabilities --fine-bins 16384 --region box:0:0 box:2:1 -q"
    assert main(["predict", *arguments, *wanted.split()]) == 0
    printed = capsys.readouterr().out
    found = json.loads((tmp_path / "out/calibration.json").read_text())

    tight, box = np.zeros((2, *SHAPE), bool)
    tight[3:5, 2:4, 2] = True
    box[2:6, 1:5, 1:4] = True  # voxels of 2 x 1.5 x 3 mm
    means = [np.load(tmp_path / f"out/{case}.npz")["probabilities"] for case in CASES]
    p = np.stack([mean.transpose(0, 3, 2, 1) for mean in means], 1).astype(np.float64)
    right, confidence = p.argmax(0) == label, p.max(0)
    brier = ((p - np.eye(3)[label].transpose(3, 0, 1, 2)[:, None]) ** 2).sum(0)
    regions = found["regions"]
    for mask, pooled, by_case in (
        (tight, regions["pooled"]["box:0:0"], regions["case"]["box:0:0"]),
        (box, regions["pooled"]["box:2:1"], regions["case"]["box:2:1"]),
        (np.ones(SHAPE, bool), found["pooled"], found["case"]),
    ):
        hit, sure = right[:, mask], confidence[:, mask]
        assert pooled["n_voxels"] == 3 * mask.sum()
        assert pooled["accuracy"] == hit.mean()
        assert pooled["Brier"] == pytest.approx(brier[:, mask].mean(), abs=1e-6)
        cells = oracle.fine_cells(sure.ravel(), 16384)  # voxels of one cell are a tie
        assert pooled["AUROC"] == pytest.approx(oracle.auroc(cells, hit.ravel()), abs=1e-12)
        errors = [oracle.aurc(one, ~own) for one, own in zip(sure, hit, strict=True)]
        assert by_case["AURC"] == pytest.approx(np.mean(errors), abs=1e-3)
        assert f"{pooled['AUROC']:.4f}" in printed
        assert f"{by_case['AURC']:.5f}" in printed
    assert printed.index("region box:0:0") < printed.index("region box:2:1")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--region box", "regions must be empty without labels, got ['box']"),
        ("--bins 20", "n_bins must be left out without labels, got 20"),
        ("--bin-edge left", "closed must be left out without labels, got left"),
        ("--fine-bins 64", "fine_bins must be left out without labels, got 64"),
        ("--region sphere -g labels", "band:MM, foreground or prediction, got 'sphere'"),
        ("--region prediction -g labels", "regions must be made from the labels, got 'prediction'"),
        ("--fine-bins 100 -g labels", "power of two from 64 to 1048576, got 100"),
    ],
)
def test_regions_and_cells_that_cannot_be_counted_are_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: str, message: str
) -> None:
    write_run(tmp_path / "run")
    write_images(tmp_path / "images")
    folders = ["-m", str(tmp_path / "run"), "-i", str(tmp_path / "images")]
    options = words.replace("labels", str(tmp_path / "images")).split()
    assert main(["predict", *folders, "-o", str(tmp_path / "out"), *options]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert not (tmp_path / "out").exists()


def test_split_of_the_run_names_the_cases(tmp_path: Path) -> None:
    write_run(tmp_path / "run")
    write_images(tmp_path / "images")
    run, images = tmp_path / "run", tmp_path / "images"
    assert predict_cases(run, images, tmp_path / "a", cases="test").done == CASES[1:]
    assert predict_cases(run, images, tmp_path / "b", cases=["case_c"]).done == ("case_c",)
    with pytest.raises(ValueError, match=r"cases must be names or one of .*, got 'tests'"):
        predict_cases(run, images, tmp_path / "c", cases="tests")
    with pytest.raises(DataError, match="images: no images of case case_x"):
        predict_cases(run, images, tmp_path / "c", cases=["case_x"])


def test_a_split_without_cases_is_an_error(tmp_path: Path) -> None:
    write_run(tmp_path / "run")
    write_images(tmp_path / "images")
    splits = json.loads((tmp_path / "run/splits.json").read_text())
    (tmp_path / "run/splits.json").write_text(json.dumps({**splits, "test": []}))
    with pytest.raises(DataError, match="run: the split of this run has no test cases"):
        predict_cases(tmp_path / "run", tmp_path / "images", tmp_path / "out", cases="test")


def test_weights_that_changed_are_not_mixed_with_those_before(tmp_path: Path) -> None:
    write_run(tmp_path / "run")
    write_images(tmp_path / "images")
    predict_cases(tmp_path / "run", tmp_path / "images", tmp_path / "out", cases=["case_a"])
    checkpoint = torch.load(tmp_path / "run/member_01/best.pt")
    checkpoint["model"]["classifier.bias"] += 1
    torch.save(checkpoint, tmp_path / "run/member_01/best.pt")
    with pytest.raises(DataError, match="made with weights_sha256"):
        predict_cases(tmp_path / "run", tmp_path / "images", tmp_path / "out")
    predict_cases(tmp_path / "run", tmp_path / "images", tmp_path / "out", overwrite=True)


def break_nan(tmp_path: Path) -> str:
    image = np.ones(SHAPE, np.float32)
    image[0, 0, 0] = np.nan
    write_nifti(tmp_path / "images/case_b_0000.nii.gz", image)
    return r"case_b_0000\.nii\.gz: .*NaN"


def break_channels(tmp_path: Path) -> str:
    write_nifti(tmp_path / "images/case_b_0001.nii.gz", np.ones(SHAPE, np.float32))
    return r"case_b_0000\.nii\.gz: the number of channels must be 1, got 2"


def break_fourth_axis(tmp_path: Path) -> str:
    write_nifti(tmp_path / "images/case_b_0000.nii.gz", np.ones((*SHAPE, 2), np.float32))
    return r"case_b_0000\.nii\.gz: the number of channels must be 1, got 2"


def break_gz(tmp_path: Path) -> str:
    path = tmp_path / "images/case_b_0000.nii.gz"
    path.write_bytes(path.read_bytes()[:-30])
    return r"case_b_0000\.nii\.gz: damaged, or not a NIfTI file"


def break_label(tmp_path: Path) -> str:
    write_nifti(tmp_path / "labels/case_b.nii.gz", np.full(SHAPE, 9, np.uint8))
    return r"labels/case_b\.nii\.gz: labels must be from 0 to 2, got 9 "


@pytest.mark.parametrize(
    "damage", [break_nan, break_channels, break_fourth_axis, break_gz, break_label]
)
def test_bad_case_is_one_line_that_names_the_file_and_spares_the_others(
    tmp_path: Path, damage
) -> None:
    write_run(tmp_path / "run", members=1)
    write_images(tmp_path / "images")
    write_references(tmp_path / "labels")
    message = damage(tmp_path)
    run, images, labels = tmp_path / "run", tmp_path / "images", tmp_path / "labels"
    with pytest.raises(DataError, match=message) as caught:
        predict_cases(run, images, tmp_path / "stopped", labels=labels)
    assert "\n" not in str(caught.value)
    summary = predict_cases(run, images, tmp_path / "out", labels=labels, keep_going=True)
    assert summary.done == ("case_a", "case_c")
    assert [(one.case, one.reason) for one in summary.failed] == [("case_b", str(caught.value))]
    assert not [name for name in files_in(tmp_path / "out") if "case_b" in name]


def test_run_without_members_and_folder_without_images_are_named(tmp_path: Path) -> None:
    write_run(tmp_path / "run", members=0)
    write_images(tmp_path / "images")
    with pytest.raises(DataError, match="run: has no member whose training is finished"):
        predict_cases(tmp_path / "run", tmp_path / "images", tmp_path / "out")
    with pytest.raises(DataError, match=r"config\.json"):
        predict_cases(tmp_path / "nowhere", tmp_path / "images", tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="empty: has no images"):
        predict_cases(tmp_path / "run", tmp_path / "empty", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": 0.0}, "temperature must be above 0, got 0.0"),
        ({"temperature": float("nan")}, "temperature must be above 0, got nan"),
        ({"device": "gpu"}, "device.*got 'gpu'"),
        ({"labels": "images", "n_bins": 0}, "n_bins must be between 1 and 65536, got 0"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"mc_dropout": -1}, "mc_dropout must be from 0 to 10000, got -1"),
        ({"overlap": 1.0}, "overlap must be at least 0 and below 1, got 1"),
        ({"resample": "maps"}, "resample must be 'probabilities' or 'logits', got 'maps'"),
        ({"precision": "int8"}, "precision must be .*, got 'int8'"),
        ({"augmentation": InferenceAugmentation(mirror=(2,))}, r"mirror.*got \[2\]"),
        ({"augmentation": InferenceAugmentation(noise=-1.0)}, "noise.*got -1"),
        ({"augmentation": InferenceAugmentation(draws=2)}, "draws.*got 2"),
        ({"maps": ("sharpness",)}, "maps must be among .*, got 'sharpness'"),
        ({"space": "logit", "maps": ("variance",)}, "variance"),
        ({"members": []}, "members.*got none"),
        ({"num_parts": 0}, "num_parts must be at least 1, got 0"),
    ],
)
def test_bad_option_is_named_before_anything_is_written(
    tmp_path: Path, options: dict[str, object], message: str
) -> None:
    write_run(tmp_path / "run")
    write_images(tmp_path / "images")
    if "labels" in options:
        options = {**options, "labels": tmp_path / str(options["labels"])}
    with pytest.raises(ValueError, match=message):
        predict_cases(tmp_path / "run", tmp_path / "images", tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


@pytest.mark.data
def test_real_cases_are_predicted_where_they_lie(tmp_path: Path, data_dir: Path) -> None:
    write_run(tmp_path / "run")
    name = sorted((data_dir / "imagesTr").glob("*_0000.nii.gz"))[0].name
    case = name.removesuffix("_0000.nii.gz")
    summary = predict_cases(
        tmp_path / "run",
        data_dir / "imagesTr",
        tmp_path / "out",
        cases=[case],
        labels=data_dir / "labelsTr",
    )
    image = data_dir / "imagesTr" / name
    assert_same_geometry(tmp_path / f"out/{case}.nii.gz", image)
    assert_same_geometry(tmp_path / f"out/entropy/{case}.nii.gz", image)
    assert summary.statistics is not None
    assert summary.statistics.n_voxels == np.prod(nib.load(image).shape)
