"""What a millimetre is: units, zooms and forms of NIfTI headers."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt

from .kinds import Kind
from .scripts import Array, said_by, script

# Millimetres

_TRUTH = np.zeros((20, 20, 8), np.uint8)
_TRUTH[4:10, 4:10, 2:6] = 1
_SHIFTED = np.roll(_TRUTH, 5, 0)


def _measured(
    folder: Path, make: Callable[[Array], nib.Nifti1Image], other: Any = None
) -> dict[str, float] | str:
    """Scores of a structure five voxels off; or what was said of the files instead."""
    for name, array, writer in (("gt", _TRUTH, make), ("pr", _SHIFTED, other or make)):
        (folder / name).mkdir(parents=True, exist_ok=True)
        nib.save(writer(array), folder / name / "c.nii.gz")
    words = ("evaluate", "-g", "gt", "-p", "pr", "-o", "s.json", "--num-classes", "2", "-q")
    code, lines = said_by(*words)
    if code or any("sform" in line for line in lines):
        return " ".join(lines)
    found: dict[str, float] = json.loads((folder / "s.json").read_text())["mean"]["1"]
    return found


def _in_mm(zooms: tuple[float, float, float], found: dict[str, float] | str) -> str | None:
    """Compare with the shift of five voxels, or take a refusal that names the file."""
    if isinstance(found, str):
        return None if "c.nii.gz" in found else f"refused: {found}"
    want = {"HD95": 5 * zooms[0], "volume_ref_ml": float(_TRUTH.sum()) * np.prod(zooms) / 1000}
    wrong = {k: (found[k], want[k]) for k in want if not abs(found[k] - want[k]) < 1e-4 * want[k]}
    return f"found, expected: {wrong}" if wrong else None


def _with_units(unit: str | int, step: float) -> Callable[[Path], str | None]:
    def make(array: Array) -> nib.Nifti1Image:
        image = nib.Nifti1Image(array, np.diag([step, step, step, 1.0]))
        if isinstance(unit, int):
            image.header["xyzt_units"] = unit
        else:
            image.header.set_xyzt_units(unit)
        return image

    factor = {"micron": 1e-3, "meter": 1e3}.get(str(unit), 1.0)
    zooms = (step * factor,) * 3
    return lambda folder: _in_mm(zooms, _measured(folder, make))


_ZOOMS = (1.0, 1.25, 3.0)


def _forms(
    sform: npt.NDArray[np.float64] | None,
    qform: npt.NDArray[np.float64] | None,
    codes: tuple[int, int],
    pixdim: tuple[float, float, float] = _ZOOMS,
) -> Callable[[Array], nib.Nifti1Image]:
    """An image whose two forms and pixdim are written as they are given; codes (sform, qform)."""

    def make(array: Array) -> nib.Nifti1Image:
        image = nib.Nifti1Image(array, np.diag([*_ZOOMS, 1.0]))
        if qform is not None:
            image.set_qform(qform, code=max(1, codes[1]))
        header = image.header.copy()
        header["pixdim"][1:4] = pixdim
        header["qform_code"], header["sform_code"] = codes[1], codes[0]
        for row, letter in enumerate("xyz"):
            header[f"srow_{letter}"] = 0 if sform is None else sform[row]
        return nib.Nifti1Image(array, None, header)

    return make


def _millimetres() -> Iterator[Kind]:
    for unit, step in (
        *(("mm", 0.05), ("mm", 1.5), ("micron", 50.0), ("micron", 1250.0), ("meter", 5e-5)),
        *(("meter", 1.5e-3), ("unknown", 1.5), (5, 1.5), (42, 1.5)),
    ):
        run = _with_units(unit, step)
        yield script(f"millimetres: unit {unit}, step {step}", "units", run)
    right = np.diag([*_ZOOMS, 1.0])
    zero = np.zeros((4, 4))
    singular = right.copy()
    singular[:, 1] = 0
    nan = np.full((4, 4), np.nan)
    ones = np.diag([-1.0, -1.0, 1.0, 1.0])
    scaled = np.diag([10.0, 12.5, 30.0, 1.0])
    turned = np.array([[0, 1.25, 0, 0], [1.0, 0, 0, 0], [0, 0, 3.0, 0], [0, 0, 0, 1.0]])
    for name, form, codes in (
        ("sform zero, qform right", zero, (1, 1)),
        ("sform zero, no qform", zero, (1, 0)),
        ("sform singular, qform right", singular, (2, 1)),
        ("sform NaN, qform right", nan, (1, 1)),
        ("sform of ones, qform and pixdim right", ones, (2, 1)),
        ("sform of ones, no qform", ones, (2, 0)),
        ("sform ten times qform", scaled, (1, 1)),
        ("no sform, qform right", right, (0, 1)),
        ("no form, pixdim alone", right, (0, 0)),
        ("both right", right, (1, 1)),
        ("sform turned, of qform's spacing along other axes", turned, (1, 1)),
    ):
        make = _forms(form, right, codes)

        def run(folder: Path, make: Any = make, form: Any = form) -> str | None:
            found = _measured(folder, make)
            if form is turned:  # the sform counts: 1 mm along y
                return None if isinstance(found, str) else _in_mm(_ZOOMS, found)
            return _in_mm(_ZOOMS, found)

        yield script(f"millimetres: {name}", "units", run)
    for name, form, codes in (
        ("sform of ones", ones, (2, 1)),
        ("sform zero", zero, (1, 1)),
        ("no sform", right, (0, 1)),
    ):
        # SimpleITK writes both forms, with the spacing: its predictions must go with these.
        reference, prediction = _forms(form, right, codes), _forms(right, right, (1, 1))

        def pair(folder: Path, a: Any = reference, b: Any = prediction) -> str | None:
            found = _measured(folder, a, b)
            if isinstance(found, str) and "sform" not in found:
                return f"refused without a way out: {found}"
            return _in_mm(_ZOOMS, found)

        yield script(f"millimetres: reference with {name}, prediction by SimpleITK", "units", pair)
