"""Where the time of evaluating a test set goes: reading files, statistics, overlap and surfaces.

    python -m benchmarks.bench_evaluation --quick
    python -m benchmarks.bench_evaluation --cases 10

Cases are label maps and nnU-Net's compressed probabilities in files that were just written, so that
the cache is warm. Shares are of the processor time of `fastcal.evaluate.evaluate_folder`, so that
other programs on the machine change them little. Files are read in another thread while the case
before is scored, so each part is timed by its own thread, and torch has one. The statistics are
checked against those counted from the same numbers in memory before a share is shown.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch

from benchmarks.harness import RESULTS
from fastcal import CalibrationStatistics
from fastcal.bench.machine import headline, machine
from fastcal.bench.volumes import make_case
from fastcal.core import atomic
from fastcal.data import nifti, predictions
from fastcal.evaluate import evaluate_folder
from fastcal.evaluate import scoring as evaluation

PARTS: dict[str, tuple[Any, str]] = {
    "reading probabilities": (predictions.PredictionFolder, "probabilities"),
    "reading label maps": (evaluation.LabelMaps, "read"),
    "statistics": (evaluation, "count_case"),
    "label map against probabilities": (evaluation, "contradicted"),
    "digests of the files": (evaluation.Scoring, "case_record"),
    "keeping what was scored": (evaluation.Work, "_keep"),
    "overlap": (evaluation, "overlap"),
    "surface distances": (evaluation, "surface_scores"),
}
"""What is timed: the owner and the name of the function that does it."""


@dataclass(frozen=True)
class Settings:
    """Settings of a run."""

    cases: int = 6
    classes: int = 4
    shape: tuple[int, int, int] = (160, 160, 64)
    surface: bool = False


def written(folder: Path, settings: Settings) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Write the cases, and return probabilities ``[1, C, *S]`` and targets of each."""
    found = {}
    labels, predicted = folder / "labels", folder / "predicted"
    for place in (labels, predicted):
        place.mkdir()
    names = {"background": 0, **{f"structure_{k}": k for k in range(1, settings.classes)}}
    atomic.write_json(labels / "dataset.json", {"channel_names": {"0": "MR"}, "labels": names,
                      "file_ending": ".nii.gz", "numTraining": settings.cases})  # fmt: skip
    for number in range(settings.cases):
        case = make_case(1, settings.classes, settings.shape, background=0.95, seed=number)
        probs, target = case.members[0].softmax(1), case.target
        name = f"case_{number:03d}"
        like = nifti.Geometry.from_affine(np.diag([1.0, 1.0, 3.0, 1.0]), settings.shape)
        truth = target[0].to(torch.uint8).numpy()
        nifti.write(labels / f"{name}.nii.gz", truth, like, dtype="int")
        label = probs[0].argmax(0).to(torch.uint8).numpy()
        nifti.write(predicted / f"{name}.nii.gz", label, like, dtype="int")
        predictions.write_npz(predicted / f"{name}.npz", probs[0].numpy())
        found[name] = (probs, target)
    return found


@contextmanager
def timed(seconds: dict[str, float]) -> Iterator[None]:
    """Add the processor time of every part to ``seconds``."""
    with ExitStack() as patches:
        for name, (owner, function) in PARTS.items():
            wrapped = _wrapped(getattr(owner, function), name, seconds)
            patches.enter_context(mock.patch.object(owner, function, wrapped))
        yield


def _wrapped(function: Callable[..., Any], name: str, seconds: dict[str, float]) -> Any:
    def call(*args: Any, **kwargs: Any) -> Any:
        start = time.thread_time()
        try:
            return function(*args, **kwargs)
        finally:
            seconds[name] += time.thread_time() - start

    return call


def run(settings: Settings) -> dict[str, Any]:
    """Evaluate the cases, check the statistics, and return the seconds of each part."""
    torch.set_num_threads(1)  # so that the time of a thread is all of its work
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        held = written(folder, settings)
        seconds: dict[str, float] = defaultdict(float)
        paths = (folder / "labels", folder / "predicted", folder / "summary.json")
        evaluate_folder(*paths, surface=settings.surface)  # loads code and files
        with timed(seconds):
            start = time.process_time()
            summary = evaluate_folder(*paths, surface=settings.surface)
            total = time.process_time() - start
        expected = CalibrationStatistics(settings.classes)
        for probs, target in held.values():
            expected.update(probs, target)
        ece = summary["calibration"]["pooled"]["ECE"]
        if ece != expected.ece():
            raise SystemExit(f"ECE {ece} is not {expected.ece()}")
        size = sum(file.stat().st_size for file in (folder / "predicted").iterdir())
    parts = dict(seconds)
    parts["everything else"] = total - sum(parts.values())
    return {"seconds": parts, "total": total, "megabytes": size / 1e6}


def markdown(results: list[tuple[Settings, dict[str, Any]]], about: dict[str, Any]) -> str:
    """Return the table of shares."""
    lines = ["# Evaluating a test set", "", headline(about), ""]
    for settings, found in results:
        extents = " x ".join(map(str, settings.shape))
        lines += [
            f"{settings.cases} cases of {extents} voxels, {settings.classes} classes, "
            f"{found['megabytes']:.0f} MB of predictions, "
            f"{'with' if settings.surface else 'without'} surface distances:",
            "",
            "| part | processor time a case | share |",
            "|---|---|---|",
        ]
        for name, value in found["seconds"].items():
            each = 1e3 * value / settings.cases
            lines.append(f"| {name} | {each:.0f} ms | {100 * value / found['total']:.1f} % |")
        lines += [f"| total | {1e3 * found['total'] / settings.cases:.0f} ms | |", ""]
    return "\n".join(lines)


def main() -> None:
    """Run the benchmark, print its table, and write it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--cases", type=int, default=Settings.cases)
    parser.add_argument("--quick", action="store_true", help="small volumes; nothing is written")
    asked = parser.parse_args()
    shape = (48, 48, 16) if asked.quick else Settings.shape
    results = []
    for surface in (False, True):
        settings = Settings(cases=asked.cases, shape=shape, surface=surface)
        results.append((settings, run(settings)))
    about = machine()
    text = markdown(results, about)
    print(text)
    if not asked.quick:
        atomic.write_text(RESULTS / "evaluation.md", text)
        rows = [{**asdict(settings), **found} for settings, found in results]
        (RESULTS / "evaluation.json").write_text(
            json.dumps({"machine": about, "rows": rows}, indent=2) + "\n"
        )


if __name__ == "__main__":
    main()
