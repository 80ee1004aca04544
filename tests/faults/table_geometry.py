"""Where arrays lie and what a millimetre is, over what readers and writers of the field do.

Each kind makes its files, runs commands on them, and compares with NumPy in float64.
"""

from __future__ import annotations

import itertools
import json
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt

from .contents_millimetres import _millimetres
from .kinds import Kind
from .scripts import Array, dice, fastcal, hd95, script
from .world import DATASET_JSON, save_nifti, write_json

ORIENTATIONS = [
    (axes, flips)
    for axes in itertools.permutations(range(3))
    for flips in itertools.product((1.0, -1.0), repeat=3)
]
"""All 48: which world axis each voxel axis runs along, and which way."""
LETTERS = (("L", "R"), ("P", "A"), ("I", "S"))


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


def kinds() -> Iterator[Kind]:
    """Of geometry."""
    yield from _orientations()
    yield from _thin()
    yield from _millimetres()
