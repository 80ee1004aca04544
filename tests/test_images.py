"""The gate of images: formats are told by their ending, and a voxel keeps its place."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from fastcal.core.errors import DataError
from fastcal.data import images, itk
from fastcal.data.nifti import Geometry

sitk = pytest.importorskip("SimpleITK")
tifffile = pytest.importorskip("tifffile")
pillow = pytest.importorskip("PIL.Image")

LOCATED = (".nii.gz", ".nii", ".nrrd", ".mha", ".mhd")
FLAT = (".png", ".bmp", ".tif", ".tiff")


def oblique(*, left_handed: bool = False) -> np.ndarray:
    """An affine of three spacings, turned about each axis and moved, in either handedness."""
    turn = np.eye(3)
    for axis, angle in enumerate((0.3, -0.5, 1.1)):
        one = np.eye(3)
        i, j = [k for k in range(3) if k != axis]
        one[[i, i, j, j], [i, j, i, j]] = (
            np.cos(angle),
            -np.sin(angle),
            np.sin(angle),
            np.cos(angle),
        )
        turn = turn @ one
    affine = np.eye(4)
    affine[:3, :3] = turn * (0.7, 1.3, 3.1 * (-1 if left_handed else 1))
    affine[:3, 3] = (12.5, -40.25, 7.0)
    return affine


def volume(shape: tuple[int, ...] = (5, 4, 3), dtype: str = "int16") -> np.ndarray:
    return np.random.default_rng(0).integers(-50, 2000, shape).astype(dtype)


def in_world(path: Path, voxel: tuple[int, int, int]) -> tuple[np.ndarray, float]:
    """Where SimpleITK itself puts a voxel in RAS mm, and its value."""
    image = sitk.ReadImage(str(path))
    place = np.array(image.TransformIndexToPhysicalPoint(voxel)) * (-1, -1, 1)
    return place, float(image.GetPixel(*voxel))


@pytest.mark.parametrize("left_handed", [False, True])
@pytest.mark.parametrize("ending", LOCATED)
def test_a_written_voxel_lies_where_simpleitk_finds_it(
    tmp_path: Path, ending: str, left_handed: bool
) -> None:
    data, affine = volume(), oblique(left_handed=left_handed)
    path = tmp_path / f"a{ending}"
    images.write(path, data, Geometry.from_affine(affine, data.shape), dtype="int")
    for voxel in ((0, 0, 0), (4, 0, 0), (0, 3, 0), (0, 0, 2), (4, 3, 2)):
        place, value = in_world(path, voxel)
        np.testing.assert_allclose(place, (affine @ (*voxel, 1))[:3], atol=1e-4)
        assert value == data[voxel]


@pytest.mark.parametrize("ending", LOCATED[2:])
@pytest.mark.parametrize("compressed", [False, True])
def test_what_simpleitk_writes_lies_where_nibabel_finds_it_as_nifti(
    tmp_path: Path, ending: str, compressed: bool
) -> None:
    data, affine = volume(), oblique()
    nib.Nifti1Image(data, affine).to_filename(tmp_path / "a.nii.gz")
    sitk.WriteImage(
        sitk.ReadImage(str(tmp_path / "a.nii.gz")), str(tmp_path / f"b{ending}"), compressed
    )
    found = images.read(tmp_path / f"b{ending}")
    np.testing.assert_array_equal(found.data, data)
    np.testing.assert_allclose(found.affine, nib.load(tmp_path / "a.nii.gz").affine, atol=1e-4)
    header = images.geometry(tmp_path / f"b{ending}")
    assert header.shape == found.shape == (5, 4, 3)
    np.testing.assert_array_equal(header.affine, found.affine)
    np.testing.assert_allclose(found.spacing, (0.7, 1.3, 3.1), rtol=1e-5)


@pytest.mark.parametrize("ending", LOCATED)
def test_real_maps_with_a_class_axis_come_back(tmp_path: Path, ending: str) -> None:
    data = np.random.default_rng(1).random((5, 4, 3, 2), dtype=np.float32)
    path = tmp_path / f"mean{ending}"
    images.write(path, data, Geometry.from_affine(oblique(), data.shape[:3]))
    found = images.read(path)
    assert found.data.dtype == np.float32
    np.testing.assert_array_equal(found.data, data)
    np.testing.assert_allclose(found.affine, oblique(), atol=1e-5)
    assert images.geometry(path).shape == data.shape[:3]
    assert images.geometry(path).channels == data.shape[3]


@pytest.mark.parametrize("ending", LOCATED[2:])
def test_four_axes_of_a_scalar_image_are_channels_last(tmp_path: Path, ending: str) -> None:
    data = volume((2, 3, 4, 5))  # frames, z, y, x, as SimpleITK has them
    sitk.WriteImage(sitk.GetImageFromArray(data, isVector=False), str(tmp_path / f"a{ending}"))
    found = images.read(tmp_path / f"a{ending}")
    np.testing.assert_array_equal(found.data, data.transpose(3, 2, 1, 0))
    assert images.geometry(tmp_path / f"a{ending}").shape == (5, 4, 3)
    assert images.geometry(tmp_path / f"a{ending}").channels == 2


@pytest.mark.parametrize("ending", LOCATED[2:])
def test_an_image_of_two_axes_is_one_slice(tmp_path: Path, ending: str) -> None:
    data = volume((4, 5))
    image = sitk.GetImageFromArray(data)
    image.SetSpacing((0.5, 2.0))
    image.SetOrigin((3.0, 4.0))
    sitk.WriteImage(image, str(tmp_path / f"a{ending}"))
    found = images.read(tmp_path / f"a{ending}")
    np.testing.assert_array_equal(found.data, data.T[:, :, None])
    assert found.spacing == (0.5, 2.0, 1.0)
    np.testing.assert_array_equal(found.affine[:3, 3], (-3.0, -4.0, 0.0))


def test_the_voxels_of_a_renamed_mhd_are_found_by_its_header(tmp_path: Path) -> None:
    data = volume()
    path = tmp_path / "a.mhd"
    images.write(path, data, Geometry.from_affine(oblique(), data.shape), dtype="int")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.mhd", "a.zraw"]
    path.rename(tmp_path / "b.mhd")
    np.testing.assert_array_equal(images.read(tmp_path / "b.mhd").data, data)


@pytest.mark.parametrize("ending", FLAT)
@pytest.mark.parametrize("top", [3, 255])
def test_labels_of_a_picture_come_back_and_are_rows_by_columns_for_others(
    tmp_path: Path, ending: str, top: int
) -> None:
    data = np.arange(20, dtype=np.int16).reshape(5, 4, 1) % (top + 1)
    data[0, 0] = top
    path = tmp_path / f"a{ending}"
    images.write(path, data, Geometry.from_affine(np.eye(4), data.shape), dtype="int")
    other = tifffile.imread(path) if ".tif" in ending else np.asarray(pillow.open(path))
    np.testing.assert_array_equal(other, data[:, :, 0].T)
    found = images.read(path)
    np.testing.assert_array_equal(found.data, data)
    assert images.geometry(path).shape == (5, 4, 1)


@pytest.mark.parametrize("ending", [".png", ".tif"])
def test_labels_above_255_need_16_bits(tmp_path: Path, ending: str) -> None:
    data = np.array([[[0], [60000]]])
    like = Geometry.from_affine(np.eye(4), data.shape)
    images.write(tmp_path / f"a{ending}", data, like, dtype="int")
    np.testing.assert_array_equal(images.read(tmp_path / f"a{ending}").data, data)
    with pytest.raises(ValueError, match="must fit uint8"):
        images.write(tmp_path / "a.bmp", data, like, dtype="int")
    with pytest.raises(ValueError, match="must fit uint16"):
        images.write(tmp_path / f"b{ending}", data - 1, like, dtype="int")


@pytest.mark.parametrize("ending", [".png", ".tif"])
@pytest.mark.parametrize("channels", [3, 4])
def test_colours_are_channels(tmp_path: Path, ending: str, channels: int) -> None:
    rows = np.random.default_rng(2).integers(0, 256, (4, 5, channels)).astype(np.uint8)
    path = tmp_path / f"a_0000{ending}"
    if ending == ".png":
        pillow.fromarray(rows).save(path)
    else:
        tifffile.imwrite(path, rows, photometric="rgb")
    found = images.read(path)
    assert images.geometry(path).shape == found.shape == (5, 4, 1)
    assert images.geometry(path).channels == found.channels == channels
    np.testing.assert_array_equal(found.data, rows.transpose(1, 0, 2)[:, :, None])


def test_a_palette_is_read_as_its_colours(tmp_path: Path) -> None:
    picture = pillow.new("P", (5, 4))
    picture.putpalette([9, 8, 7])
    picture.save(tmp_path / "a.png")
    np.testing.assert_array_equal(images.read(tmp_path / "a.png").data[0, 0, 0], (9, 8, 7))


@pytest.mark.parametrize("name", ["a.json", "a_0000.json"])
def test_a_stack_has_the_spacing_of_its_json_file(tmp_path: Path, name: str) -> None:
    pages = volume((3, 4, 5), "uint16")
    tifffile.imwrite(tmp_path / "a_0000.tif", pages, photometric="minisblack")
    assert images.read(tmp_path / "a_0000.tif").spacing == (1.0, 1.0, 1.0)
    (tmp_path / name).write_text('{"spacing": [80.0, 7.5, 2.5]}')
    found = images.read(tmp_path / "a_0000.tif")
    assert found.spacing == (2.5, 7.5, 80.0)
    np.testing.assert_array_equal(found.data, pages.transpose())
    images.write(tmp_path / "out.tif", found.data, found, dtype="int")
    assert images.read(tmp_path / "out.tif").spacing == (2.5, 7.5, 80.0)


def test_maps_go_to_nifti_where_the_format_holds_no_real_numbers() -> None:
    rows = {
        (ending, dtype): images.map_ending(ending, dtype)
        for ending in images.ENDINGS
        for dtype in ("float32", "uint8")
    }
    assert {one for one in rows if rows[one] == one[0]} == {
        *((ending, dtype) for ending in (".nii.gz", ".nii") for dtype in ("float32", "uint8")),
        *((ending, "float32") for ending in (".nrrd", ".mha", ".mhd")),
    }
    assert set(rows.values()) == {".nii.gz", ".nii", ".nrrd", ".mha", ".mhd"}


@pytest.mark.parametrize("ending", [*LOCATED[2:], *FLAT])
def test_real_numbers_are_not_scaled_without_a_word(tmp_path: Path, ending: str) -> None:
    data = np.random.default_rng(0).random((5, 4, 1))
    with pytest.raises(ValueError, match="must hold integers"):
        images.write(
            tmp_path / f"a{ending}",
            data,
            Geometry.from_affine(np.eye(4), data.shape),
            dtype="uint8",
        )
    assert list(tmp_path.iterdir()) == []


# --- damage ---------------------------------------------------------------------------------------


def written(folder: Path, ending: str, *, compressed: bool = False) -> Path:
    """A small image of another program."""
    path = folder / f"a{ending}"
    if ending in (".png", ".bmp"):
        pillow.fromarray(volume((9, 8), "uint8")).save(path)
    elif ending in (".tif", ".tiff"):
        tifffile.imwrite(path, volume((3, 9, 8), "uint16"), photometric="minisblack")
    else:
        sitk.WriteImage(sitk.GetImageFromArray(volume((3, 9, 8))), str(path), compressed)
    return path


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("share", [0.0, 0.05, 0.5, 0.9])
@pytest.mark.parametrize("ending", [*LOCATED[2:], ".png", ".tif"])
def test_a_truncated_file_is_named(
    tmp_path: Path, ending: str, share: float, compressed: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    path = written(tmp_path, ending, compressed=compressed)
    if ending in (".png", ".tif") and share > 0.5:
        share = 0.7  # behind the pixels, both have bytes that may be missing
    part = next(iter(tmp_path.glob("*raw")), path)
    part.write_bytes(part.read_bytes()[: int(part.stat().st_size * share)])
    with pytest.raises(DataError) as error:
        images.read(path)
    assert str(error.value).startswith(str(tmp_path))
    assert "\n" not in str(error.value)
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize("ending", images.ENDINGS)
def test_a_pipe_or_a_missing_file_is_refused_at_once(tmp_path: Path, ending: str) -> None:
    with pytest.raises(DataError, match="no such file"):
        images.read(tmp_path / f"a{ending}")
    if ending not in (".nii", ".nii.gz"):
        os.mkfifo(tmp_path / f"b{ending}")
        for reader in (images.read, images.geometry):
            with pytest.raises(DataError, match="named pipe"):
                reader(tmp_path / f"b{ending}")


META = (
    "NDims = 3\nDimSize = {sizes}\nElementType = {kind}\nCompressedData = {packed}\n"
    "ElementDataFile = {file}\n"
)
NRRD = "NRRD0004\ntype: {kind}\ndimension: 3\nsizes: {sizes}\nencoding: {packed}\n{file}\n\n"
SOUND = {"sizes": "2 2 2", "kind": "MET_UCHAR", "packed": "False", "file": "LOCAL"}
NRRD_SOUND = {"sizes": "2 2 2", "kind": "uchar", "packed": "raw", "file": "# none"}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"sizes": "20000 20000 20000"}, "must have 7.3 TiB of voxels by its header, got 8 bytes"),
        ({"sizes": "20000 20000 20000", "packed": "True"}, "at most 1032 times"),
        ({"sizes": "2 2"}, "one size for each of 2 to 5 axes, got 3 axes and 2 sizes"),
        ({"sizes": "2 2 -2"}, "every extent must be at least 1"),
        ({"sizes": "2 2 x"}, "damaged, or not"),
        ({"kind": "MET_STRING"}, "a type of real numbers, got 'MET_STRING'"),
        ({"file": "LIST"}, "must lie in one file"),
        ({"file": "slice%03d.raw 1 3 1"}, "must lie in one file"),
        ({"file": "/dev/zero"}, "must lie in the folder of the header"),
        ({"file": "../other.raw"}, "must lie in the folder of the header"),
        ({"file": "gone.raw"}, "gone.raw: no such file"),
        ({"file": "pipe.raw"}, "pipe.raw: must be a regular file"),
    ],
)
def test_a_claim_of_a_text_header_is_checked_before_it_is_believed(
    tmp_path: Path, change: dict[str, str], words: str
) -> None:
    os.mkfifo(tmp_path / "pipe.raw")
    path = tmp_path / "a.mha"
    path.write_bytes(META.format(**SOUND | change).encode() + bytes(8))
    with pytest.raises(DataError, match=words.replace("(", r"\(")):
        itk.read(path)
    other = dict(change)
    if "kind" in other:
        other, words = {"kind": "block"}, "one of real numbers, got 'block'"
    if "packed" in other:
        other["packed"] = "gzip"
    if "file" in other:
        other["file"] = f"data file: {other['file']}"
    path = tmp_path / "a.nrrd"
    path.write_bytes(NRRD.format(**NRRD_SOUND | other).encode() + bytes(8))
    with pytest.raises(DataError, match=words.replace("(", r"\(")):
        itk.read(path)


def test_sound_text_headers_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.mha").write_bytes(META.format(**SOUND).encode() + bytes(range(8)))
    (tmp_path / "a.nrrd").write_bytes(NRRD.format(**NRRD_SOUND).encode() + bytes(range(8)))
    for name in ("a.mha", "a.nrrd"):
        np.testing.assert_array_equal(
            itk.read(tmp_path / name).data, np.arange(8).reshape(2, 2, 2).T
        )


@pytest.mark.parametrize("ending", [*LOCATED[2:], ".png", ".bmp", ".tif"])
def test_changed_bytes_are_an_error_or_an_image_and_never_a_crash(
    tmp_path: Path, ending: str
) -> None:
    path = written(tmp_path, ending, compressed=True)
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    problems = []
    for _ in range(60):
        damaged = bytearray(whole)
        for _ in range(int(rng.integers(1, 4))):
            damaged[int(rng.integers(min(len(damaged), 600)))] = int(rng.integers(256))
        path.write_bytes(damaged)
        try:
            images.read(path)
        except DataError as error:
            problems.append(str(error))
    assert problems
    assert not any("\n" in problem for problem in problems)


@pytest.mark.parametrize(
    ("ending", "package", "extra"),
    [
        (".nrrd", "SimpleITK", "itk"),
        (".png", "PIL", "pictures"),
        (".tif", "tifffile", "pictures"),
    ],
)
def test_a_missing_package_is_named_with_its_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str, package: str, extra: str
) -> None:
    path = written(tmp_path, ending)
    monkeypatch.setitem(sys.modules, package, None)
    if package == "PIL":
        monkeypatch.setitem(sys.modules, "PIL.Image", None)
    for reader in (images.read, images.geometry):
        with pytest.raises(ImportError, match=rf"needs .*pip install 'fastcal\[{extra}\]'"):
            reader(path)


def test_another_ending_is_refused_with_the_list_of_those_known(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"ends in one of \.nii\.gz, .*, \.tiff"):
        images.read(tmp_path / "a.jpg")


NRRD_PLACED = NRRD.replace(
    "encoding",
    "space: left-posterior-superior\nspace directions: (50,0,0) (0,50,0) (0,0,200)\n"
    "space origin: (10,20,30)\n{units}\nencoding",
)
META_PLACED = META.replace(
    "NDims = 3", "NDims = 3\nElementSpacing = 50 50 200\nOffset = 10 20 30\n{units}"
)


@pytest.mark.parametrize(
    ("unit", "factor"),
    [("um", 1e-3), ("µm", 1e-3), ("micron", 1e-3), ("cm", 10.0), ("m", 1e3), ("mm", 1.0), ("?", 1)],
)
@pytest.mark.parametrize("form", ["nrrd", "nrrd by axis", "mha"])
def test_lengths_of_text_headers_are_millimetres_whatever_their_unit(
    tmp_path: Path, form: str, unit: str, factor: float
) -> None:
    if form == "mha":
        path = tmp_path / "a.mha"
        text = META_PLACED.format(**SOUND, units=f"DistanceUnits = {unit}")
    else:
        path, units = tmp_path / "a.nrrd", f'units: "{unit}" "{unit}" "{unit}"'
        if form == "nrrd":
            text = NRRD_PLACED.format(**NRRD_SOUND, units=f"space {units}")
        else:
            text = NRRD.format(**NRRD_SOUND | {"file": f"spacings: 50 50 200\n{units}"})
    path.write_bytes(text.encode() + bytes(range(8)))
    affine = np.diag([-50.0, -50.0, 200.0, 1.0])
    affine[:3, 3] = (0, 0, 0) if form == "nrrd by axis" else (-10, -20, 30)
    read, seen = images.read(path), images.geometry(path)
    for found in (read, seen):
        np.testing.assert_allclose(found.affine[:3], affine[:3] * factor)
        np.testing.assert_allclose(found.spacing, np.array([50, 50, 200]) * factor)
        # SimpleITK, and so nnU-Net's pkl, has the numbers of the header.
        assert found.agrees(Geometry.from_affine(affine, (2, 2, 2)))
    images.write(tmp_path / f"b{path.suffix}", read.data, read, dtype="int")
    np.testing.assert_allclose(images.read(tmp_path / f"b{path.suffix}").affine, read.affine)


def test_text_headers_without_a_usable_place_are_refused(tmp_path: Path) -> None:
    mha = META_PLACED.format(**SOUND, units="{}")
    nrrd = NRRD_PLACED.format(**NRRD_SOUND, units="{}")
    faults = {
        "zero.mha": mha.replace("50 50", "0 50").replace("{}", "Comment = none"),
        "nan.mha": mha.replace("50 50", "nan 50").replace("{}", "Comment = none"),
        "turn.mha": mha.format("TransformMatrix = 0 0 0 0 0 0 0 0 0"),
        "turn.nrrd": nrrd.replace("(0,50,0)", "(50,0,0)").replace("{}", "# none"),
        "zero.nrrd": nrrd.replace("(0,50,0)", "(0,0,0)").replace("{}", "# none"),
        "units.nrrd": nrrd.format('space units: "mm" "mm" "um"'),
    }
    for name, text in faults.items():
        (tmp_path / name).write_bytes(text.encode() + bytes(8))
        for reader in (images.geometry, images.read):
            with pytest.raises(DataError, match=rf"{name}: .*(usable affine|one unit of length)"):
                reader(tmp_path / name)


@pytest.mark.parametrize(
    ("append", "planar", "words"),
    [
        (True, None, "must hold one picture or stack, got 2 of different kinds"),
        (False, "separate", r"must have its colours last, got axes SYX of \(3, 9, 8\)"),
    ],
)
def test_a_tiff_of_which_a_part_would_be_taken_for_all_is_refused(
    tmp_path: Path, append: bool, planar: str | None, words: str
) -> None:
    path, pages = tmp_path / "a_0000.tif", np.zeros((3, 9, 8), np.uint8)
    kind = "minisblack" if planar is None else "rgb"
    tifffile.imwrite(path, pages, photometric=kind, planarconfig=planar)
    if append:
        tifffile.imwrite(path, pages[:2], photometric="minisblack", append=True)
    with pytest.raises(DataError, match=rf"a_0000\.tif: {words}"):
        images.read(path)
