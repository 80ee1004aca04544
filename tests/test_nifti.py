"""NIfTI files: the geometry survives bit for bit, and a bad file gives one line."""

from __future__ import annotations

import gzip
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from fastcal.core.errors import DataError
from fastcal.data import nifti

OBLIQUE = np.array(
    [[-1.4, 0.3, 0.1, 20.5], [-0.3, -1.4, 0.5, 31.25], [0.2, 0.4, 3.9, -12.0], [0, 0, 0, 1.0]]
)


def _write_image(path: Path, data: np.ndarray, **fields: object) -> None:
    image = nib.Nifti1Image(data, OBLIQUE)
    image.set_sform(OBLIQUE, code="mni")
    image.set_qform(OBLIQUE, code="scanner")
    image.header.set_xyzt_units("mm", "sec")
    for name, value in fields.items():
        image.header[name] = value
    image.to_filename(path)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "case_0000.nii.gz"
    data = np.arange(7 * 5 * 3, dtype=np.int16).reshape(7, 5, 3)
    _write_image(path, data, descrip=b"somebody's name")
    return path


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
@pytest.mark.parametrize("dtype", ["uint8", ">i2", "float32", ">f4", "float64"])
def test_voxels_keep_the_order_and_type_on_disk(tmp_path: Path, ending: str, dtype: str) -> None:
    path = tmp_path / f"volume{ending}"
    data = np.arange(7 * 5 * 3).reshape(7, 5, 3).astype(dtype)
    _write_image(path, data)
    volume = nifti.read(path)
    assert volume.shape == (7, 5, 3)
    assert volume.data.dtype == np.dtype(dtype).newbyteorder("=")
    assert volume.data.dtype.isnative
    np.testing.assert_array_equal(volume.data, data)
    np.testing.assert_allclose(volume.affine, OBLIQUE, atol=1e-6)
    assert volume.spacing == pytest.approx(np.linalg.norm(OBLIQUE[:3, :3], axis=0))


def test_scaled_voxels_come_back_as_float32(tmp_path: Path) -> None:
    path = tmp_path / "scaled.nii.gz"
    image = nib.Nifti1Image(np.array([[[0, 100, 255]]], dtype=np.uint8), np.eye(4))
    image.header.set_slope_inter(0.5, -1.0)
    image.to_filename(path)
    data = nifti.read(path).data
    assert data.dtype == np.float32
    np.testing.assert_array_equal(data, [[[-1.0, 49.0, 126.5]]])


def test_nifti_2_is_read_and_written_as_nifti_2(tmp_path: Path) -> None:
    path = tmp_path / "two.nii"
    nib.Nifti2Image(np.ones((2, 3, 4), np.float32), OBLIQUE).to_filename(path)
    volume = nifti.read(path)
    np.testing.assert_array_equal(volume.affine, OBLIQUE)
    nifti.write(tmp_path / "copy.nii.gz", volume.data, volume)
    assert isinstance(nib.load(tmp_path / "copy.nii.gz"), nib.Nifti2Image)


def test_written_maps_have_the_geometry_of_their_image(tmp_path: Path, image: Path) -> None:
    like = nifti.read(image)
    entropy = np.random.default_rng(0).random((7, 5, 3), dtype=np.float32)
    nifti.write(tmp_path / "entropy.nii.gz", entropy, like)
    written, original = nib.load(tmp_path / "entropy.nii.gz"), nib.load(image)
    np.testing.assert_array_equal(written.affine, original.affine)
    for field in ("qform_code", "sform_code", "xyzt_units", "pixdim", "quatern_b", "srow_x"):
        np.testing.assert_array_equal(written.header[field], original.header[field])
    assert written.header["sform_code"] == 4
    assert written.get_data_dtype() == np.float32
    np.testing.assert_array_equal(written.get_fdata(), entropy)
    assert bytes(written.header["descrip"]).strip(b"\0") == b""


@pytest.mark.parametrize(("dtype", "steps"), [("uint8", 255), ("uint16", 65535)])
def test_scaled_integers_err_by_half_a_step_at_most(
    tmp_path: Path, image: Path, dtype: str, steps: int
) -> None:
    entropy = np.random.default_rng(1).random((7, 5, 3), dtype=np.float32) * 1.0986
    entropy[0, 0, 0] = 0.0
    nifti.write(tmp_path / "entropy.nii.gz", entropy, nifti.geometry(image), dtype=dtype)
    written = nib.load(tmp_path / "entropy.nii.gz")
    assert written.get_data_dtype() == dtype
    assert abs(written.get_fdata() - entropy).max() <= 0.51 * entropy.max() / steps
    assert written.get_fdata()[0, 0, 0] == 0.0
    assert nifti.read(tmp_path / "entropy.nii.gz").data.max() == pytest.approx(entropy.max())


def test_a_map_of_zeros_stays_zero(tmp_path: Path, image: Path) -> None:
    nifti.write(tmp_path / "zero.nii.gz", np.zeros((7, 5, 3)), nifti.read(image), dtype="uint8")
    assert not nib.load(tmp_path / "zero.nii.gz").get_fdata().any()


@pytest.mark.parametrize(("top", "dtype"), [(3, "uint8"), (300, "int16"), (70000, "int32")])
def test_labels_take_the_smallest_integer_type(
    tmp_path: Path, image: Path, top: int, dtype: str
) -> None:
    labels = np.zeros((7, 5, 3), dtype=np.int64)
    labels[1, 2, 1] = top
    nifti.write(tmp_path / "label.nii.gz", labels, nifti.read(image), dtype="int")
    written = nib.load(tmp_path / "label.nii.gz")
    assert written.get_data_dtype() == dtype
    np.testing.assert_array_equal(np.asanyarray(written.dataobj), labels)


def test_a_class_axis_may_follow_the_three_of_space(tmp_path: Path, image: Path) -> None:
    stack = np.random.default_rng(2).random((7, 5, 3, 4), dtype=np.float32)
    nifti.write(tmp_path / "mean.nii.gz", stack, nifti.read(image))
    np.testing.assert_array_equal(nifti.read(tmp_path / "mean.nii.gz").data, stack)


def test_equal_arrays_make_equal_files(tmp_path: Path, image: Path) -> None:
    like = nifti.read(image)
    for name in ("one.nii.gz", "two.nii.gz"):
        nifti.write(tmp_path / name, like.data, like, dtype="int")
    assert (tmp_path / "one.nii.gz").read_bytes() == (tmp_path / "two.nii.gz").read_bytes()


@pytest.mark.parametrize(
    ("array", "dtype", "words"),
    [
        (np.zeros((7, 5, 2)), "float32", "shape"),
        (np.full((7, 5, 3), np.nan), "uint8", "NaN"),
        (np.full((7, 5, 3), 300), "uint8", "must fit uint8"),
        (np.full((7, 5, 3), -1), "uint16", "must fit uint16"),
        (np.zeros((7, 5, 3)), "int", "integers"),
        (np.zeros((7, 5, 3)), "float16", "dtype must be one of .*, got 'float16'"),
    ],
)
def test_what_cannot_be_stored_is_refused_and_leaves_no_file(
    tmp_path: Path, image: Path, array: np.ndarray, dtype: str, words: str
) -> None:
    target = tmp_path / "out" / "map.nii.gz"
    target.parent.mkdir()
    with pytest.raises(ValueError, match=words):
        nifti.write(target, array, nifti.read(image), dtype=dtype)
    assert list(target.parent.iterdir()) == []


def _truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def _flipped(path: Path) -> None:
    """A stored (uncompressed) gzip block with one changed voxel: only the checksum can tell."""
    raw = bytearray(gzip.compress(gzip.decompress(path.read_bytes()), compresslevel=0))
    raw[-60] ^= 1
    path.write_bytes(raw)


def _no_gzip(path: Path) -> None:
    path.write_bytes(b"not gzip at all" * 100)


def _no_nifti(path: Path) -> None:
    path.write_bytes(gzip.compress(b"not a NIfTI image" * 100))


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _huge(path: Path) -> None:
    raw = bytearray(gzip.decompress(path.read_bytes()))
    raw[42:48] = np.array([32767] * 3, "<i2").tobytes()
    path.write_bytes(gzip.compress(bytes(raw)))


def _missing(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize(
    "damage", [_truncated, _flipped, _no_gzip, _no_nifti, _empty, _huge, _missing]
)
def test_a_bad_gzip_file_is_one_line_that_begins_with_its_name(image: Path, damage: object) -> None:
    damage(image)  # type: ignore[operator]
    with pytest.raises(DataError) as caught:
        nifti.read(image)
    assert str(caught.value).startswith(f"{image}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("keep", [0, 3, 100, 400])
def test_a_truncated_plain_file_is_one_line(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "volume.nii"
    _write_image(path, np.zeros((7, 5, 3), np.float32))
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DataError, match=r"volume\.nii: "):
        nifti.read(path)


def test_colours_and_other_formats_are_refused(tmp_path: Path) -> None:
    rgb = np.zeros((2, 2, 2), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    nib.Nifti1Image(rgb, np.eye(4)).to_filename(tmp_path / "rgb.nii.gz")
    with pytest.raises(DataError, match="must hold real numbers"):
        nifti.read(tmp_path / "rgb.nii.gz")
    with pytest.raises(DataError, match=r"ends in \.nii\.gz or \.nii"):
        nifti.read(tmp_path / "image.nrrd")


def test_a_full_disk_leaves_the_earlier_file(
    tmp_path: Path, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    like, before = nifti.read(image), image.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(nifti, "gzip_writer", full)
    with pytest.raises(OSError, match="No space left"):
        nifti.write(image, like.data, like, dtype="int")
    assert image.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == [image.name]


def test_same_place_forgives_rounding_and_nothing_else() -> None:
    shape = (64, 64, 16)
    rounded = OBLIQUE.astype(np.float16).astype(np.float64)
    shifted, turned = OBLIQUE.copy(), OBLIQUE.copy()
    shifted[0, 3] += 0.5
    turned[:, 0] *= -1
    assert nifti.same_place(OBLIQUE, OBLIQUE.astype(np.float32).astype(np.float64), shape)
    assert nifti.same_place(OBLIQUE, rounded, (4, 4, 4))
    assert not nifti.same_place(OBLIQUE, shifted, shape)
    assert not nifti.same_place(OBLIQUE, turned, shape)


def test_a_geometry_without_a_file_is_in_millimetres(tmp_path: Path) -> None:
    like = nifti.Geometry.from_affine(OBLIQUE, (2, 3, 4))
    nifti.write(tmp_path / "made.nii.gz", np.zeros((2, 3, 4)), like)
    shape, affine = nifti.shape_and_affine(tmp_path / "made.nii.gz")
    assert shape == (2, 3, 4)
    np.testing.assert_allclose(affine, OBLIQUE, atol=1e-5)
    assert nib.load(tmp_path / "made.nii.gz").header.get_xyzt_units()[0] == "mm"
