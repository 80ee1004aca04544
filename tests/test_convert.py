"""`fastcal.convert`: every dataset from a tree in its official layout, compared in the world."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import trees

from fastcal.cli import main
from fastcal.convert import SETS, convert_dataset
from fastcal.core.errors import DataError
from fastcal.data import Dataset
from fastcal.train.splits import resolve_split

sitk = pytest.importorskip("SimpleITK")


def converted(tmp_path: Path, name: str) -> Path:
    source = trees.TREES[name](tmp_path / "source")
    convert_dataset(name, source, tmp_path / "out")
    return tmp_path / "out"


def splits(out: Path, name: str = "splits.json") -> Any:
    return json.loads((out / name).read_text())


def at(path: Path, place: np.ndarray) -> float:
    """The value of the voxel at a place in RAS mm, by SimpleITK alone."""
    image = sitk.ReadImage(str(path))
    index = image.TransformPhysicalPointToIndex((place * (-1, -1, 1)).tolist())
    return float(image.GetPixel(*index))


def same_in_world(path: Path, data: np.ndarray, affine: np.ndarray) -> None:
    """SimpleITK finds each drawn voxel of the original where the original has it."""
    rng = np.random.default_rng(0)
    for voxel in [(0, 0, 0), *rng.integers(0, data.shape, (12, 3)).tolist()]:
        place = (affine @ (*voxel, 1))[:3]
        assert at(path, place) == data[tuple(voxel)], voxel
    assert nib.load(path).shape == data.shape


def test_every_set_has_a_tree() -> None:
    assert list(trees.TREES) == list(SETS)


@pytest.mark.parametrize("name", trees.TREES)
def test_a_converted_set_is_a_valid_dataset_whose_split_is_read(tmp_path: Path, name: str) -> None:
    out = converted(tmp_path, name)
    dataset = Dataset.open(out)
    dataset.validate()
    table = trees.rows(out)
    assert {case for case in table if table[case]["folder"] == "imagesTr"} == {
        case.name for case in dataset.cases
    }
    found = resolve_split(dataset)
    sides = [{table[case.name]["patient"] for case in part} for part in (found.train, found.val)]
    assert not sides[0] & sides[1]
    assert splits(out) == {part: splits(out)[part] for part in ("train", "val")}
    assert len(found.train) + len(found.val) == len(dataset.cases)
    content = json.loads((out / "dataset.json").read_text())
    assert content["numTraining"] == len(dataset.cases)
    assert content["file_ending"] == ".nii.gz"


@pytest.mark.parametrize("year", trees.BRATS)
def test_brats(tmp_path: Path, year: int) -> None:
    out = converted(tmp_path, f"brats{year}")
    for number, folder in enumerate(trees.BRATS[year]):
        name = Path(folder).name
        for channel in range(4):
            same_in_world(
                out / f"imagesTr/{name}_{channel:04d}.nii.gz",
                trees.image(10 * number + channel),
                trees.oblique(),
            )
        seg = trees.labels(number, (0, 1, 2, 3 if year == 2023 else 4))
        wanted = np.select([seg == 2, seg == 1, seg > 2], [1, 2, 3])
        same_in_world(out / f"labelsTr/{name}.nii.gz", wanted, trees.oblique())
    content = json.loads((out / "dataset.json").read_text())
    assert list(content["channel_names"].values()) == ["T1", "T1CE", "T2", "FLAIR"]
    assert list(content["labels"]) == ["background", "edema", "non-enhancing", "enhancing"]
    table = trees.rows(out)
    if year in (2020, 2023):
        (test,) = [case for case in table if table[case]["part"] == "test"]
        assert (table[test]["labelled"], table[test]["folder"]) == ("no", "imagesTs")
        assert (out / f"imagesTs/{test}_0003.nii.gz").is_file()
    if year < 2020:
        assert {row["institution"] for row in table.values()} == {"CBICA", "TCIA", "2013"}
        assert {row["grade"] for row in table.values()} == {"HGG", "LGG"}
    if year == 2020:
        assert table["BraTS20_Training_002"]["centre"] == "TCIA09"
        assert table["BraTS20_Training_002"]["grade"] == "LGG"
    if year == 2023:
        assert table["BraTS-GLI-00000-001"]["patient"] == "BraTS-GLI-00000"


def test_brats_splits_hold_out_each_institution(tmp_path: Path) -> None:
    out = converted(tmp_path, "brats2017")
    tested = [fold["test"] for fold in splits(out, "splits_by_institution.json")]
    assert tested == [
        ["Brats17_2013_0_1"],
        ["Brats17_CBICA_AAB_1", "Brats17_CBICA_ABC_1"],
        ["Brats17_TCIA01_101_1"],
    ]
    resolve_split(Dataset.open(out), out / "splits_by_institution.json", fold=1)


def test_acdc(tmp_path: Path) -> None:
    out = converted(tmp_path, "acdc")
    table = trees.rows(out)
    for number in range(1, 7):
        whole = trees.image(number, (*trees.SHAPE, 20))
        frames = (4, 12) if number == 2 else (1, 10 + number)
        part = "Ts" if number == 6 else "Tr"
        for phase, frame in zip(("ED", "ES"), frames, strict=True):
            name = f"patient{number:03d}_frame{frame:02d}"
            image = whole[..., frame - 1]
            same_in_world(out / f"images{part}/{name}_0000.nii.gz", image, trees.oblique())
            seg = trees.labels(100 * number + frame, (0, 1, 2, 3))
            same_in_world(out / f"labels{part}/{name}.nii.gz", seg, trees.oblique())
            assert (table[name]["phase"], table[name]["weight"]) == (phase, "95.0")
    labels = json.loads((out / "dataset.json").read_text())["labels"]
    assert labels == {"background": 0, "RV": 1, "myocardium": 2, "LV": 3}


def test_mnms_has_the_labels_of_acdc_and_cosines_that_itk_takes(tmp_path: Path) -> None:
    out = converted(tmp_path, "mnms")
    table = trees.rows(out)
    for number, (name, (part, vendor, *frames)) in enumerate(trees.MNMS.items()):
        affine = nib.load(tmp_path / f"source/OpenDataset/{part}/{name}/{name}_sa.nii.gz").affine
        place = "Tr" if part in ("Training/Labeled", "Validation") else "Ts"
        for frame in frames:
            case = f"{name}_frame{frame:02d}"
            image = trees.image(number, (*trees.SHAPE, 4))[..., frame]
            same_in_world(out / f"images{place}/{case}_0000.nii.gz", image, affine)
            label = out / f"labels{place}/{case}.nii.gz"
            assert label.exists() == ("Unlabeled" not in part)
            if label.exists():
                seg = trees.labels(10 * number + frame, (0, 1, 2, 3))
                same_in_world(label, np.array([0, 3, 2, 1])[seg], affine)
            assert table[case]["vendor"] == vendor
    direction = sitk.ReadImage(str(out / "imagesTr/B2C4D5_frame01_0000.nii.gz")).GetDirection()
    cosines = np.reshape(direction, (3, 3))
    np.testing.assert_allclose(cosines @ cosines.T, np.eye(3), atol=1e-6)
    assert splits(out)["val"] == ["H1J2K3_frame00", "H1J2K3_frame02"]
    folds = splits(out, "splits_by_vendor.json")
    assert [fold["test"][0][:6] for fold in folds] == ["A0S9V9", "B2C4D5"]


def test_promise12_keeps_its_parts_apart(tmp_path: Path) -> None:
    out = converted(tmp_path, "promise12")
    for number in range(3):
        affine, seed = trees.oblique(shift=number), number + 130
        name = f"Case{number:02d}"
        same_in_world(out / f"imagesTr/{name}_0000.nii.gz", trees.image(seed), affine)
        same_in_world(out / f"labelsTr/{name}.nii.gz", trees.labels(seed, (0, 1)), affine)
    for name, folder in (("test", "test_data"), ("live", "livechallenge_test_data")):
        image = trees.image(10 * len(folder))
        same_in_world(out / f"imagesTs/{name}_Case00_0000.nii.gz", image, trees.oblique())
    assert trees.rows(out)["test_Case00"]["labelled"] == "no"


def test_prostatex_brings_labels_to_the_grid_of_the_image(tmp_path: Path) -> None:
    out = converted(tmp_path, "prostatex")
    for number in (4, 7):
        same_in_world(
            out / f"imagesTr/ProstateX-{number:04d}_0000.nii.gz",
            trees.image(number),
            trees.oblique(),
        )
    made = np.asarray(nib.load(out / "labelsTr/ProstateX-0004.nii.gz").dataobj)
    fine = tmp_path / "source/PROSTATEx-Seg-HiRes/ProstateX-0004/1.nrrd"
    resampler = sitk.ResampleImageFilter()
    resampler.SetInterpolator(sitk.sitkNearestNeighbor)
    resampler.SetReferenceImage(sitk.ReadImage(str(out / "imagesTr/ProstateX-0004_0000.nii.gz")))
    wanted = sitk.GetArrayFromImage(resampler.Execute(sitk.ReadImage(str(fine)))).transpose()
    assert 0 < made.sum() < made.size
    np.testing.assert_array_equal(made, wanted)
    zones = trees.labels(7, (0, 1, 2))
    same_in_world(out / "labelsTr/ProstateX-0007.nii.gz", (zones > 0) * 1, trees.oblique())
    assert (out / "imagesTs/ProstateX-0009_0000.nii.gz").is_file()


@pytest.mark.parametrize("channels", [1, 2])
def test_the_decathlon_gets_one_file_per_channel(tmp_path: Path, channels: int) -> None:
    task = trees.decathlon(tmp_path / "source", channels=channels)
    convert_dataset("msd", task, tmp_path / "out")
    stack = () if channels == 1 else (channels,)
    whole = trees.image(1, (*trees.SHAPE, *stack))
    for channel in range(channels):
        data = whole if channels == 1 else whole[..., channel]
        path = tmp_path / f"out/imagesTr/prostate_16_{channel:04d}.nii.gz"
        same_in_world(path, data, trees.oblique())
    labels = tmp_path / "out/labelsTr/prostate_16.nii.gz"
    same_in_world(labels, trees.labels(1, (0, 1, 2)), trees.oblique())
    assert (tmp_path / "out/imagesTs/prostate_46_0000.nii.gz").is_file()
    content = json.loads((tmp_path / "out/dataset.json").read_text())
    assert content["labels"] == {"background": 0, "PZ": 1, "TZ": 2}


def test_multisite_prostate_holds_out_each_site(tmp_path: Path) -> None:
    out = converted(tmp_path, "multisite-prostate")
    seg = trees.labels(2, (0, 1, 2))
    same_in_world(out / "labelsTr/BMC_Case00.nii.gz", (seg > 0) * 1, trees.oblique())
    tested = [fold["test"] for fold in splits(out, "splits_by_site.json")]
    assert tested == [[f"{site}_Case00", f"{site}_Case01"] for site in ("BMC", "RUNMC", "UCL")]


# --- the folder that is written ---


def test_the_output_is_a_folder_of_its_own(tmp_path: Path) -> None:
    source = trees.acdc(tmp_path / "source")
    for out in (source, source / "out", source.parent):
        with pytest.raises(DataError, match="must lie outside of"):
            convert_dataset("acdc", source, out)
    (tmp_path / "full").mkdir()
    (tmp_path / "full/mine.txt").write_text("x")
    with pytest.raises(DataError, match="must be a new or empty folder"):
        convert_dataset("acdc", source, tmp_path / "full")
    with pytest.raises(DataError, match="must be a folder, got a file"):
        convert_dataset("acdc", source, tmp_path / "full/mine.txt")
    convert_dataset("acdc", source, tmp_path / "out")
    other = trees.mnms(tmp_path / "other")
    with pytest.raises(DataError, match="this folder was made with set = 'acdc'"):
        convert_dataset("mnms", other, tmp_path / "out")


def listing(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_conversion_that_was_killed_goes_on_with_the_same_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = trees.acdc(tmp_path / "source", patients=3)
    out = tmp_path / "out"
    convert_dataset("acdc", source, out)
    wanted = {path.removeprefix(str(out)): data for path, data in listing(out).items()}
    replace = Path.replace
    for stop in range(1, 17, 3):
        count = 0

        def dying(self: Path, target: Path, stop: int = stop) -> Path:
            nonlocal count
            count += 1
            if count == stop:
                raise KeyboardInterrupt
            return replace(self, target)

        place = tmp_path / f"out{stop}"
        with monkeypatch.context() as patch:
            patch.setattr(Path, "replace", dying)
            with pytest.raises(KeyboardInterrupt):
                convert_dataset("acdc", source, place)
        before = {path: Path(path).stat().st_mtime_ns for path in listing(place)}
        made = convert_dataset("acdc", source, place)
        assert len(made.skipped) == min(6, max(0, (stop - 2) // 3))  # image, label, record
        found = {path.removeprefix(str(place)): data for path, data in listing(place).items()}
        assert found.keys() == wanted.keys()
        # gzip and the records hold times.
        timeless = [name for name in wanted if not name.endswith(".gz") and "/record/" not in name]
        assert all(found[name] == wanted[name] for name in timeless)
        for name in made.skipped:
            label = str(next(place.glob(f"labels*/{name}.nii.gz")))
            assert Path(label).stat().st_mtime_ns == before[label]
    Dataset.open(out).validate()


def test_a_case_whose_source_changed_is_converted_again(tmp_path: Path) -> None:
    source = trees.acdc(tmp_path / "source")
    convert_dataset("acdc", source, tmp_path / "out")
    assert convert_dataset("acdc", source, tmp_path / "out").done == ()
    changed = trees.image(77)
    trees.save(source / "training/patient001/patient001_frame01.nii.gz", changed)
    made = convert_dataset("acdc", source, tmp_path / "out")
    assert made.done == ("patient001_frame01",)
    path = tmp_path / "out/imagesTr/patient001_frame01_0000.nii.gz"
    same_in_world(path, changed, trees.oblique())


def test_the_form_that_is_asked_for_says_where_voxels_lie(tmp_path: Path) -> None:
    source = trees.acdc(tmp_path / "source")
    ones, names = np.diag([1.0, 1, 1, 1]), ("patient001_frame01", "patient001_frame01_gt")
    for name in names:  # an sform of ones, as copies of ACDC have it
        path = source / "training/patient001" / f"{name}.nii.gz"
        image = nib.load(path)
        place = image.affine
        image.header.set_sform(ones, code=1)
        nib.Nifti1Image(np.asanyarray(image.dataobj), None, image.header).to_filename(path)
    call = ["convert", "acdc", str(source), str(tmp_path / "out"), "-q"]
    wanted = {"auto": place, "sform": ones, "qform": place}
    for form, affine in wanted.items():
        assert main([*call, "--affine", form]) == 0
        for name in ("imagesTr/patient001_frame01_0000", "labelsTr/patient001_frame01"):
            made = nib.load(tmp_path / f"out/{name}.nii.gz")
            for there in (made.get_sform(), made.get_qform()):
                np.testing.assert_allclose(there, affine, atol=1e-5)


def test_the_command_prints_what_it_did_and_one_line_of_what_is_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = trees.mnms(tmp_path / "source")
    assert main(["convert", "mnms", str(source), str(tmp_path / "out")]) == 0
    printed = capsys.readouterr()
    assert "B2C4D5_frame01: direction cosines made orthonormal" in printed.out
    assert f"14 cases written to {tmp_path / 'out'}" in printed.out
    assert printed.err.count("\n") == 14
    assert main(["convert", "mnms", str(source), str(tmp_path / "out"), "-q"]) == 0
    assert "Up to date: 14 cases in " in capsys.readouterr().out
    assert main(["convert", "mnms", str(tmp_path / "none"), str(tmp_path / "x")]) == 2
    assert capsys.readouterr().err == f"fastcal: {tmp_path / 'none'}: no such folder\n"
