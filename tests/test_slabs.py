"""Members larger than memory: the same files, slab by slab."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cohort import files_in
from slab_files import LIKE, SHAPE, save

from fastcal.cases import slabs
from fastcal.core import atomic
from fastcal.core.errors import DataError
from fastcal.data import nifti, stored
from fastcal.data.predictions import PredictionFolder
from fastcal.predict import ensemble_folders
from fastcal.recalibrate import apply_folders, fit_folders
from fastcal.segments.component_windows import ComponentCounter
from fastcal.segments.components import count_components
from fastcal.segments.patches import patch_maxima

MEMORY = 1 << 33
MAPS = ("entropy", "variance", "mutual_information", "mean")


def drawn(classes: int = 4, members: int = 3) -> tuple[np.ndarray, list[np.ndarray]]:
    """Labels, and probabilities of members with structures of several components."""
    generator = np.random.default_rng(7)
    places = np.indices(SHAPE)
    logits = np.zeros((classes, *SHAPE))
    for k in range(1, classes):
        for centre in generator.uniform(2, 11, (3, 3)) + np.array([0, 0, 5 * k]):
            near = ((places - centre[:, None, None, None]) ** 2).sum(0)
            logits[k] += 6 * np.exp(-near / 20)
    logits[0] = 1.5
    noisy = [logits + generator.normal(0, 0.6, logits.shape) for _ in range(members + 1)]
    found = []
    for one in noisy[1:]:
        raised = np.exp(one)
        found.append((raised / raised.sum(0)).astype(np.float32))
    return noisy[0].argmax(0), found


@pytest.fixture
def room(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], list[int]]:
    """Leave so many bytes for slabs and windows, and collect the extents of the slabs."""

    def leave(n_bytes: float) -> list[int]:
        slices: list[int] = []
        combine = slabs.combine

        def counted(*args: Any, **kwargs: Any) -> Any:
            found = combine(*args, **kwargs)
            slices.append(int(found.statistics.label.shape[-1]))
            return found

        monkeypatch.setattr(slabs, "SPARE", 0)
        monkeypatch.setattr(stored.Inflated, "fixed_bytes", 0)
        monkeypatch.setattr(slabs, "resident_bytes", lambda: MEMORY - int(n_bytes))
        monkeypatch.setattr(slabs, "combine", counted)
        return slices

    return leave


def differing(one: Path, other: Path) -> list[str]:
    a, b = files_in(one), files_in(other)
    return [name for name in sorted(a.keys() | b.keys()) if a.get(name) != b.get(name)]


@pytest.mark.parametrize("kinds", [("npz", "npy", "nii.gz"), ("nii", "zarr", "stored npz")])
def test_slabs_make_the_files_of_whole_cases(
    tmp_path: Path, room: Callable[[float], list[int]], kinds: tuple[str, ...]
) -> None:
    labels, members = drawn()
    folders = [tmp_path / f"m{number}" for number in range(3)]
    for folder, kind, values in zip(folders, kinds, members, strict=True):
        save(folder, kind, values)
    (tmp_path / "labels").mkdir()
    nifti.write(tmp_path / "labels/a.nii.gz", labels, LIKE, dtype="int")
    options: dict[str, Any] = {"labels": tmp_path / "labels", "maps": MAPS, "fine_bins": 64}
    options |= {"save_probabilities": True, "weights": [1.0, 0.5, 2.0], "dtype": "uint8"}
    ensemble_folders(folders, tmp_path / "whole", **options)
    slices = room(0.7e6)
    ensemble_folders(folders, tmp_path / "slabs", memory=MEMORY, **options)
    assert len(slices) > 1
    assert sum(slices) == SHAPE[2]
    assert differing(tmp_path / "whole", tmp_path / "slabs") == []


@pytest.mark.parametrize("dtype", ["int", "float32"])
def test_labels_are_read_slab_by_slab_and_checked(
    tmp_path: Path,
    room: Callable[[float], list[int]],
    monkeypatch: pytest.MonkeyPatch,
    dtype: str,
) -> None:
    labels, members = drawn(members=1)
    save(tmp_path / "m", "npz", members[0])
    (tmp_path / "labels").mkdir()
    path = tmp_path / "labels/a.nii.gz"
    nifti.write(path, labels, LIKE, dtype=dtype)
    ensemble_folders([tmp_path / "m"], tmp_path / "whole", labels=tmp_path / "labels")

    def read(path: Path) -> None:
        raise AssertionError(f"{path} was read as a whole")

    monkeypatch.setattr("fastcal.cases.reference.read_labels", read)
    slices = room(0.7e6)
    slabbed: dict[str, Any] = {"labels": tmp_path / "labels", "memory": MEMORY}
    ensemble_folders([tmp_path / "m"], tmp_path / "slabs", **slabbed)
    assert len(slices) > 1
    assert differing(tmp_path / "whole", tmp_path / "slabs") == []
    labels[3, 4, 27] = 9
    path.unlink()
    nifti.write(path, labels, LIKE, dtype=dtype)
    message = r"labels/a\.nii\.gz: labels must be from 0 to 3, got 9"
    with pytest.raises(DataError, match=message):
        ensemble_folders([tmp_path / "m"], tmp_path / "refused", **slabbed)
    assert list(files_in(tmp_path / "refused")) == ["prediction.json"]


def test_slabs_of_label_groups_with_regions_are_those_of_whole_cases(
    tmp_path: Path, room: Callable[[float], list[int]]
) -> None:
    labels, members = drawn(classes=3)
    described = {
        "channel_names": {"0": "MR"},
        "labels": {"background": 0, "whole": [1, 2], "core": [2]},
        "regions_class_order": [1, 2],
        "file_ending": ".nii.gz",
        "numTraining": 1,
    }
    for number, values in enumerate(members):
        save(tmp_path / f"m{number}", "npz", np.stack([values[1:].sum(0), values[2]]))
        nifti.write(tmp_path / f"m{number}/a.nii.gz", labels, LIKE, dtype="int")
    atomic.write_json(tmp_path / "dataset.json", described)
    (tmp_path / "labels").mkdir()
    nifti.write(tmp_path / "labels/a.nii.gz", labels, LIKE, dtype="int")
    folders = sorted(tmp_path.glob("m?"))
    options: dict[str, Any] = {"labels": tmp_path / "labels", "regions": ["band:3", "box"]}
    options["dataset_json"] = tmp_path / "dataset.json"
    ensemble_folders(folders, tmp_path / "whole", **options)
    slices = room(0.7e6)
    ensemble_folders(folders, tmp_path / "slabs", memory=MEMORY, **options)
    assert len(slices) > 1
    assert differing(tmp_path / "whole", tmp_path / "slabs") == []


@pytest.mark.filterwarnings("ignore:.*was fitted to these predictions")
@pytest.mark.parametrize("method", ["temperature", "dirichlet"])
def test_calibrated_slabs_are_those_of_whole_cases(
    tmp_path: Path, room: Callable[[float], list[int]], method: str
) -> None:
    labels, members = drawn(members=1)
    save(tmp_path / "m", "nii.gz", members[0])
    (tmp_path / "labels").mkdir()
    nifti.write(tmp_path / "labels/a.nii.gz", labels, LIKE, dtype="int")
    made = fit_folders([tmp_path / "m"], tmp_path / "labels", tmp_path / "c.json", method=method)
    apply_folders(made.out, [tmp_path / "m"], tmp_path / "whole")
    slices = room(0.7e6)
    apply_folders(made.out, [tmp_path / "m"], tmp_path / "slabs", memory=MEMORY)
    assert len(slices) > 1
    assert differing(tmp_path / "whole", tmp_path / "slabs") == []


KINDS = ("npz", "stored npz", "npy", "big-endian npy", "Fortran npy", "zarr", "nii", "nii.gz")


@pytest.mark.parametrize("kind", [*KINDS, "scaled nii.gz"])
def test_slabs_of_a_file_are_parts_of_what_is_read_as_a_whole(tmp_path: Path, kind: str) -> None:
    _, (values,) = drawn(members=1)
    save(tmp_path / "m", kind, values)
    folder = PredictionFolder(tmp_path / "m")
    assert folder.cases() == ["a"]
    whole, stack = folder.probabilities("a").data, folder.stack("a")
    assert stack.shape == whole.shape == values.shape
    for step in (1, 5, SHAPE[2]):
        cuts = [(at, min(at + step, SHAPE[2])) for at in range(0, SHAPE[2], step)]
        parts = [piece.data for piece in stack.pieces(cuts)]
        assert parts[0].dtype == whole.dtype
        assert np.array_equal(np.concatenate(parts, 3), whole)


def test_zarr_that_is_damaged_of_version_2_or_holds_a_pipe_is_refused(tmp_path: Path) -> None:
    zarr = pytest.importorskip("zarr")
    _, (values,) = drawn(members=1)
    save(tmp_path / "m", "zarr", values)
    chunk = next(path for path in (tmp_path / "m/a.zarr/c").rglob("*") if path.is_file())
    whole = chunk.read_bytes()
    chunk.write_bytes(whole[:9])
    with pytest.raises(DataError, match=r"a\.zarr: damaged"):
        PredictionFolder(tmp_path / "m").probabilities("a")
    chunk.unlink()
    os.mkfifo(chunk)
    with pytest.raises(DataError, match="must be a regular file"):
        PredictionFolder(tmp_path / "m").probabilities("a")
    chunk.unlink()
    described = tmp_path / "m/a.zarr/zarr.json"
    described.write_text(described.read_text().replace("29", "2900000000"))
    with pytest.raises(DataError, match=r"a\.zarr: the array must fit the memory"):
        PredictionFolder(tmp_path / "m").probabilities("a")
    old = zarr.create_array(
        store=str(tmp_path / "old/a.zarr"), shape=(4, 3, 3, 3), dtype="f4", zarr_format=2
    )
    old[:] = 0.25
    with pytest.raises(DataError, match=r"a\.zarr: "):
        PredictionFolder(tmp_path / "old").probabilities("a")


def test_slabs_of_turned_and_cropped_arrays_lie_where_the_whole_does(tmp_path: Path) -> None:
    _, (values,) = drawn(members=1)
    # What nnU-Net's reader had turned to RAS: the image's axes are z, -x, y of the array's.
    original = np.array([[0, -1, 0, 12], [0, 0, 1.5, 2], [2, 0, 0, 3], [0, 0, 0, 1]], float)
    turned = np.diag([1.0, 1.5, 2.0, 1.0])
    turned[:3, 3] = (0, 2, 3)
    save(tmp_path / "turned", "npz", values)
    stuff = {"original_affine": original, "reoriented_affine": turned}
    save(tmp_path / "cropped", "npz", values)
    box = {
        "crop_bbox": [[2, 31], [1, 18], [0, 13]],
        "original_size_of_raw_data": np.array([35, 18, 14]),
        **{"itk_spacing": (1, 1, 1), "itk_origin": (0, 0, 0), "itk_direction": np.eye(3).ravel()},
    }
    for name, content in {"turned": {"nibabel_stuff": stuff}, "cropped": box}.items():
        with (tmp_path / name / "a.pkl").open("wb") as file:
            pickle.dump(content, file)
        folder = PredictionFolder(tmp_path / name)
        whole, stack = folder.probabilities("a").data, folder.stack("a")
        axis = stack.view.axis
        extent = whole.shape[1 + axis]
        cuts = [(at, min(at + 3, extent)) for at in range(0, extent, 3)]
        parts = [piece.data for piece in stack.pieces(cuts)]
        found = np.concatenate(parts[::-1] if stack.view.backwards else parts, 1 + axis)
        assert np.array_equal(found, whole)
        assert (axis == 2) == (name == "cropped")


def test_turned_members_make_the_files_of_whole_cases(
    tmp_path: Path, room: Callable[[float], list[int]]
) -> None:
    _, members = drawn()
    original = np.array([[0, -1, 0, 12], [0, 0, 1.5, 2], [2, 0, 0, 3], [0, 0, 0, 1]], float)
    turned = np.diag([1.0, 1.5, 2.0, 1.0])
    turned[:3, 3] = (0, 2, 3)
    stuff = {"original_affine": original, "reoriented_affine": turned}
    for number, values in enumerate(members):
        save(tmp_path / f"m{number}", "npz", values)
        with (tmp_path / f"m{number}/a.pkl").open("wb") as file:
            pickle.dump({"nibabel_stuff": stuff}, file)
    folders = sorted(tmp_path.glob("m?"))
    ensemble_folders(folders, tmp_path / "whole", maps=("entropy", "mean"))
    room(0.7e6)
    ensemble_folders(folders, tmp_path / "slabs", maps=("entropy", "mean"), memory=MEMORY)
    assert differing(tmp_path / "whole", tmp_path / "slabs") == []


def test_memory_that_is_too_small_is_refused_in_one_line(tmp_path: Path) -> None:
    _, members = drawn()
    for number, values in enumerate(members):
        save(tmp_path / f"m{number}", "nii.gz", values)
    folders = sorted(tmp_path.glob("m?"))
    message = r"a\.nii\.gz: memory must be at least .* [MG]iB for this case, got 100\.0 MiB$"
    with pytest.raises(DataError, match=message):
        ensemble_folders(folders, tmp_path / "out", memory="100M")
    with pytest.raises(ValueError, match="memory must be a size such as 500M or 2G, got 'much'"):
        ensemble_folders(folders, tmp_path / "out", memory="much")
    with pytest.raises(ValueError, match="memory must be at least 1 byte, got 0"):
        ensemble_folders(folders, tmp_path / "out", memory=0)


def test_a_case_whose_files_have_changed_fails_and_keeps_what_was_written(tmp_path: Path) -> None:
    _, members = drawn()
    for number, values in enumerate(members):
        save(tmp_path / f"m{number}", "nii.gz", values)
    folders, out = sorted(tmp_path.glob("m?")), tmp_path / "out"
    ensemble_folders(folders, out, memory=MEMORY)
    kept = ("a.nii.gz", "entropy/a.nii.gz", "record/a.json")
    written = [(out / name).read_bytes() for name in kept]
    (tmp_path / "m1/a.nii.gz").unlink()
    changed = (members[1] + members[2]) / 2
    nifti.write(tmp_path / "m1/a.nii.gz", np.moveaxis(changed, 0, -1), LIKE)
    summary = ensemble_folders(folders, out, memory=MEMORY, keep_going=True)
    assert [one.case for one in summary.failed] == ["a"]
    assert "m1/a.nii.gz: has changed since case a was done" in summary.failed[0].reason
    assert [(out / name).read_bytes() for name in kept] == written


@pytest.mark.parametrize("kind", ["nii.gz", "npz"])
def test_labels_of_other_extents_are_refused_by_their_header(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, members = drawn()
    for number, values in enumerate(members):
        save(tmp_path / f"m{number}", kind, values)
    (tmp_path / "labels").mkdir()
    shape = (13, 17, 30)
    other = nifti.Geometry.from_affine(LIKE.affine, shape)
    nifti.write(tmp_path / "labels/a.nii.gz", np.zeros(shape, int), other, dtype="int")

    def read(path: Path) -> None:
        raise AssertionError(f"{path} was read")

    monkeypatch.setattr("fastcal.cases.reference.read_labels", read)
    with pytest.raises(DataError, match=r"shape .* differs from"):
        ensemble_folders(
            sorted(tmp_path.glob("m?")), tmp_path / "out", labels=tmp_path / "labels", memory=MEMORY
        )


def test_a_damaged_stream_is_found_before_anything_is_written(
    tmp_path: Path, room: Callable[[float], list[int]]
) -> None:
    _, members = drawn()
    for number, values in enumerate(members):
        save(tmp_path / f"m{number}", "npz", values)
        nifti.write(tmp_path / f"m{number}/a.nii.gz", np.zeros(SHAPE, int), LIKE, dtype="int")
    path = tmp_path / "m1/a.npz"
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 4
    path.write_bytes(damaged)
    room(0.7e6)
    with pytest.raises(DataError, match=r"m1/a\.npz: damaged"):
        ensemble_folders(sorted(tmp_path.glob("m?")), tmp_path / "out", memory=MEMORY)
    assert list(files_in(tmp_path / "out")) == ["prediction.json"]


def test_nan_in_a_slab_names_its_file(tmp_path: Path, room: Callable[[float], list[int]]) -> None:
    _, members = drawn()
    members[2][:, 4, 4, 20] = np.nan
    for number, values in enumerate(members):
        save(tmp_path / f"m{number}", "nii.gz", values)
    room(0.7e6)
    with pytest.raises(DataError, match=r"m2/a\.nii\.gz: 4 values are NaN or infinite"):
        ensemble_folders(sorted(tmp_path.glob("m?")), tmp_path / "out", memory=MEMORY)


@pytest.mark.parametrize("step", [1, 2, 5, 40])
def test_components_of_windows_are_those_of_the_volume(step: int) -> None:
    generator = np.random.default_rng(step)
    for share in (0.02, 0.15, 0.3):
        volume = generator.random((9, 8, 40)) < share
        counter = ComponentCounter()
        for at in range(0, 40, step):
            counter.add(np.ascontiguousarray(volume[..., at : at + step]))
        for smallest in (1, 3):
            whole = count_components(torch.from_numpy(volume[None].astype(np.uint8)), 2, smallest)
            assert counter.count(smallest) == int(whole[0, 1])


def test_patches_of_a_window_are_those_of_the_volume_to_the_last_bit() -> None:
    generator = torch.Generator().manual_seed(1)
    values = torch.rand(1, 8, 9, 60, generator=generator)
    label = torch.randint(0, 3, values.shape, generator=generator).to(torch.int16)
    whole = patch_maxima(values, label, 3, 5)
    largest = torch.full((1, 3), torch.nan, dtype=torch.float64)
    for start in range(0, 60, 7):
        window = slice(max(0, start - 5), start + 12)
        counted = torch.full_like(label, -1)
        counted[..., start : start + 7] = label[..., start : start + 7]
        found = patch_maxima(values[..., window], counted[..., window], 3, 5)
        largest = torch.fmax(largest, found)
    assert torch.equal(whole, largest)
