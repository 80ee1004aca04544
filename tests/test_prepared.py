"""The cache of preprocessed cases: made once, complete, and again where something changed."""

from __future__ import annotations

import errno
import itertools
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from fastcal.core.errors import DataError
from fastcal.data.cache import FOREGROUND_VOXELS, CaseCache
from fastcal.data.dataset import Dataset
from fastcal.data.prepared import PreparedCases, prepare_cases
from fastcal.data.preprocess import Preprocessing

AFFINE = np.diag([-1.0, 1.0, 2.0, 1.0])
THREE = Preprocessing(dims=3, normalisation="zscore")


def save(path: Path, data: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(data, AFFINE), path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four cases of two channels with a block of label 1; all but the last have one of label 2."""
    random = np.random.default_rng(0)
    place = tmp_path / "Dataset001_Blocks"
    for number in range(4):
        shape = (8 + number, 9, 6)
        label = np.zeros(shape, np.uint8)
        label[1:4, 2:5, 1:3] = 1
        if number < 3:
            label[5:7, 2:5, 4:5] = 2
        save(place / f"labelsTr/block_{number}.nii.gz", label)
        for channel in range(2):
            image = random.normal(0, 1, shape).astype(np.float32) + 3 * label
            save(place / f"imagesTr/block_{number}_{channel:04d}.nii.gz", image)
    described = {
        "channel_names": {"0": "T1", "1": "T2"},
        "labels": {"background": 0, "left": 1, "right": 2},
        "numTraining": 4,
        "file_ending": ".nii.gz",
    }
    (place / "dataset.json").write_text(json.dumps(described))
    return place


def prepare(folder: Path, cache: Path, preprocessing: Preprocessing = THREE) -> PreparedCases:
    dataset = Dataset.open(folder)
    return prepare_cases(dataset, dataset.cases, preprocessing, cache, workers=2)


def files(cache: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in cache.rglob("*") if path.is_file()}


def test_prepared_cases_are_those_that_preprocessing_makes(folder: Path, tmp_path: Path) -> None:
    prepared = prepare(folder, tmp_path / "cache")
    assert prepared.names == [f"block_{number}" for number in range(4)]
    for case, image, label in zip(
        Dataset.open(folder).cases, prepared.images, prepared.labels, strict=True
    ):
        voxels, reference, like = case.load()
        assert reference is not None
        assert torch.equal(image, THREE.apply(voxels, like))
        assert torch.equal(label, THREE.apply_label(reference, like).to(torch.uint8))
    assert prepared.num_classes == 3
    assert prepared.nbytes == sum(9 * n * 9 * 6 for n in (8, 9, 10, 11))
    for label, classes in zip(prepared.labels, prepared.foreground, strict=True):
        for value, voxels in enumerate(classes, start=1):
            assert torch.equal(voxels, torch.nonzero(label.flatten() == value).flatten())
    chosen = prepared.select(["block_3", "block_1"])
    assert chosen.names == ["block_3", "block_1"]
    assert torch.equal(chosen.images[1], prepared.images[1])
    with pytest.raises(ValueError, match="names must be among the prepared cases, got nobody"):
        prepared.select(["nobody"])


def test_a_second_call_writes_nothing_and_maps_the_same_files(folder: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    first = prepare(folder, cache)
    there = files(cache)
    second = prepare(folder, cache)
    assert files(cache) == there
    assert second.fingerprint == first.fingerprint
    assert all(map(torch.equal, first.images, second.images))
    assert all(map(torch.equal, first.labels, second.labels))


def test_other_settings_or_contents_are_told_apart_and_other_times_are_not(
    folder: Path, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    first = prepare(folder, cache)
    other = prepare(folder, cache, Preprocessing(dims=3, normalisation="zscore", nonzero=True))
    assert other.fingerprint != first.fingerprint
    assert len(list(cache.iterdir())) == 2

    # Another mtime alone: nothing is made again.
    image = folder / "imagesTr/block_1_0001.nii.gz"
    os.utime(image, ns=(1, 1))
    there = {name: time for name, time in files(cache).items() if name.endswith(".npy")}
    assert prepare(folder, cache).fingerprint == first.fingerprint
    moved = tmp_path / "elsewhere" / folder.name
    shutil.copytree(folder, moved, copy_function=shutil.copyfile)
    assert prepare(moved, cache).fingerprint == first.fingerprint
    assert {name: time for name, time in files(cache).items() if name.endswith(".npy")} == there

    # Another voxel: that case is made again, and only that one.
    label = nib.load(folder / "labelsTr/block_1.nii.gz").get_fdata().astype(np.uint8)
    label[0, 0, 0] = 2
    save(folder / "labelsTr/block_1.nii.gz", label)
    changed = prepare(folder, cache)
    assert changed.fingerprint != first.fingerprint
    assert changed.labels[1].sum() == first.labels[1].sum() + 2
    digests = zip(changed.digests, first.digests, strict=True)
    assert [new == old for new, old in digests] == [True, False, True, True]


def _flipped(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def _zeros(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:128] + bytes(len(content) - 128))


def _pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _described(**changes: object) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        place = path.with_name("block_2.json")
        place.write_text(json.dumps(json.loads(place.read_text()) | changes))

    return damage


DAMAGES: dict[str, Callable[[Path], object]] = {
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-40]),
    "missing": lambda path: path.unlink(),
    "empty": lambda path: path.write_bytes(b""),
    "a flipped bit": _flipped,
    "zeros behind its header": _zeros,
    "that of another case": lambda path: shutil.copyfile(
        path.with_name(path.name.replace("block_2", "block_1")), path
    ),
    "a pipe": _pipe,
}


def _check_made_again(
    folder: Path, tmp_path: Path, name: str, damage: Callable[[Path], object]
) -> None:
    cache = tmp_path / "cache"
    first = prepare(folder, cache)
    # Copied: what is mapped is torn with its file.
    wanted = [
        [tensor.clone() for tensor in (image, label, *voxels)]
        for image, label, voxels in zip(first.images, first.labels, first.foreground, strict=True)
    ]
    (place,) = cache.iterdir()
    damage(place / name)
    untouched = files(place)["block_1.image.npy"]
    again = prepare(folder, cache)
    assert again.fingerprint == first.fingerprint
    for tensors, *made, voxels in zip(
        wanted, again.images, again.labels, again.foreground, strict=True
    ):
        assert all(itertools.starmap(torch.equal, zip(tensors, (*made, *voxels), strict=True)))
    assert files(place)["block_1.image.npy"] == untouched
    there = files(cache)
    prepare(folder, cache)
    assert files(cache) == there


@pytest.mark.parametrize("ending", ["image.npy", "label.npy", "foreground.npy"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_array_is_made_again(
    folder: Path, tmp_path: Path, damage: str, ending: str
) -> None:
    _check_made_again(folder, tmp_path, f"block_2.{ending}", DAMAGES[damage])


@pytest.mark.parametrize(
    "damage",
    [
        *(DAMAGES[name] for name in ("cut", "missing", "empty", "a pipe")),
        lambda path: path.write_text("[" * 10_000),
        _described(arrays={}),
        _described(arrays=[1]),
        _described(foreground=[10**12]),
        _described(foreground="x"),
        _described(sources=None),
        _described(digest=7),
    ],
)
def test_a_case_whose_description_is_damaged_is_made_again(
    folder: Path, tmp_path: Path, damage: Callable[[Path], object]
) -> None:
    _check_made_again(folder, tmp_path, "block_2.json", damage)


def test_a_description_without_digests_is_made_again(folder: Path, tmp_path: Path) -> None:
    def of_an_older_version(path: Path) -> None:
        content = json.loads(path.read_text())
        del content["arrays"]
        path.write_text(json.dumps(content | {"bytes": {"image": 1}}))

    _check_made_again(folder, tmp_path, "block_2.json", of_an_older_version)


KILLED = """
import os, signal, sys
from fastcal.data import Dataset
from fastcal.data.prepared import prepare_cases
from fastcal.data.preprocess import Preprocessing

replace = os.replace
def die(source, target):
    if str(target).endswith("block_2.label.npy"):
        os.kill(os.getpid(), signal.SIGKILL)
    replace(source, target)
os.replace = die
dataset = Dataset.open(sys.argv[1])
prepare_cases(
    dataset, dataset.cases, Preprocessing(dims=3, normalisation="zscore"), sys.argv[2], workers=1
)
"""


def test_a_killed_preparation_goes_on_where_it_was(folder: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    child = subprocess.run(
        [sys.executable, "-c", KILLED, str(folder), str(cache)], capture_output=True, text=True
    )
    assert child.returncode == -signal.SIGKILL, child.stderr
    (place,) = cache.iterdir()
    assert {path.name for path in place.glob("block_*.json")} == {"block_0.json", "block_1.json"}
    before = files(place)
    prepared = prepare(folder, cache)
    after = files(place)
    for name in ("block_0.image.npy", "block_1.label.npy", "block_1.json"):
        assert after[name] == before[name]
    expected = prepare(folder, tmp_path / "another")
    assert prepared.fingerprint == expected.fingerprint
    assert all(map(torch.equal, prepared.images, expected.images))


def test_everything_that_is_wrong_is_listed_at_once(folder: Path, tmp_path: Path) -> None:
    image = nib.load(folder / "imagesTr/block_0_0000.nii.gz").get_fdata().astype(np.float32)
    image[0, 0, 0] = np.nan
    save(folder / "imagesTr/block_0_0000.nii.gz", image)
    (folder / "imagesTr/block_0_0001.nii.gz").write_bytes(b"no gzip")
    (folder / "imagesTr/block_1_0001.nii.gz").unlink()
    save(folder / "labelsTr/block_1.nii.gz", np.full((9, 9, 6), 7, np.uint8))
    save(folder / "labelsTr/block_2.nii.gz", np.zeros((9, 9, 6), np.uint8))
    save(folder / "imagesTr/block_3_0002.nii.gz", image)
    save(folder / "labelsTr/stray.nii.gz", np.zeros((9, 9, 6), np.uint8))
    with pytest.raises(DataError) as caught:
        prepare(folder, tmp_path / "cache")
    message = str(caught.value)
    assert message.startswith(f"{folder}: has 7 problems: ")
    for expected in (
        "block_0_0000.nii.gz: must hold finite voxels, got NaN or infinities",
        "block_0_0001.nii.gz: damaged, or not a NIfTI file",
        "block_1_0001.nii.gz: no such file",
        "block_1.nii.gz: must hold labels of dataset.json, [0, 1, 2], got [7]",
        "block_2.nii.gz: must have the shape of block_2_0000.nii.gz, (10, 9, 6), got (9, 9, 6)",
        "block_3_0002.nii.gz: is a channel beyond the 2 of dataset.json",
        "stray.nii.gz: is a label map without an image",
    ):
        assert expected in message


def test_a_file_of_all_channels_must_have_as_many_as_dataset_json(
    folder: Path, tmp_path: Path
) -> None:
    for channel in range(2):
        (folder / f"imagesTr/block_0_{channel:04d}.nii.gz").unlink()
    save(folder / "imagesTr/block_0.nii.gz", np.zeros((8, 9, 6, 3), np.float32))
    described = json.loads((folder / "dataset.json").read_text())
    described["modality"] = described.pop("channel_names")  # version 1, which lists its cases
    described["training"] = [{"label": "./labelsTr/block_0.nii.gz"}]
    (folder / "dataset.json").write_text(json.dumps(described))
    with pytest.raises(DataError, match=r"block_0\.nii\.gz: must have 2 channels.*, got 3"):
        prepare(folder, tmp_path / "cache")


def test_many_foreground_voxels_are_thinned_the_same_way_every_time(
    folder: Path, tmp_path: Path
) -> None:
    label = np.zeros((40, 40, 20), np.uint8)
    label[:, :, 5:] = 1
    save(folder / "labelsTr/block_0.nii.gz", label)
    for channel in range(2):
        save(folder / f"imagesTr/block_0_{channel:04d}.nii.gz", label.astype(np.float32))
    dataset = Dataset.open(folder)
    kept = []
    for place in ("one", "two"):
        cache = CaseCache(tmp_path / place, dataset, THREE)
        kept.append(cache.make(dataset.cases[0]).foreground)
    voxels = kept[0][0]
    assert len(voxels) == FOREGROUND_VOXELS
    assert len(voxels.unique()) == FOREGROUND_VOXELS
    assert (torch.from_numpy(label[::-1].copy()).flatten()[voxels] == 1).all()
    assert torch.equal(voxels, kept[1][0])
    assert len(kept[0][1]) == 0


def test_training_keeps_the_box_that_is_not_zero(folder: Path, tmp_path: Path) -> None:
    label = np.zeros((8, 9, 6), np.uint8)
    label[6, 5, 5] = 1
    save(folder / "labelsTr/block_0.nii.gz", label)
    for channel in range(2):
        image = np.zeros((8, 9, 6), np.float32)
        image[2 + channel : 5, 3:5, 1:4] = np.random.default_rng(channel).normal(5, 1, (1, 2, 3))
        save(folder / f"imagesTr/block_0_{channel:04d}.nii.gz", image)
    whole = prepare(folder, tmp_path / "cache")
    cut = prepare(
        folder,
        tmp_path / "cache",
        Preprocessing(dims=3, normalisation="zscore", crop_to_nonzero=True),
    )
    # The first axis runs backwards in the file.
    assert torch.equal(cut.images[0], whole.images[0][..., 1:6, 3:6, 1:6])
    assert torch.equal(cut.labels[0], whole.labels[0][:, 1:6, 3:6, 1:6])
    assert cut.labels[0].flatten()[cut.foreground[0][0]].tolist() == [1]


def test_a_full_disk_is_told_with_the_file_and_leaves_no_torn_one(
    folder: Path, tmp_path: Path
) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1500, limits[1]))
    try:
        with pytest.raises(OSError, match=r"block_\d\.image\.npy") as caught:
            prepare(folder, tmp_path / "cache")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert caught.value.errno == errno.EFBIG
    assert set(files(tmp_path / "cache")) == {"settings.json"}


def test_a_case_without_foreground_is_prepared_all_the_same(folder: Path, tmp_path: Path) -> None:
    save(folder / "labelsTr/block_3.nii.gz", np.zeros((11, 9, 6), np.uint8))
    prepared = prepare(folder, tmp_path / "cache")
    assert [len(voxels) for voxels in prepared.foreground[3]] == [0, 0]
    assert prepared.labels[3].sum() == 0


def test_progress_tells_how_many_are_left(folder: Path, tmp_path: Path) -> None:
    dataset = Dataset.open(folder)
    lines: list[str] = []
    prepare_cases(dataset, dataset.cases, THREE, tmp_path / "cache", progress=lines.append)
    assert lines[-1] == "prepared 4/4 cases, 0 s left"
    lines.clear()
    prepare_cases(dataset, dataset.cases, THREE, tmp_path / "cache", progress=lines.append)
    assert lines == []


def test_items_of_one_size_lie_in_one_tensor_on_a_device(folder: Path, tmp_path: Path) -> None:
    sliced = prepare(folder, tmp_path / "cache", Preprocessing(size=(12, 12)))
    assert sliced.images[0].shape == (6, 2, 12, 12)
    there = sliced.to("meta")
    assert there.stacked is not None
    assert there.stacked[0].shape == (24, 2, 12, 12)
    assert there.images[3].shape == (6, 2, 12, 12)
    assert there.labels[1].device.type == "meta"
    assert prepare(folder, tmp_path / "cache").to("meta").stacked is None
    assert sliced.to("cpu") is sliced
