"""`fastcal.predict.predict_cases`: the members of a run to maps, labels and calibration."""

from __future__ import annotations

import gc
import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import oracle
import pytest
import torch
from cohort import (
    CASES,
    SHAPE,
    assert_same_geometry,
    files_in,
    random_labels,
    write_images,
    write_nifti,
    write_run,
)

from fastcal import EnsembleAccumulator
from fastcal.cli import main
from fastcal.core.errors import DataError
from fastcal.data.nifti import read
from fastcal.data.preprocess import Preprocessing
from fastcal.models import UNet, sliding_window
from fastcal.predict import InferenceAugmentation, ensemble_folders, merge_statistics, predict_cases


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


def write_references(folder: Path) -> None:
    rng = np.random.default_rng(5)
    for case in CASES:
        write_nifti(folder / f"{case}.nii.gz", random_labels(rng))


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

    monkeypatch.setattr("fastcal.cases.combine.EnsembleAccumulator", Counting)

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
    with pytest.raises(
        ValueError, match=r"mc_dropout: got 3, .*member_00 has no dropout; .*--dropout"
    ):
        predict_cases(tmp_path / "run", tmp_path / "images", tmp_path / "out", mc_dropout=3)


def test_killed_run_resumes_to_the_same_files(tmp_path: Path) -> None:
    write_run(tmp_path / "run", dropout=0.5)
    write_images(tmp_path / "images")
    write_references(tmp_path / "labels")
    options = {
        "labels": tmp_path / "labels",
        "mc_dropout": 3,
        "save_probabilities": True,
        "dtype": "uint16",
    }

    def die(_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        predict_cases(
            tmp_path / "run", tmp_path / "images", tmp_path / "killed", progress=die, **options
        )
    resumed = predict_cases(tmp_path / "run", tmp_path / "images", tmp_path / "killed", **options)
    assert (resumed.skipped, resumed.done) == (("case_a",), ("case_b", "case_c"))
    predict_cases(tmp_path / "run", tmp_path / "images", tmp_path / "whole", **options)
    assert files_in(tmp_path / "killed") == files_in(tmp_path / "whole")


def test_shards_add_up_to_the_bytes_of_one_run(tmp_path: Path) -> None:
    write_run(tmp_path / "run")
    write_images(tmp_path / "images")
    write_references(tmp_path / "labels")
    run, images, labels = tmp_path / "run", tmp_path / "images", tmp_path / "labels"
    options: dict[str, Any] = {"labels": labels, "regions": ["band:2"], "fine_bins": 64}
    predict_cases(run, images, tmp_path / "whole", **options)
    for part_id in range(2):
        predict_cases(run, images, tmp_path / "parts", num_parts=2, part_id=part_id, **options)
    merge_statistics(tmp_path / "parts", tmp_path / "parts")
    parts, whole = files_in(tmp_path / "parts"), files_in(tmp_path / "whole")
    assert {name: parts[name] for name in whole} == whole


def test_the_command_counts_regions_and_the_order_of_the_confidence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(tmp_path / "run")
    write_images(tmp_path / "images")
    label = np.zeros(SHAPE, np.uint8)
    label[3:5, 2:4, 2] = [[1, 0], [0, 2]]
    for case in CASES:
        write_nifti(tmp_path / f"labels/{case}.nii.gz", label)
    folders = [str(tmp_path / name) for name in ("run", "images", "out", "labels")]
    arguments = [
        word for pair in zip(("-m", "-i", "-o", "-g"), folders, strict=True) for word in pair
    ]
    wanted = "--save-probabilities --fine-bins 16384 --region box:0:0 box:2:1 -q"
    assert main(["predict", *arguments, *wanted.split()]) == 0
    printed = capsys.readouterr().out
    found = json.loads((tmp_path / "out/calibration.json").read_text())

    tight, box = np.zeros((2, *SHAPE), bool)
    tight[3:5, 2:4, 2] = True
    box[2:6, 1:5, 1:4] = True  # voxels of 2 x 1.5 x 3 mm
    means = [np.load(tmp_path / f"out/{case}.npz")["probabilities"] for case in CASES]
    p = np.stack([mean.transpose(0, 3, 2, 1) for mean in means], 1).astype(np.float64)
    right, confidence = p.argmax(0) == label, p.max(0)
    brier = ((p - np.eye(3)[label].transpose(3, 0, 1, 2)[:, None]) ** 2).sum(0)
    regions = found["regions"]
    for mask, pooled, by_case in (
        (tight, regions["pooled"]["box:0:0"], regions["case"]["box:0:0"]),
        (box, regions["pooled"]["box:2:1"], regions["case"]["box:2:1"]),
        (np.ones(SHAPE, bool), found["pooled"], found["case"]),
    ):
        hit, sure = right[:, mask], confidence[:, mask]
        assert pooled["n_voxels"] == 3 * mask.sum()
        assert pooled["accuracy"] == hit.mean()
        assert pooled["Brier"] == pytest.approx(brier[:, mask].mean(), abs=1e-6)
        cells = oracle.fine_cells(sure.ravel(), 16384)  # voxels of one cell are a tie
        assert pooled["AUROC"] == pytest.approx(oracle.auroc(cells, hit.ravel()), abs=1e-12)
        errors = [oracle.aurc(one, ~own) for one, own in zip(sure, hit, strict=True)]
        assert by_case["AURC"] == pytest.approx(np.mean(errors), abs=1e-3)
        assert f"{pooled['AUROC']:.4f}" in printed
        assert f"{by_case['AURC']:.5f}" in printed
    assert printed.index("region box:0:0") < printed.index("region box:2:1")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--region box", "regions: got ['box'], which need labels"),
        ("--region sphere -g labels", "region: got 'sphere', expected box"),
        ("--region prediction -g labels", "`fastcal evaluate` has it"),
        ("--fine-bins 100 -g labels", "power of two from 64 to 1048576, got 100"),
    ],
)
def test_regions_and_cells_that_cannot_be_counted_are_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: str, message: str
) -> None:
    write_run(tmp_path / "run")
    write_images(tmp_path / "images")
    folders = ["-m", str(tmp_path / "run"), "-i", str(tmp_path / "images")]
    options = words.replace("labels", str(tmp_path / "images")).split()
    assert main(["predict", *folders, "-o", str(tmp_path / "out"), *options]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert not (tmp_path / "out").exists()


def test_split_of_the_run_names_the_cases(tmp_path: Path) -> None:
    write_run(tmp_path / "run")
    write_images(tmp_path / "images")
    run, images = tmp_path / "run", tmp_path / "images"
    assert predict_cases(run, images, tmp_path / "a", cases="test").done == CASES[1:]
    assert predict_cases(run, images, tmp_path / "b", cases=["case_c"]).done == ("case_c",)
    with pytest.raises(ValueError, match="cases: got 'tests'"):
        predict_cases(run, images, tmp_path / "c", cases="tests")
    with pytest.raises(DataError, match="images: no images of case case_x"):
        predict_cases(run, images, tmp_path / "c", cases=["case_x"])


def test_a_split_without_cases_is_an_error(tmp_path: Path) -> None:
    write_run(tmp_path / "run")
    write_images(tmp_path / "images")
    splits = json.loads((tmp_path / "run/splits.json").read_text())
    (tmp_path / "run/splits.json").write_text(json.dumps({**splits, "test": []}))
    with pytest.raises(DataError, match="run: the split of this run has no test cases"):
        predict_cases(tmp_path / "run", tmp_path / "images", tmp_path / "out", cases="test")


def test_weights_that_changed_are_not_mixed_with_those_before(tmp_path: Path) -> None:
    write_run(tmp_path / "run")
    write_images(tmp_path / "images")
    predict_cases(tmp_path / "run", tmp_path / "images", tmp_path / "out", cases=["case_a"])
    checkpoint = torch.load(tmp_path / "run/member_01/best.pt")
    checkpoint["model"]["classifier.bias"] += 1
    torch.save(checkpoint, tmp_path / "run/member_01/best.pt")
    with pytest.raises(DataError, match="made with weights_sha256"):
        predict_cases(tmp_path / "run", tmp_path / "images", tmp_path / "out")
    predict_cases(tmp_path / "run", tmp_path / "images", tmp_path / "out", overwrite=True)


def break_nan(tmp_path: Path) -> str:
    image = np.ones(SHAPE, np.float32)
    image[0, 0, 0] = np.nan
    write_nifti(tmp_path / "images/case_b_0000.nii.gz", image)
    return r"case_b_0000\.nii\.gz: .*NaN"


def break_channels(tmp_path: Path) -> str:
    write_nifti(tmp_path / "images/case_b_0001.nii.gz", np.ones(SHAPE, np.float32))
    return r"case_b_0000\.nii\.gz: 2 channels, expected 1"


def break_fourth_axis(tmp_path: Path) -> str:
    write_nifti(tmp_path / "images/case_b_0000.nii.gz", np.ones((*SHAPE, 2), np.float32))
    return r"case_b_0000\.nii\.gz: 2 channels, expected 1"


def break_gz(tmp_path: Path) -> str:
    path = tmp_path / "images/case_b_0000.nii.gz"
    path.write_bytes(path.read_bytes()[:-30])
    return r"case_b_0000\.nii\.gz: is truncated or corrupt"


def break_label(tmp_path: Path) -> str:
    write_nifti(tmp_path / "labels/case_b.nii.gz", np.full(SHAPE, 9, np.uint8))
    return r"labels/case_b\.nii\.gz: label 9"


@pytest.mark.parametrize(
    "damage", [break_nan, break_channels, break_fourth_axis, break_gz, break_label]
)
def test_bad_case_is_one_line_that_names_the_file_and_spares_the_others(
    tmp_path: Path, damage
) -> None:
    write_run(tmp_path / "run", members=1)
    write_images(tmp_path / "images")
    write_references(tmp_path / "labels")
    message = damage(tmp_path)
    run, images, labels = tmp_path / "run", tmp_path / "images", tmp_path / "labels"
    with pytest.raises(DataError, match=message) as caught:
        predict_cases(run, images, tmp_path / "stopped", labels=labels)
    assert "\n" not in str(caught.value)
    summary = predict_cases(run, images, tmp_path / "out", labels=labels, keep_going=True)
    assert summary.done == ("case_a", "case_c")
    assert [(one.case, one.reason) for one in summary.failed] == [("case_b", str(caught.value))]
    assert not [name for name in files_in(tmp_path / "out") if "case_b" in name]


def test_run_without_members_and_folder_without_images_are_named(tmp_path: Path) -> None:
    write_run(tmp_path / "run", members=0)
    write_images(tmp_path / "images")
    with pytest.raises(DataError, match="run: has no member whose training is finished"):
        predict_cases(tmp_path / "run", tmp_path / "images", tmp_path / "out")
    with pytest.raises(DataError, match=r"config\.json"):
        predict_cases(tmp_path / "nowhere", tmp_path / "images", tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="empty: has no images"):
        predict_cases(tmp_path / "run", tmp_path / "empty", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": 0.0}, "temperature"),
        ({"temperature": float("nan")}, "temperature: got nan"),
        ({"device": "gpu"}, "device must be .*, got 'gpu'"),
        ({"labels": "images", "n_bins": 0}, "n_bins must be between 1 and 65536, got 0"),
        ({"batch_size": 0}, "batch_size"),
        ({"mc_dropout": -1}, "mc_dropout"),
        ({"overlap": 1.0}, "overlap: got 1"),
        ({"resample": "maps"}, "resample: got 'maps', expected 'probabilities' or 'logits'"),
        ({"precision": "int8"}, "precision: got 'int8'"),
        ({"augmentation": InferenceAugmentation(mirror=(2,))}, r"mirror must be .*, got \[2\]"),
        ({"augmentation": InferenceAugmentation(noise=-1.0)}, "noise must be .*, got -1"),
        ({"augmentation": InferenceAugmentation(draws=2)}, "draws must be 1 without noise, got 2"),
        ({"maps": ("sharpness",)}, "maps: got 'sharpness'"),
        ({"space": "logit", "maps": ("variance",)}, "variance"),
        ({"members": []}, "members must hold at least one number, got none"),
        ({"num_parts": 0}, "num_parts: got 0"),
    ],
)
def test_bad_option_is_named_before_anything_is_written(
    tmp_path: Path, options: dict[str, object], message: str
) -> None:
    write_run(tmp_path / "run")
    write_images(tmp_path / "images")
    if "labels" in options:
        options = {**options, "labels": tmp_path / str(options["labels"])}
    with pytest.raises(ValueError, match=message):
        predict_cases(tmp_path / "run", tmp_path / "images", tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


@pytest.mark.data
def test_real_cases_are_predicted_where_they_lie(tmp_path: Path, data_dir: Path) -> None:
    write_run(tmp_path / "run")
    name = sorted((data_dir / "imagesTr").glob("*_0000.nii.gz"))[0].name
    case = name.removesuffix("_0000.nii.gz")
    summary = predict_cases(
        tmp_path / "run",
        data_dir / "imagesTr",
        tmp_path / "out",
        cases=[case],
        labels=data_dir / "labelsTr",
    )
    image = data_dir / "imagesTr" / name
    assert_same_geometry(tmp_path / f"out/{case}.nii.gz", image)
    assert_same_geometry(tmp_path / f"out/entropy/{case}.nii.gz", image)
    assert summary.statistics is not None
    assert summary.statistics.n_voxels == np.prod(nib.load(image).shape)
