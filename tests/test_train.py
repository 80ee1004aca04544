"""Training an ensemble: what comes out, what is refused, and that a killed run loses nothing."""

from __future__ import annotations

import itertools
import json
import math
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from torch import Tensor

import fastcal.train.curves
from fastcal.data.dataset import Dataset
from fastcal.data.nifti import Geometry
from fastcal.data.preprocess import Preprocessing
from fastcal.errors import DataError
from fastcal.models import Run, UNet, load_member
from fastcal.train import TrainConfig, resolve_split, train_ensemble
from fastcal.train.member import Schedule, start_from_frequencies
from fastcal.train.order import augmented, batches, derived_seed
from fastcal.train.slices import SliceSet, load_slices, plan_preprocessing
from fastcal.train.validation import dice_of_confusion, validate

TINY = TrainConfig(widths=(4, 8), batch_size=8, iterations_per_epoch=4, max_epochs=3)
AFFINE = np.diag([1.0, 1.0, 3.0, 1.0])


def write_blobs(folder: Path, n_cases: int = 5, shape: tuple[int, int, int] = (14, 18, 4)) -> Path:
    """Noise with a bright square of label 1 and a brighter one of label 2."""
    random = np.random.default_rng(0)
    for name in ("imagesTr", "labelsTr"):
        (folder / name).mkdir(parents=True)
    for number in range(n_cases):
        label = np.zeros(shape, np.uint8)
        row, column = random.integers(1, 5, 2)
        label[row : row + 8, column : column + 5] = 1
        label[row : row + 8, column + 5 : column + 9] = 2
        image = (100 * label + random.normal(0, 10, shape)).astype(np.float32)
        name = f"blob_{number:02d}"
        nib.save(nib.Nifti1Image(image, AFFINE), folder / "imagesTr" / f"{name}_0000.nii.gz")
        nib.save(nib.Nifti1Image(label, AFFINE), folder / "labelsTr" / f"{name}.nii.gz")
    description = {
        "name": "Blobs",
        "channel_names": {"0": "MRI"},
        "labels": {"background": 0, "left": 1, "right": 2},
        "numTraining": n_cases,
        "file_ending": ".nii.gz",
    }
    (folder / "dataset.json").write_text(json.dumps(description))
    return folder


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Networks this small lose more to waking a second thread than it gives."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def blobs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_blobs(tmp_path_factory.mktemp("data") / "blobs")


@pytest.fixture(scope="module")
def trained(blobs: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("runs") / "ce"
    return train_ensemble(blobs, folder, members=2, config=TINY, device="cpu", progress=False)


def weights(member: Path) -> dict[str, Tensor]:
    return load_member(member).state_dict()


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return all(torch.equal(first[name], second[name]) for name in first)


# --- what comes out


def test_run_folder_holds_what_prediction_needs(trained: Run, blobs: Path) -> None:
    run = Run.open(trained.path)
    assert [member.name for member in run.members] == ["member_00", "member_01"]
    assert run.unfinished == []
    assert (run.loss, run.head, run.num_classes) == ("ce", "softmax", 3)
    assert run.labels == {"background": 0, "left": 1, "right": 2}
    assert run.preprocessing == Preprocessing(slice_axis=2, size=(14, 18))
    assert run.split == {
        "train": ["blob_00", "blob_01", "blob_02", "blob_03"],
        "val": ["blob_04"],
        "test": [],
    }
    assert TrainConfig.from_json(run.config["training"]) == TINY
    assert (run.path / "dataset.json").read_text() == (blobs / "dataset.json").read_text()
    files = {path.name for path in run.members[0].iterdir()}
    assert files == {"best.pt", "last.pt", "log.jsonl", "curves.png", "member.json"}
    rows = [json.loads(line) for line in (run.members[0] / "log.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    finished = json.loads((run.members[0] / "member.json").read_text())
    assert finished["best_val_dice"] == max(row["val_dice"] for row in rows)


@pytest.mark.parametrize("loss", ["ce", "dice"])
def test_either_loss_learns_the_blobs(blobs: Path, tmp_path: Path, loss: str) -> None:
    config = replace(TINY, iterations_per_epoch=20, max_epochs=6, mirror=(0,), jitter=0.05)
    run = train_ensemble(
        blobs, tmp_path / loss, loss=loss, members=1, config=config, device="cpu", progress=False
    )
    rows = [json.loads(line) for line in (run.members[0] / "log.jsonl").read_text().splitlines()]
    assert max(row["val_dice"] for row in rows) > 0.9
    assert rows[-1]["loss"] < rows[0]["loss"]
    assert load_member(run.members[0]).head == {"ce": "softmax", "dice": "sigmoid"}[loss]


def test_members_differ_and_the_same_seed_gives_the_same_bits(
    trained: Run, blobs: Path, tmp_path: Path
) -> None:
    first, second = (weights(member) for member in trained.members)
    assert not same(first, second)
    again = train_ensemble(
        blobs, tmp_path / "again", members=1, config=TINY, device="cpu", progress=False
    )
    assert same(first, weights(again.members[0]))


def test_members_added_later_are_those_of_one_go(trained: Run, blobs: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    train_ensemble(blobs, folder, members=1, config=TINY, device="cpu", progress=False)
    first = (folder / "member_00" / "best.pt").stat().st_mtime_ns
    run = train_ensemble(blobs, folder, members=2, config=TINY, device="cpu", progress=False)
    assert (folder / "member_00" / "best.pt").stat().st_mtime_ns == first
    for member, expected in zip(run.members, trained.members, strict=True):
        assert same(weights(member), weights(expected))


def test_members_trained_side_by_side_are_those_trained_in_turn(
    trained: Run, blobs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = train_ensemble(blobs, tmp_path / "run", members=2, config=TINY, device="cpu", jobs=2)
    for member, expected in zip(run.members, trained.members, strict=True):
        assert same(weights(member), weights(expected))
    lines = [line for line in capsys.readouterr().err.splitlines() if "epoch" in line]
    assert len(lines) == 6
    assert sum(line.startswith("member_01  epoch") for line in lines) == 3


def test_a_line_an_epoch_reports_progress_off_a_terminal(
    blobs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train_ensemble(blobs, tmp_path / "run", members=1, config=TINY, device="cpu")
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 4
    assert "reading 4 + 1 cases" in lines[0]
    assert lines[1].startswith("member_00  epoch 1/3  loss ")
    assert lines[3].endswith("at most 0 s left")


def test_without_matplotlib_a_message_takes_the_place_of_the_curves(
    trained: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert fastcal.train.curves.draw_curves(trained.members[0]) is None
    assert "member_00: no curves.png, which needs matplotlib" in capsys.readouterr().err


def test_a_dice_loss_may_have_a_softmax_head(blobs: Path, tmp_path: Path) -> None:
    config = replace(TINY, head="softmax", max_epochs=1)
    run = train_ensemble(
        blobs, tmp_path / "run", loss="dice", members=1, config=config, progress=False
    )
    assert run.head == load_member(run.members[0]).head == "softmax"


# --- killed and resumed

KILLED = """
import os, signal, sys
import torch
from fastcal.train import TrainConfig, train_ensemble

torch.set_num_threads({threads})
steps, replace = 0, os.replace

def die_in_step(*arguments, **options):
    global steps
    steps += 1
    if steps == {steps}:
        os.kill(os.getpid(), signal.SIGKILL)
    return step(*arguments, **options)

def die_before_last(source, target):
    if str(target).endswith("last.pt") and {before_last}:
        os.kill(os.getpid(), signal.SIGKILL)
    replace(source, target)

step, torch.optim.Adam.step = torch.optim.Adam.step, die_in_step
os.replace = die_before_last
train_ensemble({blobs!r}, {run!r}, members=1, seed=4, config=TrainConfig.from_json({config!r}),
               device="cpu", progress=False)
"""


def test_a_run_killed_twice_ends_with_the_bits_of_one_left_alone(
    blobs: Path, tmp_path: Path
) -> None:
    config = replace(TINY, dropout=0.5, mirror=(0, 1), jitter=0.1, max_epochs=4)
    folder = tmp_path / "killed"
    # In the second epoch's third step; then with best.pt written and last.pt not yet in place.
    for steps, before_last in ((7, False), (0, True)):
        script = KILLED.format(
            threads=torch.get_num_threads(),
            steps=steps,
            before_last=before_last,
            blobs=str(blobs),
            run=str(folder),
            config=config.to_json(),
        )
        child = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
        assert child.returncode == -signal.SIGKILL, child.stderr
    run = Run.open(folder)
    assert run.members == []
    assert [member.name for member in run.unfinished] == ["member_00"]

    options = {"members": 1, "seed": 4, "config": config, "device": "cpu", "progress": False}
    train_ensemble(blobs, folder, **options)  # type: ignore[arg-type]
    alone = train_ensemble(blobs, tmp_path / "alone", **options)  # type: ignore[arg-type]
    assert same(weights(run.members[0]), weights(alone.members[0]))
    last, expected = (
        torch.load(path / "last.pt", weights_only=True)
        for path in (run.members[0], alone.members[0])
    )
    assert same(last["model"], expected["model"])
    assert last["schedule"] == expected["schedule"]
    epochs = [json.loads(line)["epoch"] for line in (folder / "member_00/log.jsonl").open()]
    assert epochs == [1, 2, 3, 4]
    assert not list(folder.rglob(".tmp-*"))


# --- refused


def test_another_setting_in_an_existing_run_is_named(trained: Run, blobs: Path) -> None:
    folder = trained.path
    with pytest.raises(ValueError, match="another loss: 'ce' there, 'dice' asked for"):
        train_ensemble(blobs, folder, loss="dice", members=2, config=TINY, progress=False)
    other = replace(TINY, learning_rate=0.01)
    with pytest.raises(ValueError, match=r"another training\.learning_rate: 0\.005 there, 0\.01"):
        train_ensemble(blobs, folder, members=2, config=other, progress=False)
    with pytest.raises(ValueError, match=r"another split\.train"):
        train_ensemble(blobs, folder, members=2, config=TINY, split=(3, 2, 0), progress=False)


def test_a_nan_loss_stops_with_the_names_of_the_cases(blobs: Path, tmp_path: Path) -> None:
    config = replace(TINY, learning_rate=1e38, batch_size=16)
    message = r"member_00: the loss is \w+ in epoch 1; .*blob_00.*blob_03"
    with pytest.raises(ValueError, match=message):
        train_ensemble(blobs, tmp_path / "run", members=1, config=config, progress=False)


def test_every_bad_case_is_listed_before_anything_is_written(tmp_path: Path) -> None:
    folder = write_blobs(tmp_path / "data")
    image = nib.load(folder / "imagesTr" / "blob_00_0000.nii.gz")
    data = np.asarray(image.dataobj).copy()
    data[0, 0, 0] = np.nan
    nib.save(nib.Nifti1Image(data, AFFINE), folder / "imagesTr" / "blob_00_0000.nii.gz")
    (folder / "imagesTr" / "blob_02_0000.nii.gz").write_bytes(b"no gzip")
    label = np.full((14, 18, 4), 7, np.uint8)
    nib.save(nib.Nifti1Image(label, AFFINE), folder / "labelsTr" / "blob_03.nii.gz")
    with pytest.raises(DataError) as caught:
        train_ensemble(folder, tmp_path / "run", config=TINY, progress=False)
    message = str(caught.value)
    assert "3 cases" in message
    assert "blob_00_0000.nii.gz: image: channel 0 holds NaN" in message
    assert "blob_02_0000.nii.gz" in message
    assert "blob_03.nii.gz: labels [7]" in message
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss": "focal"}, "loss: got 'focal', expected 'ce' or 'dice'"),
        ({"members": 0}, "members: got 0"),
        ({"jobs": 0}, "jobs: got 0"),
        ({"config": TrainConfig(head="sigmoid")}, "cross entropy needs 'softmax'"),
        ({"config": TrainConfig(class_weights=(1.0, 2.0))}, "class_weights: got 2"),
        ({"split": (9, 1, 0)}, "train, val, test: got 9, 1, 0"),
        ({"split": {"train": ["blob_00"], "val": ["nobody"]}}, "not in the dataset: nobody"),
        ({"split": {"train": ["blob_00"], "val": ["blob_00"]}}, "more than once: blob_00"),
        ({"split": (5, 0, 0)}, "at least one of each"),
    ],
)
def test_a_bad_argument_is_named(
    blobs: Path, tmp_path: Path, options: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        train_ensemble(blobs, tmp_path / "run", progress=False, **options)  # type: ignore[arg-type]
    assert not (tmp_path / "run").exists()


def test_bad_settings_are_named() -> None:
    with pytest.raises(ValueError, match="batch_size: got 0"):
        TrainConfig(batch_size=0)
    with pytest.raises(ValueError, match=r"plateau_factor: got 1\.5"):
        TrainConfig(plateau_factor=1.5)
    with pytest.raises(ValueError, match="no such setting: epochs"):
        TrainConfig.from_json({"epochs": 3})


# --- the parts


def test_split_file_beside_the_dataset_is_honoured(tmp_path: Path) -> None:
    folder = write_blobs(tmp_path / "data", n_cases=3)
    parts = {"train": ["blob_02"], "val": ["blob_00"], "test": ["blob_01"]}
    (folder / "splits.json").write_text(json.dumps(parts))
    assert resolve_split(Dataset.open(folder)).names() == parts
    (folder / "splits.json").write_text('["blob_00"]')
    with pytest.raises(DataError, match=r"splits\.json: expected lists of case names"):
        resolve_split(Dataset.open(folder))


def test_epochs_show_every_slice_equally_often_and_do_not_depend_on_the_past() -> None:
    def epoch(number: int, member: int = 0) -> Tensor:
        steps = batches(10, batch_size=4, iterations=5, epoch=number, seed=1, member=member)
        return torch.stack(list(steps))

    both = torch.stack([epoch(1), epoch(2)])
    assert both.shape == (2, 5, 4)
    assert torch.bincount(both.flatten()).tolist() == [4] * 10
    assert torch.equal(epoch(2), both[1])
    assert sorted(both.flatten()[:10].tolist()) == list(range(10))
    assert not torch.equal(both[0], both[1])
    assert not torch.equal(epoch(1, member=1), epoch(1))
    seeds = {derived_seed(0, *key) for key in itertools.product(range(4), repeat=3)}
    assert len(seeds) == 64


def test_the_plateau_rule_lowers_the_learning_rate_and_stops() -> None:
    config = TrainConfig(plateau_patience=2, plateau_factor=0.5, early_stopping=5)
    schedule = Schedule(1.0)
    rates = []
    for dice in (0.5, 0.6, 0.6, 0.1, 0.2, 0.3):
        schedule.step(dice, config)
        rates.append(schedule.learning_rate)
    assert rates == [1.0, 1.0, 1.0, 0.5, 0.5, 0.25]
    assert (schedule.best_epoch, schedule.best_dice) == (2, 0.6)
    assert not schedule.finished(config)
    assert schedule.step(math.nan, config) is False
    assert schedule.finished(config)


def test_cross_entropy_starts_from_the_weighted_frequencies_of_the_classes() -> None:
    model = UNet(1, 3, widths=(2, 4))
    labels = torch.tensor([0] * 6 + [1] * 1 + [9] * 4, dtype=torch.uint8)
    start_from_frequencies(model, labels, torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64))
    start = model.classifier.bias.softmax(0)
    torch.testing.assert_close(start, torch.tensor([7.0, 4.0, 3.0]) / 14)


def test_dice_counts_a_case_as_a_whole_and_leaves_out_absent_classes() -> None:
    confusion = torch.tensor([[[5, 1, 0], [2, 4, 0], [0, 0, 0]]])
    dice = dice_of_confusion(confusion)[0]
    assert dice[:2].tolist() == [10 / 13, 8 / 11]
    assert dice[2].isnan()


def test_validation_equals_the_formulas_on_all_slices_at_once(trained: Run) -> None:
    torch.manual_seed(0)
    model = load_member(trained.members[0])
    images, labels = torch.rand(5, 1, 14, 18), torch.randint(0, 4, (5, 14, 18), dtype=torch.uint8)
    slices = SliceSet(images, labels, torch.tensor([0, 0, 1, 1, 1]), ["a", "b"])
    scores = validate(model, slices, batch_size=2, ignore_label=3)
    logits, kept = model(images), labels != 3
    nll = -logits.log_softmax(1).gather(1, (labels * kept).long()[:, None])[:, 0][kept].mean()
    assert scores.nll == pytest.approx(nll.item(), rel=1e-5)
    for k in range(3):
        predicted, reference = (logits.argmax(1) == k) & kept, labels == k
        dice = [
            2 * (predicted[s] & reference[s]).sum() / (predicted[s].sum() + reference[s].sum())
            for s in (slice(0, 2), slice(2, 5))
        ]
        assert scores.dice_per_class[k] == pytest.approx(float(sum(dice)) / 2, rel=1e-6)
    assert scores.dice == pytest.approx(sum(scores.dice_per_class[1:]) / 2, rel=1e-12)


def test_augmentation_moves_labels_with_their_voxels() -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(8 * 12, dtype=torch.int32).view(8, 3, 4)
    images = labels[:, None].float()
    moved, moved_labels = augmented(images, labels, mirror=(0, 1), jitter=0.0, generator=generator)
    assert torch.equal(moved[:, 0], moved_labels.float())
    assert not torch.equal(moved, images)
    brighter, unmoved = augmented(images, labels, mirror=(), jitter=0.1, generator=generator)
    assert torch.equal(unmoved, labels)
    assert (brighter - images).abs().max() <= 0.1 * images.max() + 0.1


# --- preprocessing


def geometry(shape: tuple[int, int, int], spacing: tuple[float, float, float]) -> Geometry:
    return Geometry(shape, np.diag([*spacing, 1.0]), None)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_slices_turned_back_are_the_volume(axis: int) -> None:
    shape = (6, 9, 11)
    like = geometry(shape, (1.0, 1.0, 1.0))
    volume = np.random.default_rng(0).random((2, *shape), dtype=np.float32)
    whole = Preprocessing(slice_axis=axis, size=(16, 16), percentiles=(0.0, 100.0))
    slices = whole.apply(volume, like)
    assert slices.shape == (shape[axis], 2, 16, 16)
    low, high = volume.min((1, 2, 3), keepdims=True), volume.max((1, 2, 3), keepdims=True)
    np.testing.assert_allclose(
        whole.invert(slices, like).numpy(), (volume - low) / (high - low), atol=1e-6
    )


def test_intensities_are_clipped_at_their_percentiles_channel_by_channel() -> None:
    ramp = np.arange(1001, dtype=np.float32).reshape(1, 1001, 1, 1)
    image = np.concatenate([ramp, -3 * ramp, np.full_like(ramp, 5)])
    slices = Preprocessing().apply(image, geometry((1001, 1, 1), (1.0, 1.0, 1.0)))[0, :, :, 0]
    expected = np.clip((ramp.ravel() - 10) / 980, 0, 1)
    np.testing.assert_allclose(slices[0], expected, atol=1e-6)
    np.testing.assert_allclose(slices[1], 1 - expected, atol=1e-6)
    assert slices[2].abs().max() == 0


def test_resampled_probabilities_come_back_linearly_on_the_grid_of_the_volume() -> None:
    like = geometry((40, 20, 3), (1.0, 2.0, 5.0))
    preprocessing = Preprocessing(spacing=(2.0, 2.0), size=(32, 32))
    slices = preprocessing.apply(np.zeros((1, 40, 20, 3), np.float32), like)
    assert slices.shape == (3, 1, 32, 32)
    rows = torch.linspace(0, 1, 20)[:, None].expand(20, 20)
    plane = torch.zeros(32, 32)
    plane[6:26, 6:26] = rows
    back = preprocessing.invert(torch.stack([1 - plane, plane]).expand(3, 2, 32, 32), like)
    assert back.shape == (2, 40, 20, 3)
    torch.testing.assert_close(back.sum(0), torch.ones(40, 20, 3))
    # Pixel centres at 2 i + 1/2 of the fine grid: a quarter and three quarters between neighbours.
    fine = (torch.arange(40) - 0.5) / 2
    torch.testing.assert_close(back[1, :, 7, 1], (fine / 19).clamp(0, 1), atol=1e-6, rtol=0)


def test_labels_go_the_way_of_their_image_and_a_crop_comes_back_as_background() -> None:
    like = geometry((9, 6, 2), (1.0, 1.0, 1.0))
    label = np.arange(9 * 6 * 2).reshape(9, 6, 2)
    preprocessing = Preprocessing(size=(4, 8), percentiles=(0.0, 100.0))
    image = preprocessing.apply(label[None].astype(np.float32), like, crop=True)
    slices = preprocessing.apply_label(label, like, crop=True)
    assert slices.shape == (2, 4, 8)
    np.testing.assert_allclose(image[:, 0] * label.max(), slices, atol=1e-4)
    one_hot = torch.stack([slices == 0, slices > 0], 1).float()
    back = preprocessing.invert(one_hot, like)
    assert torch.equal(back[1, 2:6], torch.ones(4, 6, 2))
    outside = [0, 1, 6, 7, 8]
    assert torch.equal(back[0, outside], torch.ones(5, 6, 2))
    assert back[1, outside].sum() == 0


def test_prediction_pads_but_never_crops() -> None:
    like = geometry((9, 6, 2), (1.0, 1.0, 1.0))
    slices = Preprocessing(size=(4, 8)).apply(np.ones((1, 9, 6, 2), np.float32), like)
    assert slices.shape == (2, 1, 9, 8)


def test_slice_axis_is_that_of_the_largest_spacing_and_the_size_fits_all(blobs: Path) -> None:
    dataset = Dataset.open(blobs)
    planned = plan_preprocessing(dataset.cases, TrainConfig())
    assert planned == Preprocessing(slice_axis=2, size=(16, 32))
    assert plan_preprocessing(dataset.cases, TrainConfig(slice_axis=0)).size == (32, 16)
    slices = load_slices(dataset, dataset.cases[:2], planned)
    assert slices.images.shape == (8, 1, 16, 32)
    assert slices.labels.dtype == torch.uint8
    assert slices.case.tolist() == [0] * 4 + [1] * 4
    assert slices.case_names(torch.tensor([5, 0])) == ["blob_00", "blob_01"]


@pytest.mark.data
def test_hippocampus_is_read_as_axial_slices_of_one_size(data_dir: Path) -> None:
    dataset = Dataset.open(data_dir)
    planned = plan_preprocessing(dataset.cases, TrainConfig())
    assert planned == Preprocessing(slice_axis=2, size=(48, 64))
    slices = load_slices(dataset, dataset.cases[:3], planned)
    assert 0.0 <= slices.images.min() <= slices.images.max() <= 1.0
    assert slices.labels.max() == 2
