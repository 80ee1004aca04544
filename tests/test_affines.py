"""What a millimetre is: units, forms of NIfTI headers, and files that contradict themselves."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from fastcal.cli import main, mapping
from fastcal.core.errors import DataError, DataWarning
from fastcal.data import affines, nifti

ZOOMS = (1.0, 1.25, 3.0)
RIGHT = np.diag([*ZOOMS, 1.0])
SHAPE = (5, 4, 3)


def turn(angle: float, tilt: float = 0.0) -> np.ndarray:
    """An oblique affine of voxels of ZOOMS: turned about z, then tilted about x."""
    about_z, about_x = np.eye(4), np.eye(4)
    about_z[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    about_x[1:3, 1:3] = [[np.cos(tilt), -np.sin(tilt)], [np.sin(tilt), np.cos(tilt)]]
    affine: np.ndarray = about_z @ about_x @ RIGHT
    affine[:3, 3] = 3, -7, 11
    return affine


OBLIQUE = turn(0.3, 0.15)
LEFT_HANDED = OBLIQUE @ np.diag([-1.0, 1, 1, 1])
ONES = np.diag([-1.0, -1, 1, 1])


def write(
    path: Path,
    *,
    sform: np.ndarray | None = None,
    qform: np.ndarray | None = None,
    shape: tuple[int, ...] = SHAPE,
    codes: tuple[int, int] | None = None,
    pixdim: tuple[float, float, float] | None = None,
    unit: int = 2,
) -> Path:
    """Write a file with these forms, bit for bit; codes are of sform and qform."""
    path.parent.mkdir(exist_ok=True)
    image = nib.Nifti1Image(np.zeros(shape, np.uint8), np.diag([*ZOOMS, 1.0]))
    if qform is not None:
        image.header.set_qform(qform, code=1)
    header = image.header.copy()
    header["sform_code"] = int(sform is not None) if codes is None else codes[0]
    header["qform_code"] = int(qform is not None) if codes is None else codes[1]
    if pixdim is not None:
        header["pixdim"][1:4] = pixdim
    header["xyzt_units"] = unit
    for row, letter in enumerate("xyz"):
        header[f"srow_{letter}"] = 0 if sform is None else sform[row]
    nib.Nifti1Image(np.zeros(shape, np.uint8), None, header).to_filename(path)
    # nibabel makes headers regular as it saves: write ours over it.
    raw = path.read_bytes()
    header["vox_offset"], header["magic"] = 352, b"n+1"
    header["dim"] = nib.load(path).header["dim"]
    path.write_bytes(header.binaryblock + raw[348:])
    return path


@pytest.fixture(params=["read", "geometry"])
def place(request: pytest.FixtureRequest) -> Iterator[object]:
    return getattr(nifti, request.param)


@pytest.mark.parametrize("affine", [RIGHT, OBLIQUE, LEFT_HANDED], ids=["right", "oblique", "left"])
@pytest.mark.parametrize("form", ["sform", "qform", "both"])
@pytest.mark.parametrize(
    ("unit", "factor"),
    [(0, 1), (1, 1000), (2, 1), (3, 1e-3), (10, 1), (11, 1e-3), (5, 1), (42, 1)],
)
def test_every_form_is_in_millimetres_whatever_the_unit(
    tmp_path: Path, affine: np.ndarray, form: str, unit: int, factor: float
) -> None:
    forms = {name: affine for name in ("sform", "qform") if form in (name, "both")}
    found = nifti.geometry(write(tmp_path / "a.nii", unit=unit, **forms))
    wanted = np.diag([factor, factor, factor, 1.0]) @ affine
    # A quaternion of half a turn has but half of the digits of its type.
    np.testing.assert_allclose(found.affine, wanted, atol=3e-5 * factor)
    assert found.spacing == pytest.approx(np.array(ZOOMS) * factor, rel=1e-5)
    assert found.stated


@pytest.mark.parametrize("unit", [0, 1, 2, 3])
def test_what_is_written_over_a_unit_lies_where_the_image_does(tmp_path: Path, unit: int) -> None:
    image = nifti.read(write(tmp_path / "a.nii", sform=OBLIQUE, qform=OBLIQUE, unit=unit))
    nifti.write(tmp_path / "b.nii.gz", np.zeros(SHAPE), image)
    written = nifti.geometry(tmp_path / "b.nii.gz")
    np.testing.assert_array_equal(written.affine, image.affine)
    assert written.header["xyzt_units"] == unit


SINGULAR = RIGHT.copy()
SINGULAR[:, 1] = 0
UNUSABLE = {
    "zero": np.zeros((4, 4)),
    "singular": SINGULAR,
    "two axes along one line": RIGHT[:, [0, 0, 2, 3]],
    "NaN": np.full((4, 4), np.nan),
    "infinite": np.diag([np.inf, 1, 1, 1]),
}


@pytest.mark.parametrize("sform", UNUSABLE.values(), ids=UNUSABLE)
@pytest.mark.parametrize("affine", [RIGHT, OBLIQUE, LEFT_HANDED], ids=["right", "oblique", "left"])
def test_an_unusable_sform_falls_back_to_the_qform_and_says_so(
    tmp_path: Path, place: object, sform: np.ndarray, affine: np.ndarray
) -> None:
    path = write(tmp_path / "a.nii", sform=sform, qform=affine)
    with pytest.warns(DataWarning, match=r"a\.nii: its sform is singular or not finite") as said:
        found = place(path)  # type: ignore[operator]
    assert len(said) == 1
    np.testing.assert_allclose(found.affine, affine, atol=1e-5)
    nifti.write(tmp_path / "out.nii", np.zeros(SHAPE), found)
    np.testing.assert_allclose(nib.load(tmp_path / "out.nii").affine, affine, atol=1e-5)


@pytest.mark.parametrize("fault", ["zero", "singular", "two axes along one line"])
def test_without_a_usable_form_pixdim_alone_counts(tmp_path: Path, fault: str) -> None:
    path = write(tmp_path / "a.nii", sform=UNUSABLE[fault])
    with pytest.warns(DataWarning, match="pixdim alone counts"):
        found = nifti.geometry(path)
    assert found.spacing == ZOOMS
    assert not found.stated
    nifti.write(tmp_path / "out.nii", np.zeros(SHAPE), found)
    assert nifti.geometry(tmp_path / "out.nii").spacing == ZOOMS


@pytest.mark.parametrize("codes", [(1, 1), (2, 1), (1, 2), (4, 1)])
@pytest.mark.parametrize("sform", [ONES, np.diag([10.0, 12.5, 30, 1])], ids=["ones", "scaled"])
def test_voxel_sizes_are_those_of_pixdim_where_the_sform_contradicts(
    tmp_path: Path, codes: tuple[int, int], sform: np.ndarray
) -> None:
    """Copies of ACDC have an sform of ones. SimpleITK, and so nnU-Net, takes pixdim's sizes."""
    path = write(tmp_path / "a.nii", sform=sform, qform=OBLIQUE, codes=codes)
    with pytest.warns(DataWarning, match="of its sform and 1 x 1.25 x 3 mm by pixdim; the qform"):
        found = nifti.geometry(path)
    np.testing.assert_allclose(found.affine, OBLIQUE, atol=1e-5)
    with affines.affine_from("sform"), warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(nifti.geometry(path).affine, sform)
    assert affines.affine_rule() == "auto"


def test_an_sform_alone_keeps_its_directions_and_takes_the_sizes_of_pixdim(tmp_path: Path) -> None:
    half = OBLIQUE.copy()
    half[:3, :3] /= 2
    path = write(tmp_path / "a.nii", sform=half)
    with pytest.warns(DataWarning, match="the sform's directions count with the sizes of pixdim"):
        found = nifti.geometry(path)
    np.testing.assert_allclose(found.affine, OBLIQUE, atol=1e-5)


def test_a_form_that_is_asked_for_and_missing_is_no_reason_to_be_silent(tmp_path: Path) -> None:
    path = write(tmp_path / "a.nii", sform=ONES)
    with affines.affine_from("qform"), pytest.warns(DataWarning, match="the sform's directions"):
        assert nifti.geometry(path).spacing == pytest.approx(ZOOMS)


@pytest.mark.parametrize("ratio", [1.0, 1.005])
def test_rounding_is_no_contradiction(tmp_path: Path, ratio: float) -> None:
    sform = OBLIQUE @ np.diag([ratio, 1, 1, 1])
    found = nifti.geometry(write(tmp_path / "a.nii", sform=sform, qform=RIGHT))
    np.testing.assert_allclose(found.affine, sform, atol=1e-5)


def test_of_two_sound_forms_the_sform_counts_unless_the_user_says_otherwise(tmp_path: Path) -> None:
    path = write(tmp_path / "a.nii", sform=OBLIQUE, qform=RIGHT, codes=(4, 1))
    np.testing.assert_allclose(nifti.geometry(path).affine, OBLIQUE, atol=1e-5)
    with affines.affine_from("qform"):
        np.testing.assert_allclose(nifti.geometry(path).affine, RIGHT, atol=1e-5)
    with pytest.raises(ValueError, match="affine must be one of auto, sform, qform, got 'pixdim'"):  # noqa: SIM117
        with affines.affine_from("pixdim"):
            pass


@pytest.mark.filterwarnings("ignore::fastcal.core.errors.DataWarning")
@pytest.mark.parametrize(
    ("sform", "qform", "codes"),
    [
        (OBLIQUE, RIGHT, (4, 1)),
        (OBLIQUE, RIGHT, (1, 1)),
        (ONES, OBLIQUE, (2, 1)),
        (ONES, OBLIQUE, (1, 1)),
        (np.zeros((4, 4)), OBLIQUE, (1, 1)),
        (None, OBLIQUE, (0, 1)),
        (OBLIQUE, None, (2, 0)),
        (ONES, None, (2, 0)),
        (None, None, (0, 0)),
        (RIGHT, RIGHT, (1, 1)),
    ],
)
def test_what_simpleitk_or_nibabel_makes_of_a_header_is_the_same_grid(
    tmp_path: Path, sform: np.ndarray | None, qform: np.ndarray | None, codes: tuple[int, int]
) -> None:
    """Both choose forms by rules of their own, which predictions over such a file follow."""
    path = write(tmp_path / "a.nii", sform=sform, qform=qform, codes=codes)
    reference = nifti.geometry(path)
    if nib.load(path).affine[:3, :3].any():
        by_nibabel = nib.Nifti1Image(np.zeros(SHAPE, np.uint8), nib.load(path).affine)
        by_nibabel.to_filename(tmp_path / "n.nii")
        if sform is not ONES or qform is not None:
            assert reference.agrees(nifti.geometry(tmp_path / "n.nii"))
    # As SimpleITK 2.5 was seen to read them: sizes of pixdim, the sform if its code is 1 or alone.
    takes_sform = sform is not None and sform.any() and (codes[0] == 1 or qform is None)
    taken = sform if takes_sform else qform
    lps = np.diag([-1.0, -1.0, 1.0]) @ np.diag(ZOOMS)
    itk = np.eye(4)
    if taken is None:
        itk[:3, :3] = lps
    else:
        itk = taken.copy()
        itk[:3, :3] *= np.array(ZOOMS) / np.linalg.norm(taken[:3, :3], axis=0)
    by_itk = nifti.geometry(write(tmp_path / "i.nii", sform=itk, qform=itk))
    assert reference.agrees(by_itk)
    assert by_itk.agrees(reference)


def test_files_elsewhere_or_of_other_sizes_do_not_agree(tmp_path: Path) -> None:
    moved = OBLIQUE.copy()
    moved[0, 3] += 2
    here = nifti.geometry(write(tmp_path / "a.nii", sform=OBLIQUE, qform=OBLIQUE))
    assert not here.agrees(nifti.geometry(write(tmp_path / "b.nii", sform=moved, qform=moved)))
    nowhere = nifti.geometry(write(tmp_path / "c.nii"))
    assert here.agrees(nowhere)
    assert not here.agrees(nifti.geometry(write(tmp_path / "d.nii", pixdim=(1, 1.5, 3))))


@pytest.mark.parametrize(
    ("fault", "pixdim"), [("zero", (1, np.nan, 3)), ("NaN", ZOOMS), ("infinite", ZOOMS)]
)
def test_a_header_that_says_nothing_usable_is_refused_in_one_line(
    tmp_path: Path, fault: str, pixdim: tuple[float, float, float]
) -> None:
    path = write(tmp_path / "a.nii", sform=UNUSABLE[fault], pixdim=pixdim)
    with pytest.raises(DataError, match=r"a\.nii: its header gives no usable affine"):
        nifti.geometry(path)


@pytest.mark.parametrize("pixdim", [(1, 0, 3), (1, np.inf, 3), (-1, -1.25, -3)])
def test_a_sound_sform_needs_no_pixdim(tmp_path: Path, pixdim: tuple[float, ...]) -> None:
    found = nifti.geometry(write(tmp_path / "a.nii", sform=OBLIQUE, pixdim=pixdim))  # type: ignore[arg-type]
    np.testing.assert_allclose(found.affine, OBLIQUE, atol=1e-5)
    nifti.write(tmp_path / "out.nii", np.zeros(SHAPE), found)
    np.testing.assert_allclose(nifti.geometry(tmp_path / "out.nii").affine, OBLIQUE, atol=1e-5)


@pytest.mark.parametrize("thickness", [0.0, 1.0, 2.0])
@pytest.mark.parametrize("form", ["sform", "qform"])
def test_a_flat_image_lies_in_its_plane(tmp_path: Path, thickness: float, form: str) -> None:
    flat = OBLIQUE @ np.diag([1, 1, thickness / 3, 1])
    forms = {form: OBLIQUE if form == "qform" else flat}
    path = write(tmp_path / "a.nii", shape=(5, 4), pixdim=(1, 1.25, thickness), **forms)
    found = nifti.geometry(path)
    assert found.shape == (5, 4, 1)
    np.testing.assert_allclose(found.affine[:, [0, 1, 3]], OBLIQUE[:, [0, 1, 3]], atol=1e-5)
    assert found.spacing == pytest.approx((1, 1.25, thickness or 1.0))
    across = np.cross(OBLIQUE[:3, 0], OBLIQUE[:3, 1])
    cosine = found.affine[:3, 2] @ across / found.spacing[2] / np.linalg.norm(across)
    assert cosine == pytest.approx(1, abs=1e-5)


def test_a_folder_is_told_once_of_a_fault_that_its_files_share(tmp_path: Path) -> None:
    paths = [write(tmp_path / f"{k}.nii", sform=ONES, qform=RIGHT) for k in range(3)]
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        for path in paths:
            nifti.geometry(path)
    assert [one.category for one in said] == [DataWarning]


def test_the_command_line_chooses_a_form_and_says_what_it_found(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A structure that is two voxels off along the first axis."""
    truth = np.zeros((12, 8, 6), np.uint8)
    truth[2:6, 2:6, 2:5] = 1
    for name, labels in (("labels", truth), ("predicted", np.roll(truth, 2, 0))):
        path = write(tmp_path / name / "a.nii", sform=ONES, qform=RIGHT, shape=labels.shape)
        path.write_bytes(path.read_bytes()[:352] + labels.tobytes(order="F"))
    words = ["evaluate", "-g", f"{tmp_path}/labels", "-p", f"{tmp_path}/predicted", "-q"]
    for form, step, volume in (("sform", 1.0, 1.0), ("qform", 1.0, 3.75), ("auto", 1.0, 3.75)):
        out = tmp_path / f"{form}.json"
        assert main([*words, "-o", str(out), "--num-classes", "2", "--affine", form]) == 0
        found = json.loads(out.read_text())
        assert found["settings"]["affine"] == form
        assert found["mean"]["1"]["HD95"] == pytest.approx(2 * step)
        assert found["mean"]["1"]["volume_ref_ml"] == pytest.approx(48 * volume / 1000)
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == (2 if form == "auto" else 0)  # one for each folder
        assert all(line.startswith(f"fastcal: {tmp_path}") for line in lines)
    assert affines.affine_rule() == "auto"
    assert main([*words, "-o", "x.json", "--affine", "pixdim"]) == 2


def test_the_choices_of_the_command_line_are_those_of_the_rule() -> None:
    assert tuple(mapping.AffineForm) == affines.RULES


def test_readers_do_not_talk_to_the_terminal(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path / "a.nii", sform=RIGHT)
    raw = bytearray(path.read_bytes())
    for field, value in ((252, 77), (254, 99), (40 + 2 * 5, 0)):
        raw[field : field + 2] = int(value).to_bytes(2, "little")
    raw[76:80] = np.float32(0).tobytes()
    path.write_bytes(raw)
    np.testing.assert_array_equal(nifti.read(path).affine, RIGHT)
    assert capfd.readouterr() == ("", "")
