"""What `fastcal.convert` refuses: trees that lack a file, cases that cannot be converted."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import pytest
import trees

from fastcal.convert import convert_dataset
from fastcal.core.errors import DataError
from fastcal.data import Dataset

pytest.importorskip("SimpleITK")


def test_everything_that_is_missing_is_listed_at_once_before_a_file_is_written(
    tmp_path: Path,
) -> None:
    source = trees.brats(tmp_path / "source", 2021)
    top = source / trees.TOPS[2021]
    missing = [
        "BraTS2021_00000/BraTS2021_00000_t1ce.nii.gz",
        "BraTS2021_00002/BraTS2021_00002_seg.nii.gz",
        "BraTS2021_00003/BraTS2021_00003_flair.nii.gz",
    ]
    for name in missing:
        (top / name).unlink()
    twice = top / "BraTS2021_00003/BraTS2021_00003_t2.nii"
    trees.save(twice, trees.image(1))
    with pytest.raises(DataError, match="has 4 problems") as error:
        convert_dataset("brats2021", source, tmp_path / "out")
    for name in missing:
        assert f"{top / name}: no such file" in str(error.value)
    assert "one file BraTS2021_00003_t2, got BraTS2021_00003_t2.nii.gz and" in str(error.value)
    assert not (tmp_path / "out").exists()
    made = convert_dataset("brats2021", source, tmp_path / "out", keep_going=True)
    assert made.done == ("BraTS2021_00002",)
    assert len(made.failed) == 4


BROKEN: list[tuple[str, Callable[[Path], object], str]] = [
    ("acdc", lambda s: (s / "training/patient001/Info.cfg").unlink(), "Info.cfg: no such file"),
    (
        "acdc",
        lambda s: (s / "training/patient001/Info.cfg").write_text("ED: one\n"),
        "Info.cfg: must have the lines ED and ES",
    ),
    (
        "acdc",
        lambda s: (s / "training/patient003/patient003_4d.nii.gz").unlink(),
        "patient003_frame13.nii.gz: no such file, nor patient003_4d.nii.gz",
    ),
    ("mnms", lambda s: next(s.glob("*.csv")).unlink(), r"has no table \*.csv with the column"),
    (
        "mnms",
        lambda s: next(s.glob("*.csv")).write_text("External code,ED,ES\nA0S9V9,0,9\n"),
        "B2C4D5: has no row in the table",
    ),
    (
        "promise12",
        lambda s: (s / "training_data/Case01.raw").unlink(),
        "Case01.raw: no such file",
    ),
    (
        "promise12",
        lambda s: (s / "training_data/Case01_segmentation.mhd").unlink(),
        "Case01_segmentation.mhd: no such file",
    ),
    (
        "prostatex",
        lambda s: trees.save(s / "PROSTATEx/ProstateX-0004/b/t2_tse_tra.nii.gz", trees.image(1)),
        "must have one transversal T2 image of ProstateX-0004, got .* and ",
    ),
    (
        "prostatex",
        lambda s: trees.save(s / "PROSTATEx-Seg-HiRes/ProstateX-0100/1.nrrd", trees.image(1)),
        "is a label map of ProstateX-0100, which has no image",
    ),
    ("msd", lambda s: (s / "imagesTr/prostate_16.nii.gz").unlink(), "dataset.json lists it"),
    ("msd", lambda s: (s / "labelsTr/prostate_16.nii.gz").unlink(), "prostate_16.nii.gz: no such"),
    ("msd", lambda s: (s / "dataset.json").unlink(), "dataset.json: no such file"),
    (
        "multisite-prostate",
        lambda s: (s / "UCL/Case01_Segmentation.nii.gz").unlink(),
        "Case01_segmentation.nii.gz: no such file",
    ),
    (
        "multisite-prostate",
        lambda s: trees.save(s / "UCL/Case01.nii", trees.image(7)),
        "UCL: must have one file Case01, got Case01.nii and Case01.nii.gz",
    ),
    (
        "multisite-prostate",
        lambda s: trees.save(s / "BMC/Case01_Segmentation.nii.gz", trees.labels(7, (0, 1))),
        "BMC: must have one file Case01_segmentation, got Case01_Segmentation.nii.gz and",
    ),
]


@pytest.mark.parametrize(("name", "damage", "words"), BROKEN)
def test_a_tree_that_lacks_something_is_refused_by_name(
    tmp_path: Path, name: str, damage: Callable[[Path], object], words: str
) -> None:
    source = trees.TREES[name](tmp_path / "source")
    damage(source)
    with pytest.raises(DataError, match=words):
        convert_dataset(name, source, tmp_path / "out")
    assert not (tmp_path / "out").exists()


UNREADABLE: list[tuple[str, Callable[[Path], object], str]] = [
    (
        "acdc",
        lambda s: trees.save(
            s / "training/patient001/patient001_frame01_gt.nii.gz", trees.labels(1, (0, 1, 4))
        ),
        r"frame01_gt.nii.gz: must hold labels among \[0, 1, 2, 3\], got \[4\]",
    ),
    (
        "acdc",
        lambda s: trees.save(
            s / "training/patient001/patient001_frame01_gt.nii.gz",
            trees.labels(1, (0, 1)),
            trees.oblique(shift=1000),
        ),
        "lies elsewhere than patient001_frame01.nii.gz",
    ),
    (
        "acdc",
        lambda s: (s / "training/patient001/patient001_frame01.nii.gz").write_bytes(
            gzip.compress(b"no image")
        ),
        "patient001_frame01.nii.gz: ",
    ),
    (
        "mnms",
        lambda s: next(s.glob("*.csv")).write_text(
            next(s.glob("*.csv")).read_text("utf-8-sig").replace(",A,1,0,3,", ",A,1,0,30,"), "utf-8"
        ),
        "must have a volume 30 along its fourth axis, got 4",
    ),
    (
        "brats2021",
        lambda s: trees.save(
            s / trees.TOPS[2021] / "BraTS2021_00000/BraTS2021_00000_t2.nii.gz",
            trees.image(1),
            trees.oblique(shift=3),
        ),
        "BraTS2021_00000_t2.nii.gz: must have the affine",
    ),
]


@pytest.mark.parametrize(("name", "damage", "words"), UNREADABLE)
def test_a_case_that_cannot_be_converted_stops_or_is_left_out(
    tmp_path: Path, name: str, damage: Callable[[Path], object], words: str
) -> None:
    source = trees.TREES[name](tmp_path / "source")
    damage(source)
    with pytest.raises(DataError, match=words):
        convert_dataset(name, source, tmp_path / "out")
    assert not (tmp_path / "out/dataset.json").exists()
    made = convert_dataset(name, source, tmp_path / "out", keep_going=True)
    (failure,) = made.failed
    assert failure.case not in trees.rows(tmp_path / "out")
    Dataset.open(tmp_path / "out").validate()


def test_a_folder_of_another_set_shows_what_was_looked_for(tmp_path: Path) -> None:
    source = trees.acdc(tmp_path / "source")
    with pytest.raises(DataError, match=r"has no cases of brats2017, such as HGG/Brats17_CBICA"):
        convert_dataset("brats2017", source, tmp_path / "out")
    (tmp_path / "dicom").mkdir()
    (tmp_path / "dicom/000000.dcm").write_bytes(b"DICM")
    with pytest.raises(DataError, match="must be converted to NIfTI or NRRD first"):
        convert_dataset("prostatex", tmp_path / "dicom", tmp_path / "out")
    with pytest.raises(ValueError, match=r"name must be one of brats2017, .*, got 'kits'"):
        convert_dataset("kits", source, tmp_path / "out")


def test_linked_folders_are_followed_once_also_in_circles(tmp_path: Path) -> None:
    real = trees.acdc(tmp_path / "elsewhere", patients=3)
    source = tmp_path / "source"
    source.mkdir()
    (source / "training").symlink_to(real / "training")
    (source / "again").symlink_to(real / "training")
    (real / "training/patient001/up").symlink_to(source)
    made = convert_dataset("acdc", source, tmp_path / "out")
    assert {name[:10] for name in made.done} == {"patient001", "patient002"}


def test_cases_of_one_name_are_refused(tmp_path: Path) -> None:
    source = trees.brats(tmp_path / "source", 2017)
    name = "Brats17_CBICA_AAB_1"
    for word in ("t1", "t1ce", "t2", "flair", "seg"):
        trees.save(source / f"copy/HGG/{name}/{name}_{word}.nii.gz", trees.image(1))
    with pytest.raises(DataError, match=f"must have one case {name}, got .* and "):
        convert_dataset("brats2017", source, tmp_path / "out")
