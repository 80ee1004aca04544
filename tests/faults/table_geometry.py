"""Where arrays lie and what a millimetre is, over what readers and writers of the field do.

Each kind makes its files, runs commands on them, and compares with NumPy in float64.
"""

from __future__ import annotations

import io
import itertools
import json
import pickle
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt

from .kinds import Kind
from .world import DATASET_JSON, save_nifti, write_json

Array = npt.NDArray[Any]
ORIENTATIONS = [
    (axes, flips)
    for axes in itertools.permutations(range(3))
    for flips in itertools.product((1.0, -1.0), repeat=3)
]
"""All 48: which world axis each voxel axis runs along, and which way."""
LETTERS = (("L", "R"), ("P", "A"), ("I", "S"))


def said_by(*words: object) -> tuple[int, list[str]]:
    """Run a command; its exit code, and its lines on stderr."""
    from fastcal.cli import main

    said = io.StringIO()
    with redirect_stdout(io.StringIO()), redirect_stderr(said):
        code = main([str(word) for word in words])
    return code, said.getvalue().strip().splitlines()


def fastcal(*words: object) -> str | None:
    """Run a command; its line if it is refused, None if it is done.

    Raises:
        RuntimeError: it is refused otherwise than by exit code 2 and a line.
    """
    code, lines = said_by(*words)
    if code == 0:
        return None
    if code != 2 or len(lines) != 1:
        raise RuntimeError(f"exit code {code}, {lines}")
    return lines[0]


def script(name: str, group: str, run: Callable[[Path], str | None]) -> Kind:
    """A kind that does it all itself."""
    return Kind(name=name, group=group, script=run)


def letters(axes: tuple[int, ...], flips: tuple[float, ...]) -> str:
    """An orientation as nibabel spells it."""
    return "".join(LETTERS[axis][int(flip > 0)] for axis, flip in zip(axes, flips, strict=True))


def oriented(
    axes: tuple[int, ...], flips: tuple[float, ...], *, oblique: bool
) -> npt.NDArray[np.float64]:
    """An affine of voxels of 1, 1.5 and 2.5 mm, voxel axis k along world axis ``axes[k]``."""
    affine = np.eye(4)
    affine[:3, :3] = 0
    for voxel, (world, flip) in enumerate(zip(axes, flips, strict=True)):
        affine[world, voxel] = flip * (1.0, 1.5, 2.5)[voxel]
    if oblique:
        turn = np.eye(4)
        cos, sin = np.cos(0.3), np.sin(0.3)
        turn[:2, :2] = [[cos, -sin], [sin, cos]]
        tilt = np.eye(4)
        tilt[1:3, 1:3] = [[np.cos(0.15), -np.sin(0.15)], [np.sin(0.15), np.cos(0.15)]]
        affine = turn @ tilt @ affine
    affine[:3, 3] = 3.0, -7.0, 11.0
    return affine


_ROOT_SHAPE = (6, 6, 6)
"""Equal extents: an array in another orientation fits, and only its contents tell."""


def _member(seed: int, shape: tuple[int, ...] = _ROOT_SHAPE) -> Array:
    """Probabilities [C, X, Y, Z] of three classes, as the image file has its axes."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2, (3, *shape))
    p = np.exp(logits - logits.max(0))
    return (p / p.sum(0)).astype(np.float32)


def _sitk(affine: npt.NDArray[np.float64], shape: tuple[int, ...]) -> dict[str, Any]:
    """ITK's spacing, origin and direction of a RAS affine."""
    del shape
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    return {
        "spacing": tuple(spacing.tolist()),
        "origin": tuple(lps[:3, 3].tolist()),
        "direction": tuple((lps[:3, :3] / spacing).ravel().tolist()),
    }


def _to_ras(data: Array, affine: npt.NDArray[np.float64]) -> tuple[Array, npt.NDArray[np.float64]]:
    """[C, X, Y, Z] turned so that its axes run as near to R, A, S as they can."""
    image = nib.Nifti1Image(np.moveaxis(data, 0, -1), affine)
    turned = nib.as_closest_canonical(image)
    return np.moveaxis(np.asarray(turned.dataobj), -1, 0), turned.affine


def _reader(reader: str, data: Array, affine: npt.NDArray[np.float64]) -> tuple[Array, Any]:
    """What a reader of nnU-Net stores, (C, Z, Y, X), and its properties."""
    stored, ras = data, affine
    if reader.endswith("WithReorient"):
        stored, ras = _to_ras(data, affine)
    if reader == "NibabelIO":
        return stored.transpose(0, 3, 2, 1), {"nibabel_stuff": {"original_affine": affine}}
    if reader == "NibabelIOWithReorient":
        stuff = {"original_affine": affine, "reoriented_affine": ras}
        return stored.transpose(0, 3, 2, 1), {"nibabel_stuff": stuff}
    if reader == "SimpleITKIO":
        return stored.transpose(0, 3, 2, 1), {"sitk_stuff": _sitk(affine, data.shape)}
    # SimpleITKIOWithReorient: the geometry after DICOMOrient to RAS, and what it was before.
    stuff = _sitk(ras, data.shape)
    original = "".join(nib.aff2axcodes(affine))
    # ITK names an axis by where it comes from in LPS, nibabel by where it goes to in RAS.
    stuff["original_orientation"] = original
    return stored.transpose(0, 3, 2, 1), {"sitk_stuff": stuff}


READERS = ("SimpleITKIO", "NibabelIO", "NibabelIOWithReorient", "SimpleITKIOWithReorient")


def _orientation(
    reader: str, axes: tuple[int, ...], flips: tuple[float, ...], oblique: bool, with_image: bool
) -> Callable[[Path], str | None]:
    def run(folder: Path) -> str | None:
        affine = oriented(axes, flips, oblique=oblique)
        mean = np.zeros((3, *_ROOT_SHAPE))
        for fold in range(2):
            p = _member(fold)
            mean += p.astype(np.float64) / 2
            stored, properties = _reader(reader, p, affine)
            place = folder / f"fold_{fold}"
            write_json(place / "dataset.json", DATASET_JSON)
            np.savez(place / "c.npz", probabilities=stored)
            properties["spacing"] = [1.0, 1.0, 1.0]
            (place / "c.pkl").write_bytes(pickle.dumps(properties))
            if with_image:
                save_nifti(place / "c.nii.gz", p.argmax(0).astype(np.uint8), affine)
        labels = mean.argmax(0)
        save_nifti(folder / "labels/c.nii.gz", labels.astype(np.uint8), affine)
        inputs = ("-i", "fold_0", "fold_1")
        refused = fastcal("ensemble", *inputs, "-o", "out", "-g", "labels", "-q")
        if refused is not None:
            named = "c.npz" in refused or "c.pkl" in refused
            return None if named and reader == "SimpleITKIOWithReorient" else f"refused: {refused}"
        made = nib.load(folder / "out/c.nii.gz")
        if not np.allclose(made.affine, affine, atol=1e-4):
            return "another affine"
        wrong = int((np.asarray(made.dataobj) != labels).sum())
        if wrong:
            return f"{wrong} of {labels.size} labels are wrong"
        q = np.clip(mean, 1e-30, 1)
        entropy = -(q * np.log(q)).sum(0)
        found = np.asarray(nib.load(folder / "out/entropy/c.nii.gz").dataobj)
        if not np.allclose(found, entropy, atol=1e-4):
            return "another entropy"
        return _fitted_and_evaluated(folder, labels) if with_image else None

    return run


def _fitted_and_evaluated(folder: Path, labels: Array) -> str | None:
    """The first fold's temperature and NLL, which tell whether npz and labels lie alike."""
    import torch

    from fastcal.recalibrate import TemperatureScaling

    p = _member(0)
    words = ("-g", "labels", "-o", "t.json", "-q")
    refused = fastcal("recalibrate", "fit", "-i", "fold_0", *words)
    if refused is not None:
        return f"recalibrate fit refused: {refused}"
    found = json.loads((folder / "t.json").read_text())["fitted"]["temperature"]
    fit = TemperatureScaling(from_logits=False)
    fit.fit(torch.from_numpy(p)[None], torch.from_numpy(labels)[None])
    right = float(np.asarray(fit.temperature_))
    if abs(found - right) > 1e-3 * right:
        return f"recalibrate fit: T = {found} for {right}"
    refused = fastcal("evaluate", "-g", "labels", "-p", "fold_0", "-o", "s.json", "-q")
    if refused is not None:
        return f"evaluate refused: {refused}"
    found = json.loads((folder / "s.json").read_text())["calibration"]["pooled"]["NLL"]
    of_target = np.take_along_axis(p.astype(np.float64), labels[None], 0)
    right = float(-np.log(of_target).mean())
    return None if abs(found - right) < 1e-4 * right else f"evaluate: NLL {found} for {right}"


def _orientations() -> Iterator[Kind]:
    for number, (axes, flips) in enumerate(ORIENTATIONS):
        name = letters(axes, flips)
        # Nothing turns without reorientation: every fourth will do there.
        for reader in READERS if number % 4 == 0 else READERS[2:]:
            run = _orientation(reader, axes, flips, False, True)
            yield script(f"orientation: {reader}, {name}", "orientations", run)
    for axes, flips in ORIENTATIONS[3::8]:
        name = letters(axes, flips)
        for reader in READERS:
            run = _orientation(reader, axes, flips, True, True)
            yield script(f"orientation: {reader}, {name}, oblique", "orientations", run)
            if reader != "SimpleITKIOWithReorient":
                run = _orientation(reader, axes, flips, True, False)
                name_of = f"orientation: {reader}, {name}, oblique, from the pkl alone"
                yield script(name_of, "orientations", run)


# Two dimensions and axes of extent 1


def _planes(extents: tuple[int, ...], trailing: int) -> tuple[Array, Array]:
    """A reference and a prediction of two classes, with axes of 1 appended."""
    truth = np.zeros(extents, np.uint8)
    inner = tuple(slice(n // 4, max(n // 4 + 1, 3 * n // 4)) for n in extents)
    truth[inner] = 1
    axis = int(np.argmax(extents))
    predicted = np.roll(truth, 1, axis)
    shape = (*extents, *(1,) * trailing)
    return truth.reshape(shape), predicted.reshape(shape)


def hd95(a: Array, b: Array, spacing: tuple[float, ...]) -> float:
    """The 95th percentile of distances between the surfaces of two masks, in float64.

    The larger of both directions, as MONAI has it. A voxel is of the surface where a neighbour
    along an axis of more than one voxel is outside.
    """

    def surface(mask: Array) -> Array:
        kept = mask.copy()
        for axis in range(mask.ndim):
            if mask.shape[axis] == 1:
                continue
            padded = np.pad(mask, [(int(k == axis),) * 2 for k in range(mask.ndim)])
            for offset in (0, 2):
                part = [slice(None)] * mask.ndim
                part[axis] = slice(offset, offset + mask.shape[axis])
                kept &= padded[tuple(part)]
        return np.argwhere(mask & ~kept) * np.array(spacing)

    x, y = surface(a), surface(b)
    d = np.linalg.norm(x[:, None] - y[None], axis=-1)
    return float(max(np.percentile(d.min(0), 95), np.percentile(d.min(1), 95)))


def dice(a: Array, b: Array) -> float:
    """Twice the common part over the sum."""
    return 2 * float((a & b).sum()) / float(a.sum() + b.sum())


def _scores_of(extents: tuple[int, ...], trailing: int, dtype: Any) -> Callable[[Path], str | None]:
    def run(folder: Path) -> str | None:
        truth, predicted = _planes(extents, trailing)
        spacing = (0.7, 0.8, 2.0)
        affine = np.diag([*spacing, 1.0])
        save_nifti(folder / "gt/c.nii.gz", truth.astype(dtype), affine)
        save_nifti(folder / "pr/c.nii.gz", predicted.astype(dtype), affine)
        words = ("evaluate", "-g", "gt", "-p", "pr", "-o", "s.json", "--num-classes", "2", "-q")
        refused = fastcal(*words)
        if refused is not None:
            return f"refused: {refused}"
        found = json.loads((folder / "s.json").read_text())["mean"]["1"]
        a, b = truth.astype(bool), predicted.astype(bool)
        a, b = (mask.reshape((*mask.shape, 1, 1)[:3]) for mask in (a, b))
        want = {
            "Dice": dice(a, b),
            "HD95": hd95(a, b, spacing),
            "volume_ref_ml": float(a.sum() * np.prod(spacing) / 1000),
        }
        wrong = {k: (found[k], want[k]) for k in want if not abs(found[k] - want[k]) < 1e-4}
        return f"found, expected: {wrong}" if wrong else None

    return run


def _ensemble_of(
    extents: tuple[int, ...], stored_axes: int, label_axes: int
) -> Callable[[Path], str | None]:
    """nnU-Net's npz of a 2-D image is (C, 1, Y, X), its label map (X, Y), its pkl 2-D."""

    def run(folder: Path) -> str | None:
        shape = (*extents, 1)[:3]
        mean = np.zeros((2, *shape))
        affine = np.diag([-0.7, -0.7, 1.0, 1.0])
        for fold in range(2):
            p = _member(fold, shape)[:2]
            p = p / p.sum(0)
            mean += p.astype(np.float64) / 2
            place = folder / f"fold_{fold}"
            labels = {"background": 0, "a": 1}
            write_json(place / "dataset.json", DATASET_JSON | {"labels": labels})
            stored = p.transpose(0, 3, 2, 1)
            np.savez(place / "c.npz", probabilities=stored[:, 0] if stored_axes == 3 else stored)
            argmax = p.argmax(0).astype(np.uint8)
            save_nifti(place / "c.nii.gz", argmax[..., 0] if label_axes == 2 else argmax, affine)
            two = {"spacing": (0.7, 0.7), "origin": (0.0, 0.0), "direction": (1.0, 0, 0, 1.0)}
            stuff = {"sitk_stuff": two, "spacing": [999 * 0.7, 0.7, 0.7]}
            (place / "c.pkl").write_bytes(pickle.dumps(stuff))
        truth = mean.argmax(0).astype(np.uint8)
        save_nifti(folder / "labels/c.nii.gz", truth[..., 0] if label_axes == 2 else truth, affine)
        inputs = ("-i", "fold_0", "fold_1")
        commands = {
            "ensemble": ("ensemble", *inputs, "-o", "out"),
            "ensemble --labels": ("ensemble", *inputs, "-o", "out2", "-g", "labels"),
            "evaluate": ("evaluate", "-g", "labels", "-p", "fold_0", "-o", "s.json"),
            "recalibrate fit": ("recalibrate", "fit", *inputs[:2], "-g", "labels", "-o", "t.json"),
        }
        wrong = []
        for name, words in commands.items():
            refused = fastcal(*words, "-q")
            if refused is not None:
                wrong.append(f"refused, {name}: {refused}")
        if wrong and stored_axes == 3 and all("c.npz" in one for one in wrong):
            return None  # no version of nnU-Net writes these: a refusal by name will do
        if not wrong:
            for out in ("out", "out2"):
                found = np.asarray(nib.load(folder / out / "c.nii.gz").dataobj).reshape(shape)
                if (found != truth).any():
                    wrong.append(f"{out}: labels differ")
        return "; ".join(wrong) or None

    return run


def _thin() -> Iterator[Kind]:
    # So long that the shift hides below the 95th percentile where a whole area counts as surface.
    for extents, trailing in (
        *(((50, 12), 0), ((50, 12), 2), ((12, 50), 0), ((50, 12, 1), 0), ((1, 50, 12), 0)),
        *(((50, 1, 12), 0), ((1, 12, 50), 1), ((12, 10, 6), 0), ((12, 10, 6), 1)),
        *(((12, 10, 6), 2), ((1, 1, 9), 0), ((1, 50), 0), ((50, 1), 0)),
    ):
        shape = "x".join(map(str, (*extents, *(1,) * trailing)))
        for dtype in (np.uint8, np.float32, np.int16):
            run = _scores_of(extents, trailing, dtype)
            yield script(f"label maps of {shape} in {np.dtype(dtype)}: evaluate", "shapes", run)
    for extents in ((12, 10), (1, 10), (12, 1), (9, 9)):
        for stored, labels in ((4, 2), (4, 3), (3, 2)):
            run = _ensemble_of(extents, stored, labels)
            shape = "x".join(map(str, extents))
            name = f"npz of {stored} axes, label maps of {labels} axes, {shape}"
            yield script(f"two dimensions: {name}", "shapes", run)


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


def kinds() -> Iterator[Kind]:
    """Of geometry."""
    yield from _orientations()
    yield from _thin()
    yield from _millimetres()
