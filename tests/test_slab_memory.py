"""The bound of ``--memory`` holds: the peak of the resident memory, measured."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from slab_files import save

from fastcal.core.doors import ZipWriter, npy_header
from fastcal.data import nifti


def large_members(folder: Path, shape: tuple[int, int, int, int], members: int) -> list[Path]:
    """Write members ``[C, X, Y, Z]`` that compress to next to nothing, without holding one."""
    classes, x, y, z = shape
    like = nifti.Geometry.from_affine(np.eye(4), (x, y, z))
    for number in range(members):
        place = folder / f"m{number}"
        place.mkdir(parents=True)
        planes = np.full((classes, y, x), 0.1 / (classes - 1), np.float32)
        planes[0] = 0.9
        planes[:2, y // 4 : y // 2, x // 4 : x // 2] = planes[1::-1, :1, :1]
        with (place / "a.npz").open("wb") as file:
            writer = ZipWriter(file)
            with writer.member("probabilities.npy") as member:
                member.write(npy_header((classes, z, y, x), planes.dtype))
                for plane in planes:
                    for _ in range(z):
                        member.write(plane)
            writer.end()
        nifti.write(place / "a.nii.gz", np.zeros((x, y, z), np.uint8), like, dtype="int")
    return sorted(folder.glob("m?"))


def peaks(*words: str) -> list[int]:
    """Peaks of the resident memory of a command: after its imports, and at its end."""
    script = Path(__file__).with_name("memory_run.py")
    done = subprocess.run(
        [sys.executable, str(script), *words],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    lines = done.stdout.splitlines()
    return [int(lines[0]), int(lines[-1])]


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc/self/status")
@pytest.mark.parametrize(
    ("shape", "members", "beside"),
    [
        ((3, 96, 96, 300), 2, 80),
        pytest.param((4, 240, 240, 320), 5, 200, marks=pytest.mark.slow),
        pytest.param((104, 96, 96, 160), 2, 200, marks=pytest.mark.slow),
    ],
)
def test_the_peak_of_the_memory_stays_below_its_bound(
    tmp_path: Path, shape: tuple[int, int, int, int], members: int, beside: int
) -> None:
    """Members of 66 MB, 1.5 GB and 1.2 GB, with so many MiB beside what the imports take."""
    folders = large_members(tmp_path, shape, members)
    imported, _ = peaks()
    bound = imported // 2**20 + beside
    words = ("ensemble", "-i", *map(str, folders), "-o", str(tmp_path / "out"), "-q")
    more = ("--maps", "entropy", "mean", "--allow-duplicates", "--memory", f"{bound}M")
    _, peak = peaks(*words, *more)
    assert peak <= bound * 2**20
    labels = nifti.read(tmp_path / "out/a.nii.gz").data
    expected = np.zeros(shape[1:], np.uint8)
    expected[shape[1] // 4 : shape[1] // 2, shape[2] // 4 : shape[2] // 2] = 1
    assert np.array_equal(labels, expected)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc/self/status")
@pytest.mark.parametrize("kind", ["npy", "stored npz", "npz", "nii", "nii.gz", "zarr"])
def test_the_peak_stays_below_its_bound_in_every_form_with_labels_and_case_after_case(
    tmp_path: Path, kind: str
) -> None:
    """While a case is combined, the one before it is written. Two members of 50 MB each."""
    shape, rng = (96, 96, 450), np.random.default_rng(0)
    labels = np.zeros(shape, np.uint8)
    labels[24:48, 24:48] = 1
    labels[60:70, 60:70, ::7] = 2
    values = np.eye(3, dtype=np.float32)[labels].transpose(3, 0, 1, 2) * np.float32(0.7) + 0.1
    like = nifti.Geometry.from_affine(np.eye(4), shape)
    (tmp_path / "labels").mkdir()
    names = "ab"
    for member in range(2):
        folder = tmp_path / f"m{member}"
        noise = rng.uniform(-0.05, 0.05, shape).astype(np.float32)
        made = values + np.stack([noise, -noise, np.zeros_like(noise)])
        save(folder, kind, made, like, (3, 16, 96, 96))
        for name in names[1:]:
            for path in folder.glob("a.*"):
                copy = shutil.copytree if path.is_dir() else shutil.copyfile
                copy(path, folder / path.name.replace("a.", f"{name}.", 1))
    for name in names:
        nifti.write(tmp_path / f"labels/{name}.nii.gz", labels, like, dtype="int")
    imported, _ = peaks()
    bound = imported // 2**20 + 90
    words = ("ensemble", "-i", *map(str, sorted(tmp_path.glob("m?"))), "-q", "--save-probabilities")
    words += ("-o", str(tmp_path / "out"), "-g", str(tmp_path / "labels"), "--fine-bins", "64")
    _, peak = peaks(*words, "--memory", f"{bound}M")
    assert peak <= bound * 2**20
    for name in names:
        assert np.array_equal(nifti.read(tmp_path / f"out/{name}.nii.gz").data, labels)
