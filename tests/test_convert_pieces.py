"""The pieces of `fastcal.convert`: voxels, grids and splits."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import trees

from fastcal.convert import convert_dataset
from fastcal.convert.found import FoundCase, Source
from fastcal.convert.grid import orthonormal, resample_nearest
from fastcal.convert.listing import own_split, splits_by
from fastcal.core.errors import DataError
from fastcal.data import images
from fastcal.data.nifti import Geometry

sitk = pytest.importorskip("SimpleITK")


def test_a_plain_file_is_copied_and_another_gets_one_place_for_every_reader(tmp_path: Path) -> None:
    source = trees.acdc(tmp_path / "source")
    plain = source / "training/patient001/patient001_frame01.nii.gz"
    odd = source / "training/patient002/patient002_frame04.nii.gz"
    image = nib.load(odd)
    made = nib.Nifti1Image(np.asarray(image.dataobj), image.affine)
    made.set_sform(image.affine, code=1)
    made.set_qform(np.diag([1.2, 0.8, 2.5, 1]), code=1)  # contradicts the sform, which counts
    made.header.set_xyzt_units("mm")
    nib.save(made, odd)
    convert_dataset("acdc", source, tmp_path / "out")
    written = tmp_path / "out/imagesTr"
    assert (written / "patient001_frame01_0000.nii.gz").read_bytes() == plain.read_bytes()
    found = nib.load(written / "patient002_frame04_0000.nii.gz")
    np.testing.assert_allclose(found.get_qform(), found.get_sform(), atol=1e-5)
    np.testing.assert_allclose(found.affine, images.geometry(odd).affine, atol=1e-5)
    np.testing.assert_allclose(found.affine, image.affine, atol=1e-5)


def test_real_and_scaled_voxels_keep_their_values(tmp_path: Path) -> None:
    task = trees.decathlon(tmp_path / "source", channels=2)
    data = np.random.default_rng(0).normal(size=(*trees.SHAPE, 2))
    trees.save(task / "imagesTr/prostate_16.nii.gz", data)
    convert_dataset("msd", task, tmp_path / "out")
    for channel in range(2):
        path = tmp_path / f"out/imagesTr/prostate_16_{channel:04d}.nii.gz"
        made = np.asarray(nib.load(path).dataobj)
        np.testing.assert_array_equal(made, data[..., channel].astype(np.float32))


@pytest.mark.parametrize("seed", range(3))
def test_nearest_labels_are_those_of_simpleitk(seed: int) -> None:
    rng = np.random.default_rng(seed)
    fine = rng.integers(0, 4, trees.FINE_SHAPE).astype(np.uint8)
    place = Geometry.from_affine(trees.oblique((0.5, 0.6, 0.7), 0.3), fine.shape)
    grid = Geometry.from_affine(trees.oblique(shift=-0.4), trees.SHAPE)
    made = resample_nearest(fine, place, grid)
    inverse = np.linalg.inv(place.affine)
    wanted = np.zeros_like(made)
    for voxel in np.ndindex(trees.SHAPE):
        index = np.rint((inverse @ grid.affine @ (*voxel, 1))[:3]).astype(int)
        if (index >= 0).all() and (index < fine.shape).all():
            wanted[voxel] = fine[tuple(index)]
    assert (wanted > 0).any()
    np.testing.assert_array_equal(made, wanted)


def test_orthonormal_cosines_keep_spacing_and_centre() -> None:
    affine = trees.oblique()
    np.testing.assert_array_equal(orthonormal(affine, trees.SHAPE), affine)
    sheared = affine.copy()
    sheared[:3, :3] += 0.05 * np.random.default_rng(0).normal(size=(3, 3))
    made = orthonormal(sheared, trees.SHAPE)
    steps = np.linalg.norm(sheared[:3, :3], axis=0)
    cosines = made[:3, :3] / steps
    np.testing.assert_allclose(cosines.T @ cosines, np.eye(3), atol=1e-12)
    centre = (*((np.array(trees.SHAPE) - 1) / 2), 1)
    np.testing.assert_allclose(made @ centre, sheared @ centre, atol=1e-12)


def test_far_from_orthonormal_cosines_stay_exact_with_a_note(tmp_path: Path) -> None:
    source = trees.acdc(tmp_path / "source")
    affine = trees.oblique()
    affine[:3, 2] += (0.5, 0, 0)
    for name in ("frame01", "frame01_gt"):
        path = source / f"training/patient001/patient001_{name}.nii.gz"
        data = np.asarray(nib.load(path).dataobj)
        made = nib.Nifti1Image(data, affine)
        made.set_sform(affine, code=1)
        nib.save(made, path)
    made = convert_dataset("acdc", source, tmp_path / "out")
    assert any("far from orthonormal" in note for note in made.notes)
    for name in ("imagesTr/patient001_frame01_0000", "labelsTr/patient001_frame01"):
        path = tmp_path / f"out/{name}.nii.gz"
        np.testing.assert_allclose(nib.load(path).affine, affine, atol=1e-5)
        sitk.ReadImage(str(path))


def cases(n_patients: int, *, frames: int = 2) -> list[FoundCase]:
    source = Source(Path("x.nii.gz"))
    return [
        FoundCase(
            f"p{patient:02d}_{frame}",
            (source,),
            source,
            "train",
            f"p{patient:02d}",
            {"centre": "AB"[patient % 2]},
        )
        for patient in range(n_patients)
        for frame in range(frames)
    ]


@pytest.mark.parametrize("n_patients", [2, 3, 5, 10, 23])
def test_a_fifth_of_the_patients_validates_and_represents_the_centres(n_patients: int) -> None:
    split = own_split(cases(n_patients), "centre")
    sides = [{name[:3] for name in split[part]} for part in ("train", "val")]
    assert not sides[0] & sides[1]
    assert len(sides[0] | sides[1]) == n_patients
    assert len(sides[1]) == max(1, n_patients // 5)
    if n_patients >= 10:
        assert {int(name[1:]) % 2 for name in sides[1]} == {0, 1}
    folds = splits_by(cases(n_patients), "centre", None)
    for fold in folds:
        parts = [{name[:3] for name in fold[part]} for part in ("train", "val", "test")]
        assert sum(map(len, parts)) == len(set.union(*parts)) == n_patients
        assert len({int(name[1:]) % 2 for name in parts[2]}) == 1


def test_one_patient_alone_has_no_split() -> None:
    assert own_split(cases(1), None)["val"] == []


def without_a_place(path: Path, sizes: tuple[float, ...] = (1.2, 0.8, 2.5)) -> np.ndarray:
    """Write a file anew with the sizes of its voxels and no form; return what it holds."""
    data = np.asarray(nib.load(path).dataobj)
    header = nib.Nifti1Header()
    header.set_data_dtype(data.dtype)
    header.set_data_shape(data.shape)
    header["pixdim"][1:4] = sizes
    header["sform_code"] = header["qform_code"] = 0
    header.set_xyzt_units("mm")
    nib.save(nib.Nifti1Image(data, None, header), path)
    return data


@pytest.mark.parametrize("which", ["_gt", ""])
def test_labels_and_images_without_a_place_lie_on_each_other(tmp_path: Path, which: str) -> None:
    source = trees.acdc(tmp_path / "source")
    folder = source / "training/patient001"
    without_a_place(folder / f"patient001_frame01{which}.nii.gz")
    labels = np.asarray(nib.load(folder / "patient001_frame01_gt.nii.gz").dataobj)
    made = convert_dataset("acdc", source, tmp_path / "out")
    assert not any("resampled" in note for note in made.notes)
    found = nib.load(tmp_path / "out/labelsTr/patient001_frame01.nii.gz")
    np.testing.assert_array_equal(np.asarray(found.dataobj), labels)


def test_labels_without_a_place_are_not_resampled(tmp_path: Path) -> None:
    source = trees.acdc(tmp_path / "source")
    label = source / "training/patient001/patient001_frame01_gt.nii.gz"
    without_a_place(label, (1.0, 1.0, 1.0))
    words = "frame01_gt.nii.gz: must have the voxels of patient001_frame01.nii.gz where"
    with pytest.raises(DataError, match=words):
        convert_dataset("acdc", source, tmp_path / "out")


def test_channels_that_agree_by_one_of_two_forms_get_one_place(tmp_path: Path) -> None:
    source = trees.brats(tmp_path / "source", 2021)
    folder = source / trees.TOPS[2021] / "BraTS2021_00000"
    first = folder / "BraTS2021_00000_t1.nii.gz"
    image = nib.load(first)
    sform = image.affine.copy()
    sform[:3, 3] += 40
    made = nib.Nifti1Image(np.asarray(image.dataobj), None, image.header)
    made.set_sform(sform, code=1)
    made.set_qform(image.affine, code=1)
    nib.save(made, first)
    convert_dataset("brats2021", source, tmp_path / "out")
    for channel in range(4):
        found = nib.load(tmp_path / f"out/imagesTr/BraTS2021_00000_{channel:04d}.nii.gz")
        for form in (found.get_sform(), found.get_qform()):
            np.testing.assert_allclose(form, sform, atol=1e-4)


def test_what_macos_leaves_beside_a_table_is_no_table(tmp_path: Path) -> None:
    source = trees.mnms(tmp_path / "source")
    (table,) = source.glob("*.csv")
    table.with_name(f"._{table.name}").write_bytes(b"\x00\x05\x16\x07\xff\xfe")
    assert convert_dataset("mnms", source, tmp_path / "out").done
