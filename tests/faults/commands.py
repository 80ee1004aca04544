"""The command lines that kinds damage: each works on the undamaged world."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import torch

from .kinds import Command
from .world import DATASET_JSON, DEMO, FOLD_CASES, TRAINING, probabilities, save_nifti, write_json

_FOLDS = ("-i", "folds/fold_0", "folds/fold_1")


def no_images(folder: Path) -> None:
    """Geometry comes from the pkl alone."""
    for fold in folder.glob("folds/*"):
        for image in fold.glob("*.nii.gz"):
            image.unlink()


def arrays_as_npy(folder: Path) -> None:
    """npy in place of npz."""
    for path in folder.glob("folds/*/*.npz"):
        np.save(path.with_suffix(".npy"), np.load(path)["probabilities"])
        path.unlink()


def stacks(folder: Path) -> None:
    """4-D NIfTI in place of npz."""
    for fold in range(2):
        place = folder / f"folds/fold_{fold}"
        for case in FOLD_CASES:
            (place / f"{case}.npz").unlink()
            (place / f"{case}.pkl").unlink()
            p = np.ascontiguousarray(np.moveaxis(probabilities(case, fold), 0, -1))
            save_nifti(place / f"{case}.nii.gz", p)


def plain_nifti(folder: Path) -> None:
    """Reference and prediction without gzip."""
    import nibabel as nib

    for path in [*folder.glob("labels/*.nii.gz"), *folder.glob("folds/fold_0/*.nii.gz")]:
        nib.save(nib.load(path), path.with_name(path.name.removesuffix(".gz")))
        path.unlink()


def config_as_json(folder: Path) -> None:
    """The settings of training as JSON, which YAML includes."""
    content = {
        "network": {"name": "UNet", "preset": "paper", "widths": [4, 8]},
        "loop": {"max_epochs": 1, "iterations_per_epoch": 2, "tensorboard": False},
        "sampling": {"batch_size": 2},
    }
    write_json(folder / "train.json", content)


def folds_list(folder: Path) -> None:
    """nnU-Net's splits_final.json, a list of folds, beside the dataset."""
    folds = [
        {"train": ["case_a", "case_b", "case_c"], "val": ["case_d"]},
        {"train": ["case_a", "case_b", "case_d"], "val": ["case_c"]},
    ]
    write_json(folder / "data/splits_final.json", folds)


def finished_state_json(folder: Path) -> None:
    """The parts' states as JSON."""
    from fastcal import CalibrationStatistics

    for path in folder.glob("parts/calibration.part-*.npz"):
        CalibrationStatistics.load(path).save(folder / f"state_{path.name[17]}.json")


def calibrator_of(method: str) -> Command:
    """Apply one method's calibrator."""
    return Command(
        f"recalibrate apply ({method})",
        (
            *("recalibrate", "apply", "-c", f"calibrators/{method}.json", "-i", "folds/fold_0"),
            *("-o", "out", "-g", "labels", "-q"),
        ),
        ("folds", "labels", "calibrators"),
        "out",
    )


ENSEMBLE = Command(
    "ensemble",
    ("ensemble", *_FOLDS, "-o", "out", "-g", "labels", "-q"),
    ("folds", "labels"),
    "out",
)
ENSEMBLE_PKL = Command("ensemble", ENSEMBLE.argv, ENSEMBLE.needs, "out", no_images)
ENSEMBLE_NPY = Command("ensemble", ENSEMBLE.argv, ENSEMBLE.needs, "out", arrays_as_npy)
ENSEMBLE_4D = Command("ensemble", ENSEMBLE.argv, ENSEMBLE.needs, "out", stacks)
ENSEMBLE_AGAIN = Command(
    "ensemble again",
    ("ensemble", *_FOLDS, "-o", "done", "-g", "labels", "--save-probabilities", "-q"),
    ("folds", "labels", "done"),
    "done",
    resumes=True,
)
PREDICT = Command(
    "predict",
    ("predict", "-m", "run", "-i", "images", "-o", "out", "-g", "labels", "-q"),
    ("run", "images", "labels"),
    "out",
)
PREDICT_TEST = Command(
    "predict --cases val",
    ("predict", "-m", "run", "-i", "data/imagesTr", "-o", "out", "--cases", "val", "-q"),
    ("run", "data"),
    "out",
)
PREDICT_OLD = Command(
    "predict (best.pt)",
    ("predict", "-m", "old_run", "-i", "images", "-o", "out", "-g", "labels", "-q"),
    ("old_run", "images", "labels"),
    "out",
)
PREDICT_AGAIN = Command(
    "predict again",
    (
        *("predict", "-m", "run", "-i", "images", "-g", "labels", "-o", "predicted"),
        *("--save-probabilities", "-q"),
    ),
    ("run", "images", "labels", "predicted"),
    "predicted",
    resumes=True,
)
EVALUATE = Command(
    "evaluate",
    ("evaluate", "-g", "labels", "-p", "folds/fold_0", "-o", "scores.json", "-q"),
    ("folds", "labels"),
    "scores.json",
)
EVALUATE_PLAIN = Command("evaluate", EVALUATE.argv, EVALUATE.needs, "scores.json", plain_nifti)
FIT = Command(
    "recalibrate fit",
    ("recalibrate", "fit", "-i", "folds/fold_0", "-g", "labels", "-o", "fitted.json", "-q"),
    ("folds", "labels"),
    "fitted.json",
)
APPLY = calibrator_of("temperature")
APPLY_AGAIN = Command(
    "recalibrate apply again",
    (
        *("recalibrate", "apply", "-c", "calibrators/temperature.json", "-i", "folds/fold_0"),
        *("-o", "applied", "-g", "labels", "-q"),
    ),
    ("folds", "labels", "calibrators", "applied"),
    "applied",
    resumes=True,
)
MERGE = Command("merge", ("merge", "-i", "parts", "-o", "out"), ("parts",), "out")
MERGE_JSON = Command(
    "merge (json)",
    ("merge", "-i", "state_0.json", "state_1.json", "-o", "out"),
    ("parts",),
    "out",
    finished_state_json,
)
EXPORT = Command("export", ("export", "-m", "run", "-o", "out.ts"), ("run",), "out.ts")
TRAIN = Command(
    "train",
    ("train", "-d", "data", "-o", "out", "--members", "1", "--epochs", "1", *TRAINING),
    ("data",),
    "out",
)
TRAIN_SPLIT = Command(
    "train --split FILE",
    (
        *("train", "-d", "data", "-o", "out", "--members", "1", "--split", "split.json"),
        *("--config", "train.yaml", "--strategy", "sequential", "-q"),
    ),
    ("data", "split.json", "train.yaml"),
    "out",
)
TRAIN_CONFIG = Command(
    "train --config",
    (
        *("train", "-d", "data", "-o", "out", "--members", "1", "--split", "2,1,1"),
        *("--config", "train.yaml", "--strategy", "sequential", "-q"),
    ),
    ("data", "train.yaml"),
    "out",
)
TRAIN_JSON = Command(
    "train --config (json)",
    tuple(word.replace("train.yaml", "train.json") for word in TRAIN_CONFIG.argv),
    ("data",),
    "out",
    config_as_json,
)
TRAIN_FOLD = Command(
    "train --fold",
    (
        *("train", "-d", "data", "-o", "out", "--members", "1", "--fold", "0"),
        *("--config", "train.yaml", "--strategy", "sequential", "-q"),
    ),
    ("data", "train.yaml"),
    "out",
    folds_list,
)
TRAIN_AGAIN = Command(
    "train again",
    ("train", "-d", "data", "-o", "begun", "-q"),
    ("data", "begun"),
    "begun",
    resumes=True,
)
DEMO_DATASET = Command("demo", DEMO, ("data", "demo.yaml"), "study")
DEMO_AGAIN = Command("demo again", DEMO, ("data", "demo.yaml", "study"), "study", resumes=True)


def label_groups(folder: Path) -> None:
    """Two regions, one inside the other, with sigmoid channels."""
    content = DATASET_JSON | {
        "labels": {"background": 0, "whole": [1, 2], "core": [2]},
        "regions_class_order": [1, 2],
    }
    for fold in folder.glob("folds/fold_*"):
        write_json(fold / "dataset.json", content)
        for path in fold.glob("*.npz"):
            p = np.load(path)["probabilities"]
            np.savez_compressed(path, probabilities=np.stack([p[1] + p[2], p[2]]))


ENSEMBLE_GROUPS = Command(
    "ensemble (label groups)", ENSEMBLE.argv, ENSEMBLE.needs, "out", label_groups
)


def new_epochs(folder: Path) -> None:
    """Nothing is left of the members: only the folder's settings are."""
    for member in folder.glob("begun/member_*"):
        shutil.rmtree(member)


TRAIN_ANEW = Command(
    "train again (no member yet)", TRAIN_AGAIN.argv, TRAIN_AGAIN.needs, "begun", new_epochs, True
)


def read_json(path: Path) -> dict[str, object]:
    """A JSON object."""
    content = json.loads(path.read_text())
    assert isinstance(content, dict)
    return content


def tensors(path: Path) -> dict[str, torch.Tensor]:
    """Of a safetensors file."""
    from safetensors.torch import load_file

    return dict(load_file(path))


_SCORED = ("done", "labels")
QUALITY_FIT = Command(
    "quality fit",
    ("quality", "fit", "-i", "done", "-g", "labels", "-o", "fitted.json", "-q"),
    (*_SCORED, "images", "summary.json"),
    "fitted.json",
)
QUALITY_SUMMARY = Command(
    "quality fit --summary",
    ("quality", "fit", "-i", "done", "--summary", "summary.json", "-o", "fitted.json"),
    ("done", "summary.json"),
    "fitted.json",
)
QUALITY_PREDICT = Command(
    "quality predict",
    ("quality", "predict", "-c", "quality.json", "-i", "done", "-o", "out"),
    ("done", "labels", "quality.json"),
    "out",
)
QUALITY_EVALUATE = Command(
    "quality evaluate",
    (
        *("quality", "evaluate", "-i", "done", "-g", "labels", "-c", "quality.json"),
        *("-o", "out", "--resamples", "20", "-q"),
    ),
    (*_SCORED, "quality.json"),
    "out",
)
QUALITY_MAPS = Command(
    "quality evaluate --maps",
    (
        *("quality", "evaluate", "-i", "done", "-g", "labels", "-o", "out"),
        *("--resamples", "20", "--map", "entropy", "-q"),
    ),
    _SCORED,
    "out",
)
OOD_FIT = Command(
    "ood fit",
    ("ood", "fit", "-i", "done", "--fpr", "0.5", "-o", "fitted.json"),
    (*_SCORED, "images"),
    "fitted.json",
)
OOD_IMAGES = Command(
    "ood fit --images",
    (
        *("ood", "fit", "--images", "data/imagesTr", "-m", "run", "--fpr", "0.5"),
        *("-o", "fitted.json"),
    ),
    ("data", "run"),
    "fitted.json",
)
OOD_PREDICT = Command(
    "ood predict",
    ("ood", "predict", "-c", "ood.json", "-i", "done", "-o", "out"),
    ("done", "ood.json"),
    "out",
)
OOD_EVALUATE = Command(
    "ood evaluate",
    (
        *("ood", "evaluate", "-c", "ood.json", "-i", "done", "--ood", "done", "-o", "out"),
        *("--resamples", "20"),
    ),
    ("done", "labels", "ood.json"),
    "out",
)
STATUS = Command(
    "status", ("status", "-p", "done"), ("done", "labels", "ood.json", "run", "folds"), "nothing"
)


def converted(folder: Path) -> None:
    """A conversion that is done."""
    from fastcal.convert import convert_dataset

    convert_dataset("msd", folder / "msd", folder / "made")


CONVERT_ACDC = Command("convert acdc", ("convert", "acdc", "acdc", "out", "-q"), ("acdc",), "out")
CONVERT_MNMS = Command("convert mnms", ("convert", "mnms", "mnms", "out", "-q"), ("mnms",), "out")
CONVERT_MSD = Command("convert msd", ("convert", "msd", "msd", "out", "-q"), ("msd",), "out")
CONVERT_AGAIN = Command(
    "convert again", ("convert", "msd", "msd", "made", "-q"), ("msd",), "made", converted, True
)
