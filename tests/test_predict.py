"""`fastcal.predict.predict_cases`: the members of a run to maps, labels and calibration."""

from __future__ import annotations

import gc
import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from cohort import (
    CASES,
    SHAPE,
    assert_same_geometry,
    write_images,
    write_references,
    write_run,
)

from fastcal import EnsembleAccumulator
from fastcal.data.nifti import read
from fastcal.data.preprocess import Preprocessing
from fastcal.models import UNet, sliding_window
from fastcal.predict import InferenceAugmentation, ensemble_folders, predict_cases


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def activated(network: UNet, logits: torch.Tensor, axis: int) -> torch.Tensor:
    return logits.softmax(axis) if network.head == "softmax" else logits.sigmoid()


def member_probabilities(
    network: UNet, image: Path, plan: Preprocessing, resample: str = "probabilities"
) -> np.ndarray:
    """[C, X, Y, Z] of one network, without any of fastcal.predict."""
    volume = read(image)
    slices = plan.apply(np.asarray(volume.data, np.float32)[None], volume)
    with torch.no_grad():
        logits = network(slices)
    if resample == "logits":
        return activated(network, plan.invert(logits, volume), 0).double().numpy()
    return plan.invert(activated(network, logits, 1), volume).double().numpy()


def loaded(path: Path) -> np.ndarray:
    return np.asarray(nib.load(path).dataobj)


@pytest.mark.parametrize("head", ["softmax", "sigmoid"])
@pytest.mark.parametrize(
    ("plan", "resample"),
    [
        (Preprocessing(), "probabilities"),
        (Preprocessing(slice_axis=1, spacing=(1.5, 2.0), size=(8, 16)), "probabilities"),
        (Preprocessing(slice_axis=1, spacing=(1.5, 2.0), size=(8, 16)), "logits"),
    ],
)
def test_prediction_is_the_mean_of_the_members_on_the_images_grid(
    tmp_path: Path, head: str, plan: Preprocessing, resample: str
) -> None:
    networks = write_run(tmp_path / "run", head=head, preprocessing=plan)
    write_images(tmp_path / "images")
    summary = predict_cases(
        tmp_path / "run",
        tmp_path / "images",
        tmp_path / "out",
        maps=("entropy", "mean"),
        save_probabilities=True,
        resample=resample,
    )
    assert summary.done == CASES
    for case in CASES:
        image = tmp_path / f"images/{case}_0000.nii.gz"
        members = [member_probabilities(network, image, plan, resample) for network in networks]
        mean = np.mean(members, axis=0)
        made = np.moveaxis(loaded(tmp_path / f"out/mean/{case}.nii.gz"), -1, 0)
        np.testing.assert_allclose(made, mean, atol=2e-6)
        entropy = loaded(tmp_path / f"out/entropy/{case}.nii.gz")
        np.testing.assert_allclose(entropy, -(mean * np.log(mean)).sum(0), atol=4e-6)
        labels = loaded(tmp_path / f"out/{case}.nii.gz")
        np.testing.assert_array_equal(labels, made.argmax(0))
        stored = np.load(tmp_path / f"out/{case}.npz")["probabilities"]
        np.testing.assert_array_equal(stored.transpose(0, 3, 2, 1), made)
        for file in (f"{case}.nii.gz", f"entropy/{case}.nii.gz", f"mean/{case}.nii.gz"):
            assert_same_geometry(tmp_path / "out" / file, image)


def test_members_are_chosen_by_number(tmp_path: Path) -> None:
    networks = write_run(tmp_path / "run", members=3)
    write_images(tmp_path / "images")
    predict_cases(
        tmp_path / "run", tmp_path / "images", tmp_path / "out", maps=("mean",), members=[2]
    )
    image = tmp_path / "images/case_a_0000.nii.gz"
    expected = member_probabilities(networks[2], image, Preprocessing())
    made = np.moveaxis(loaded(tmp_path / "out/mean/case_a.nii.gz"), -1, 0)
    np.testing.assert_allclose(made, expected, atol=2e-6)
    with pytest.raises(ValueError, match=r"members must be among \[0, 1, 2\], got 3"):
        predict_cases(tmp_path / "run", tmp_path / "images", tmp_path / "x", members=[3])


@pytest.mark.parametrize("head", ["softmax", "sigmoid"])
def test_ensemble_of_saved_members_is_the_ensemble_of_the_run(tmp_path: Path, head: str) -> None:
    write_run(tmp_path / "run", head=head)
    write_images(tmp_path / "images")
    write_references(tmp_path / "labels")
    options = {"labels": tmp_path / "labels"}
    whole = predict_cases(tmp_path / "run", tmp_path / "images", tmp_path / "whole", **options)
    for member in range(2):
        predict_cases(
            tmp_path / "run",
            tmp_path / "images",
            tmp_path / f"member_{member}",
            members=[member],
            maps=(),
            save_probabilities=True,
        )
    folders = [tmp_path / "member_0", tmp_path / "member_1"]
    saved = ensemble_folders(folders, tmp_path / "saved", **options)
    for case in CASES:
        name = f"entropy/{case}.nii.gz"
        np.testing.assert_allclose(
            loaded(tmp_path / "saved" / name), loaded(tmp_path / "whole" / name), atol=2e-6
        )
    assert saved.statistics is not None
    assert whole.statistics is not None
    assert saved.statistics.brier() == pytest.approx(whole.statistics.brier(), rel=1e-5)


def test_dropout_passes_follow_from_the_seed_and_are_averaged(tmp_path: Path) -> None:
    write_run(tmp_path / "run", dropout=0.5)
    write_images(tmp_path / "images")

    def entropy(name: str, **options: object) -> np.ndarray:
        predict_cases(
            tmp_path / "run",
            tmp_path / "images",
            tmp_path / name,
            maps=("entropy", "mutual_information"),
            members=[0],
            **options,
        )
        return loaded(tmp_path / name / "mutual_information/case_b.nii.gz")

    plain = entropy("plain")
    assert np.abs(plain).max() < 1e-6
    five = entropy("five", mc_dropout=5, seed=1)
    assert five.max() > 1e-4
    np.testing.assert_array_equal(entropy("again", mc_dropout=5, seed=1), five)
    assert not np.array_equal(entropy("other", mc_dropout=5, seed=2), five)
    assert not np.array_equal(entropy("six", mc_dropout=6, seed=1), five)


def test_views_are_averaged_within_a_member_or_count_as_members(tmp_path: Path) -> None:
    networks = write_run(tmp_path / "run", members=2)
    write_images(tmp_path / "images")
    image = read(tmp_path / "images/case_a_0000.nii.gz")
    slices = Preprocessing().apply(np.asarray(image.data, np.float32)[None], image)
    views = []  # [member, view, S, C, H, W]
    with torch.no_grad():
        for network in networks:
            turned = []
            for turns in range(4):
                for flip in ((), (3,)):
                    seen = slices.flip(flip).rot90(turns, (2, 3))
                    turned.append(network(seen).rot90(-turns, (2, 3)).flip(flip))
            views.append(torch.stack(turned))
    logits = torch.stack(views).double()
    within = logits.mean(1).softmax(2).mean(0)
    apart = logits.flatten(0, 1).softmax(2)
    entropies = -(apart * apart.log()).sum(2)

    def predicted(name: str, as_members: bool) -> tuple[np.ndarray, np.ndarray]:
        augmentation = InferenceAugmentation(mirror=(1,), rotate=True, as_members=as_members)
        maps = ("mean", "expected_entropy")
        run, images = tmp_path / "run", tmp_path / "images"
        predict_cases(
            run, images, tmp_path / name, cases=["case_a"], augmentation=augmentation, maps=maps
        )
        mean, entropy = (loaded(tmp_path / name / one / "case_a.nii.gz") for one in maps)
        return mean, entropy

    mean, _ = predicted("within", False)
    np.testing.assert_allclose(mean, within.permute(2, 3, 0, 1), atol=2e-6)
    mean, entropy = predicted("apart", True)
    np.testing.assert_allclose(mean, apart.mean(0).permute(2, 3, 0, 1), atol=2e-6)
    np.testing.assert_allclose(entropy, entropies.mean(0).permute(1, 2, 0), atol=4e-6)


def test_patches_are_windows_over_the_slices(tmp_path: Path) -> None:
    (network,) = write_run(tmp_path / "run", members=1, patch=(4, 4))
    write_images(tmp_path / "images")
    run, images, out = tmp_path / "run", tmp_path / "images", tmp_path / "out"
    predict_cases(run, images, out, cases=["case_a"], maps=("mean",), overlap=0.25)
    image = read(images / "case_a_0000.nii.gz")
    slices = Preprocessing().apply(np.asarray(image.data, np.float32)[None], image)
    logits = sliding_window(network, slices, patch=(4, 4), overlap=0.25, batch_size=3)
    expected = logits.softmax(1).permute(2, 3, 0, 1)
    np.testing.assert_allclose(loaded(out / "mean/case_a.nii.gz"), expected, atol=2e-6)


def test_volumes_are_predicted_in_three_dimensions_through_windows(tmp_path: Path) -> None:
    plan = Preprocessing(dims=3, spacing=(1.5, 2.0, 2.5), normalisation="zscore")
    networks = write_run(tmp_path / "run", preprocessing=plan, patch=(8, 4, 4), dims=3)
    write_images(tmp_path / "images")
    run, images, out = tmp_path / "run", tmp_path / "images", tmp_path / "out"
    predict_cases(run, images, out, cases=["case_a"], maps=("mean",), batch_size=3)
    image = images / "case_a_0000.nii.gz"
    volume = read(image)
    seen = plan.apply(np.asarray(volume.data, np.float32)[None], volume)
    members = []
    for network in networks:
        logits = sliding_window(network, seen, patch=(8, 4, 4), batch_size=1)
        members.append(plan.invert(logits.softmax(1), volume).double().numpy())
    made = np.moveaxis(loaded(out / "mean/case_a.nii.gz"), -1, 0)
    np.testing.assert_allclose(made, np.mean(members, axis=0), atol=2e-6)
    np.testing.assert_allclose(made.sum(0), 1, atol=1e-6)
    np.testing.assert_array_equal(loaded(out / "case_a.nii.gz"), made.argmax(0))
    assert_same_geometry(out / "case_a.nii.gz", image)


def test_memory_that_runs_out_is_one_line_that_says_what_to_lower(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_run(tmp_path / "run")
    write_images(tmp_path / "images")

    def full(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    monkeypatch.setattr("fastcal.predict.members.sliding_window", full)
    with pytest.raises(ValueError, match=r"^case_a: out of memory on cpu: lower batch_size \(5\)$"):
        predict_cases(tmp_path / "run", tmp_path / "images", tmp_path / "out", batch_size=5)


def test_noise_follows_from_the_seed_and_counts_as_members(tmp_path: Path) -> None:
    write_run(tmp_path / "run", members=1)
    write_images(tmp_path / "images")

    def information(name: str, seed: int) -> np.ndarray:
        augmentation = InferenceAugmentation(noise=0.3, draws=3, as_members=True)
        predict_cases(
            tmp_path / "run",
            tmp_path / "images",
            tmp_path / name,
            cases=["case_a"],
            maps=("mutual_information",),
            augmentation=augmentation,
            seed=seed,
        )
        return loaded(tmp_path / name / "mutual_information/case_a.nii.gz")

    first = information("first", 1)
    assert first.max() > 1e-4
    np.testing.assert_array_equal(information("again", 1), first)
    assert not np.array_equal(information("other", 2), first)


def test_half_precision_is_close_and_noted(tmp_path: Path) -> None:
    write_run(tmp_path / "run", members=1)
    write_images(tmp_path / "images")
    for precision in ("float32", "bf16"):
        predict_cases(
            tmp_path / "run",
            tmp_path / "images",
            tmp_path / precision,
            cases=["case_a"],
            maps=("mean",),
            precision=precision,
        )
    full, half = (
        loaded(tmp_path / precision / "mean/case_a.nii.gz") for precision in ("float32", "bf16")
    )
    assert 0 < np.abs(full - half).max() < 0.05
    assert json.loads((tmp_path / "bf16/prediction.json").read_text())["precision"] == "bf16"


def test_memory_grows_neither_with_members_nor_with_passes_nor_with_views(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_run(tmp_path / "run", members=3, dropout=0.5, num_classes=8)
    write_images(tmp_path / "images")
    member = 8 * int(np.prod(SHAPE))
    held: list[int] = []

    class Counting(EnsembleAccumulator):
        """Counts what is alive, of a member's size and more, whenever a member is added."""

        def update(self, *arguments: Any, **options: Any) -> None:
            alive = [one for one in gc.get_objects() if type(one) is torch.Tensor]
            storages = [one.untyped_storage() for one in alive]
            # Small ones first: of those that a compiler left behind no address can be asked.
            large = [storage for storage in storages if storage.nbytes() >= 4 * member]
            held.append(sum({one.data_ptr(): one.nbytes() for one in large}.values()))
            super().update(*arguments, **options)

    monkeypatch.setattr("fastcal.cases.settings.EnsembleAccumulator", Counting)

    def peak(name: str, members: int, passes: int, mirror: tuple[int, ...]) -> int:
        held.clear()
        predict_cases(
            tmp_path / "run",
            tmp_path / "images",
            tmp_path / name,
            cases=["case_a"],
            members=range(members),
            mc_dropout=passes,
            augmentation=InferenceAugmentation(mirror=mirror, as_members=True),
        )
        assert len(held) == members * passes * 2 ** len(mirror)
        return max(held)

    # One member and the sums; from the second member on, which finds the sums already there.
    assert peak("few", 2, 1, ()) == peak("many", 3, 2, (0,)) > 0


def test_long_case_tells_how_far_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(tmp_path / "run", dropout=0.5)
    write_images(tmp_path / "images")
    monkeypatch.setattr("fastcal.predict.progress.EVERY", 0.0)
    run, images, out = tmp_path / "run", tmp_path / "images", tmp_path / "out"
    predict_cases(run, images, out, cases=["case_a"], mc_dropout=2, progress=True)
    lines = capsys.readouterr().err.splitlines()
    assert [line.rpartition(",")[0] for line in lines] == [
        *(f"case_a: {done} of 4 passes" for done in (1, 2, 3)),
        "1/1 case_a",
    ]


def test_dropout_leaves_the_global_random_state_alone(tmp_path: Path) -> None:
    write_run(tmp_path / "run", dropout=0.5)
    write_images(tmp_path / "images")
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    predict_cases(tmp_path / "run", tmp_path / "images", tmp_path / "out", mc_dropout=2)
    assert torch.equal(torch.rand(3), expected)


def test_dropout_on_a_network_without_any_is_an_error(tmp_path: Path) -> None:
    write_run(tmp_path / "run")
    write_images(tmp_path / "images")
    with pytest.raises(ValueError, match=r"mc_dropout must be 0 .*member_00, got 3; .*--dropout"):
        predict_cases(tmp_path / "run", tmp_path / "images", tmp_path / "out", mc_dropout=3)
