"""The files that all kinds start from: a dataset of four cases, two folds, a trained run.

Everything is small (12 x 10 x 3 voxels, three classes, a network of two widths, two steps) and
generated. `build` makes it once for a session; kinds work on copies of the parts they need.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt

SHAPE = (12, 10, 3)
CASES = ("case_a", "case_b", "case_c", "case_d")
FOLD_CASES = CASES[:2]
SPACING = (1.0, 1.5, 3.0)
AFFINE = np.diag([-SPACING[0], -SPACING[1], SPACING[2], 1.0])
"""What SimpleITK's identity direction and origin 0 are in nibabel's RAS."""
DATASET_JSON = {
    "channel_names": {"0": "T1"},
    "labels": {"background": 0, "a": 1, "b": 2},
    "numTraining": 4,
    "file_ending": ".nii.gz",
}
TRAINING = (
    *("--split", "2,1,1", "--strategy", "sequential", "--iterations", "2", "--batch-size", "2"),
    *("--set", "network.widths=4,8", "loop.tensorboard=false", "-q"),
)
DEMO = (
    *("demo", "-d", "data", "-o", "study", "--split", "2,1,1", "--members", "1", "--loss", "ce"),
    *("--epochs", "1", "--iterations", "1", "--batch-size", "2", "--config", "demo.yaml", "-q"),
)
METHODS = ("temperature", "temperature-per-class", "vector", "dirichlet", "histogram", "isotonic")

Array = npt.NDArray[Any]


def save_nifti(path: Path, array: Array, affine: npt.NDArray[np.float64] = AFFINE) -> None:
    """Write a NIfTI file; its folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, affine), path)


def reference(case: str) -> Array:
    """Labels of a case, uint8 [X, Y, Z]: two boxes."""
    shift = CASES.index(case) % 2
    labels = np.zeros(SHAPE, np.uint8)
    labels[2 : 7 - shift, 2:7, :2] = 1
    labels[6:10, 5 - shift : 9, 1:] = 2
    return labels


def probabilities(case: str, fold: int) -> Array:
    """Of one fold for a case: float32 [C, X, Y, Z], near the reference."""
    rng = np.random.default_rng((fold, CASES.index(case)))
    logits = rng.normal(0, 1, (3, *SHAPE))
    logits += 2.0 * (reference(case) == np.arange(3)[:, None, None, None])
    p = np.exp(logits)
    return (p / p.sum(0)).astype(np.float32)


def write_npz(path: Path, p: Array, *, key: str = "probabilities") -> None:
    """nnU-Net's npz of [C, X, Y, Z]: stored as (C, Z, Y, X)."""
    np.savez_compressed(path, **{key: p.transpose(0, 3, 2, 1)})


def properties() -> dict[str, Any]:
    """What nnU-Net pickles beside the npz, of the SimpleITK reader."""
    return {
        "sitk_stuff": {
            "spacing": SPACING,
            "origin": (0.0, 0.0, 0.0),
            "direction": (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0),
        },
        "spacing": list(SPACING[::-1]),
    }


def write_json(path: Path, content: object) -> None:
    """Write JSON; the folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1))


def write_fold(folder: Path, fold: int) -> None:
    """A folder of nnU-Net's saved probabilities."""
    folder.mkdir(parents=True)
    write_json(folder / "dataset.json", DATASET_JSON)
    for case in FOLD_CASES:
        p = probabilities(case, fold)
        write_npz(folder / f"{case}.npz", p)
        save_nifti(folder / f"{case}.nii.gz", p.argmax(0).astype(np.uint8))
        (folder / f"{case}.pkl").write_bytes(pickle.dumps(properties()))


def build(folder: Path) -> None:
    """Make the world in an empty folder; runs fastcal's own commands for its runs and outputs."""
    folder.mkdir(parents=True, exist_ok=True)
    before = Path.cwd()
    os.chdir(folder)
    try:
        _inputs()
        _runs()
        _outputs()
    finally:
        os.chdir(before)


def run(*words: str) -> None:
    """Run a command that must succeed.

    Raises:
        RuntimeError: it did not; the message holds what it said.
    """
    from fastcal.cli import main

    said = io.StringIO()
    with redirect_stdout(io.StringIO()), redirect_stderr(said):
        code = main(list(words))
    if code:
        raise RuntimeError(f"fastcal {' '.join(words)}: exit code {code}: {said.getvalue()}")


def _inputs() -> None:
    for fold in range(2):
        write_fold(Path(f"folds/fold_{fold}"), fold)
    for case in FOLD_CASES:
        save_nifti(Path(f"labels/{case}.nii.gz"), reference(case))
    rng = np.random.default_rng(7)
    for case in CASES:
        image = (reference(case) * 50 + rng.normal(100, 5, SHAPE)).astype(np.float32)
        save_nifti(Path(f"data/imagesTr/{case}_0000.nii.gz"), image)
        save_nifti(Path(f"data/labelsTr/{case}.nii.gz"), reference(case))
        if case in FOLD_CASES:
            save_nifti(Path(f"images/{case}_0000.nii.gz"), image)
    write_json(Path("data/dataset.json"), DATASET_JSON)
    write_json(
        Path("split.json"), {"train": list(CASES[:2]), "val": [CASES[2]], "test": [CASES[3]]}
    )
    Path("train.yaml").write_text(
        "network:\n  name: UNet\n  preset: paper\n  widths: [4, 8]\n"
        "loss:\n  name: ce\n  options: {}\n"
        "loop:\n  max_epochs: 1\n  iterations_per_epoch: 2\n  tensorboard: false\n"
        "sampling:\n  batch_size: 2\n"
    )
    _downloads()
    Path("demo.yaml").write_text("network:\n  widths: [4, 8]\nloop:\n  tensorboard: false\n")


def _downloads() -> None:
    """Two patients of ACDC, two of M&Ms, two cases of the decathlon, as they are downloaded."""
    rng = np.random.default_rng(3)
    moving = rng.integers(0, 1000, (*SHAPE, 2)).astype(np.int16)
    for number in (1, 2):
        patient = Path(f"acdc/training/patient{number:03d}")
        name = f"A{number}B{number}C{number}"
        for frame in (1, 2):
            stem = patient / f"{patient.name}_frame{frame:02d}"
            save_nifti(stem.with_name(f"{stem.name}.nii.gz"), moving[..., frame - 1])
            save_nifti(stem.with_name(f"{stem.name}_gt.nii.gz"), reference(CASES[frame]))
        (patient / "Info.cfg").write_text("ED: 1\nES: 2\nGroup: NOR\nNbFrame: 2\n")
        place = Path(f"mnms/Training/Labeled/{name}")
        save_nifti(place / f"{name}_sa.nii.gz", moving)
        labels = np.stack([reference(CASES[frame]) for frame in (1, 2)], -1)
        save_nifti(place / f"{name}_sa_gt.nii.gz", labels)
        save_nifti(Path(f"msd/imagesTr/part_{number}.nii.gz"), moving[..., 0])
        save_nifti(Path(f"msd/labelsTr/part_{number}.nii.gz"), reference(CASES[number]))
    Path("mnms/table.csv").write_text(
        "External code,VendorName,Vendor,Centre,ED,ES\n"
        "A1B1C1,Siemens,A,1,0,1\nA2B2C2,Philips,B,2,0,1\n"
    )
    content = {
        "name": "Part",
        "modality": {"0": "MRI"},
        "labels": {"0": "background", "1": "a", "2": "b"},
        "numTraining": 2,
        "training": [
            {"image": f"./imagesTr/part_{k}.nii.gz", "label": f"./labelsTr/part_{k}.nii.gz"}
            for k in (1, 2)
        ],
        "test": [],
    }
    write_json(Path("msd/dataset.json"), content)


def _runs() -> None:
    run("train", "-d", "data", "-o", "run", "--members", "2", "--epochs", "1", *TRAINING)
    # Half trained: one epoch of two is done, no member has ended.
    shutil.copytree("run", "begun")
    shutil.rmtree("begun/member_01")
    config = json.loads(Path("begun/config.json").read_text())
    config["members"] = 1
    config["training"]["loop"]["max_epochs"] = 2
    write_json(Path("begun/config.json"), config)
    for ended in Path("begun").glob("member_*/member.json"):
        ended.unlink()
    # The layout of runs before safetensors.
    import torch
    from safetensors.torch import load_file

    shutil.copytree("run", "old_run")
    for weights in Path("old_run").glob("member_*/best.safetensors"):
        network = json.loads(Path("old_run/config.json").read_text())["network"]
        torch.save({"network": network, "model": load_file(weights)}, weights.with_name("best.pt"))
        weights.unlink()
    run(*DEMO)


def _outputs() -> None:
    folds = ("-i", "folds/fold_0", "folds/fold_1")
    run("ensemble", *folds, "-o", "done", "-g", "labels", "--save-probabilities", "-q")
    for part in range(2):
        split = ("--num-parts", "2", "--part-id", str(part))
        run("ensemble", *folds, "-o", "parts", "-g", "labels", *split, "-q")
    images = ("-i", "images", "-g", "labels")
    run("predict", "-m", "run", *images, "-o", "predicted", "--save-probabilities", "-q")
    for method in METHODS:
        # Of another fold than the one that apply reads: it warns of what it was fitted to.
        fit = ("-i", "folds/fold_1", "-g", "labels", "-o", f"calibrators/{method}.json")
        Path("calibrators").mkdir(exist_ok=True)
        run("recalibrate", "fit", *fit, "--method", method, "-q")
    one = ("-c", "calibrators/temperature.json", "-i", "folds/fold_0")
    run("recalibrate", "apply", *one, "-o", "applied", "-g", "labels", "-q")
    run("evaluate", "-g", "labels", "-p", "done", "-o", "summary.json", "-q")
    run("quality", "fit", "-i", "done", "-g", "labels", "-o", "quality.json")
    run("ood", "fit", "-i", "done", "--fpr", "0.5", "-o", "ood.json")
