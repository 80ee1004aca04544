"""Ensembling saved probabilities of one case, compared with inflating its files alone.

    python -m benchmarks.bench_files --quick
    python -m benchmarks.bench_files --threads 2 -o benchmarks/results

Five members of one case lie in nnU-Net's compressed npz files that were just written, so that the
cache is warm. The rows are: inflating the members one after another into memory and nothing else;
`fastcal.predict.ensemble_folders`, which writes the label map and the entropy map, without and
with the scores of segments; nnU-Net's own way, which writes the label map (`average_probabilities`
and `merge_files` of ``nnunetv2/ensembling/ensemble.py``, version 2.6, written out here, since
nnunetv2 is not a dependency); and a script of NumPy and nibabel that writes both maps. Label maps
and entropies are checked against float64 before a time is shown.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks import harness
from benchmarks.harness import Candidate, Row, Timing
from fastcal.bench.volumes import make_case
from fastcal.core.doors import deflate, open_npz
from fastcal.data import nifti, nnunet
from fastcal.predict import ensemble_folders

CASE = "case_1"
TOLERANCE = 1e-5
"""Of the entropy in nats, which float32 sums of float32 probabilities reach."""


@dataclass(frozen=True)
class Settings:
    """Settings of a run; a case of BraTS by default."""

    shape: tuple[int, int, int] = (240, 240, 155)
    classes: int = 4
    members: int = 5
    rounds: int = 3
    threads: int | None = None


@dataclass(frozen=True)
class Case:
    """The files of a case, and what an ensemble of them must give."""

    folders: list[Path]
    out: Path
    labels: NDArray[Any]
    entropy: NDArray[Any]
    """float64."""
    decided: NDArray[Any]
    """Voxels in which float32 cannot choose another class."""
    n_bytes: int
    """Of the probabilities in memory."""
    compressed: int
    """Of the files."""

    @property
    def files(self) -> list[Path]:
        return [folder / f"{CASE}.npz" for folder in self.folders]

    def error(self, folder: Path, *, entropy: bool) -> float:
        """Give the largest error of the entropy; infinity where a label is wrong."""
        labels = np.asarray(nib.load(folder / f"{CASE}.nii.gz").dataobj)  # type: ignore[attr-defined]
        if not np.array_equal(labels[self.decided], self.labels[self.decided]):
            return float("inf")
        if not entropy:
            return 0.0
        found = np.asarray(nib.load(folder / f"entropy/{CASE}.nii.gz").dataobj)  # type: ignore[attr-defined]
        return float(np.abs(found - self.entropy).max())


def written(folder: Path, settings: Settings) -> Case:
    """Write the members as nnU-Net does, and compute what their ensemble is in float64."""
    made = make_case(settings.members, settings.classes, settings.shape, background=0.95)
    like = nifti.Geometry.from_affine(np.eye(4), settings.shape)
    folders = []
    mean = np.zeros((settings.classes, *settings.shape))
    for number, logits in enumerate(made.members):
        probs = logits[0].softmax(0).numpy()
        mean += probs
        place = folder / f"fold_{number}"
        place.mkdir()
        # nnU-Net writes with NumPy, thus zlib.
        np.savez_compressed(place / f"{CASE}.npz", probabilities=probs.transpose(0, 3, 2, 1))
        nnunet.write_properties(place / f"{CASE}.pkl", like, ".nii.gz")
        nifti.write(place / f"{CASE}.nii.gz", probs.argmax(0), like, dtype="int")
        folders.append(place)
    mean /= settings.members
    ordered = np.sort(mean, 0)
    entropy = -(mean * np.log(np.maximum(mean, np.finfo(np.float64).tiny))).sum(0)
    n_bytes = 4 * mean.size * settings.members
    compressed = sum((place / f"{CASE}.npz").stat().st_size for place in folders)
    decided = ordered[-1] - ordered[-2] > 1e-6
    return Case(folders, folder / "out", mean.argmax(0), entropy, decided, n_bytes, compressed)


def inflate(case: Case) -> None:
    """Inflate the members one after another with fastcal's reader, and do nothing else."""
    for file in case.files:
        with open_npz(file) as arrays:
            arrays.array("probabilities")


def inflate_with_numpy(case: Case) -> None:
    """The same with NumPy."""
    for file in case.files:
        np.load(file)["probabilities"]


def fastcal_ensemble(case: Case, *, segments: bool) -> Path:
    """Run fastcal's ensemble."""
    shutil.rmtree(case.out, ignore_errors=True)
    ensemble_folders(case.folders, case.out, segments=segments)
    return case.out


def average_probabilities(files: Sequence[Path]) -> NDArray[Any]:
    """Average as nnU-Net's function of this name does."""
    average: NDArray[Any] | None = None
    for file in files:
        if average is None:
            average = np.load(file)["probabilities"]
            if average.dtype != np.float32:
                average = average.astype(np.float32)
        else:
            average += np.load(file)["probabilities"]
    assert average is not None
    average /= len(files)
    return average


def nnunet_ensemble(case: Case) -> Path:
    """Do what nnU-Net's ``merge_files`` does for classes that exclude each other."""
    import SimpleITK as sitk

    shutil.rmtree(case.out, ignore_errors=True)
    case.out.mkdir()
    probabilities = torch.from_numpy(average_probabilities(case.files))
    segmentation = probabilities.argmax(0).numpy()
    image = sitk.GetImageFromArray(segmentation.astype(np.uint8))
    image.SetDirection((-1, 0, 0, 0, -1, 0, 0, 0, 1))  # the identity of NIfTI, in LPS
    sitk.WriteImage(image, str(case.out / f"{CASE}.nii.gz"), useCompression=True)
    return case.out


def numpy_script(case: Case) -> Path:
    """What one would write by hand for both maps."""
    shutil.rmtree(case.out, ignore_errors=True)
    (case.out / "entropy").mkdir(parents=True)
    mean = np.mean([np.load(file)["probabilities"] for file in case.files], axis=0)
    entropy = -(mean * np.log(np.maximum(mean, np.finfo(np.float32).tiny))).sum(0)
    for place, values in {"entropy/": entropy, "": mean.argmax(0).astype(np.uint8)}.items():
        image = nib.Nifti1Image(values.transpose(2, 1, 0), np.eye(4))  # type: ignore[no-untyped-call]
        nib.save(image, case.out / f"{place}{CASE}.nii.gz")
    return case.out


def candidates(case: Case) -> list[Candidate]:
    """List what is timed."""

    def judged(name: str, run: Callable[[Case], Path], *, entropy: bool = True) -> Candidate:
        def error(result: object) -> float:
            assert isinstance(result, Path)
            return case.error(result, entropy=entropy)

        return Candidate(name, lambda: run(case), error, TOLERANCE)

    return [
        Candidate("inflating alone", lambda: inflate(case)),
        Candidate("inflating with NumPy", lambda: inflate_with_numpy(case)),
        judged("fastcal", lambda one: fastcal_ensemble(one, segments=False)),
        judged("fastcal with segments", lambda one: fastcal_ensemble(one, segments=True)),
        judged("nnU-Net (labels alone)", nnunet_ensemble, entropy=False),
        judged("NumPy script", numpy_script),
    ]


def run(settings: Settings) -> tuple[list[Row], list[str]]:
    """Time everything, and return the rows with their notes."""
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    with tempfile.TemporaryDirectory() as name:
        case = written(Path(name), settings)
        timings = harness.measure(candidates(case), rounds=settings.rounds)
    alone = timings.pop("inflating alone")
    rows = []
    for wanted in ("fastcal", "fastcal with segments"):
        others = {key: one for key, one in timings.items() if not key.startswith("fastcal")}
        rows.append(Row(wanted, timings[wanted], alone, others))
    return rows, notes(case, alone, timings)


def notes(case: Case, alone: Timing, timings: dict[str, Timing]) -> list[str]:
    """Say what the numbers are of."""
    rate = case.n_bytes / alone.median / 1e6
    slow = timings["inflating with NumPy"]
    return [
        f"{len(case.folders)} members of {case.n_bytes / 1e6 / len(case.folders):.0f} MB, "
        f"{case.compressed / 1e6:.0f} MB compressed together. The floor is inflating alone with "
        f"{deflate.engine()}: {rate:.0f} MB/s ({alone.times_faster_than(slow):.1f} times NumPy).",
        f"{torch.get_num_threads()} threads. nnU-Net writes no uncertainty.",
    ]


def main() -> None:
    """Run the benchmark, print its table, and write it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a small volume")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--rounds", type=int, default=Settings.rounds)
    parser.add_argument("-o", "--output", type=Path, metavar="FOLDER")
    asked = parser.parse_args()
    settings = Settings(threads=asked.threads, rounds=asked.rounds)
    if asked.quick:
        settings = replace(settings, shape=(48, 48, 32), members=3)
    rows, said = run(settings)
    title = "Ensembling saved probabilities"
    harness.show(title, rows, said)
    if asked.output is not None:
        harness.write("files", title, asdict(settings), rows, said, folder=asked.output)


if __name__ == "__main__":
    main()
