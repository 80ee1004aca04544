"""Batches as functions of seed, member and step; shares of foreground; places of patches."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fastcal.data.dataset import Dataset
from fastcal.data.nifti import Geometry
from fastcal.data.prepared import PreparedCases, prepare_cases
from fastcal.train.augmentation import AugmentationConfig
from fastcal.train.batches import BatchSource, SamplingConfig
from fastcal.train.plan import PreprocessingConfig, plan_patch, plan_preprocessing
from fastcal.train.prefetch import prefetching


def cases(*shapes: tuple[int, ...]) -> PreparedCases:
    """Cases ``[N, *P]`` whose image is the label: 1 in one corner, 2 in one voxel, 0 elsewhere.

    The last case has no foreground.
    """
    labels = []
    for number, shape in enumerate(shapes):
        label = torch.zeros(shape, dtype=torch.uint8)
        if number < len(shapes) - 1:
            label[(slice(None), *[slice(2)] * (len(shape) - 1))] = 1
            label[(-1, *[extent // 2 + 1 for extent in shape[1:]])] = 2
        labels.append(label)
    return PreparedCases(
        names=[f"case_{number}" for number in range(len(shapes))],
        images=[label[:, None].float() for label in labels],
        labels=labels,
        foreground=[
            [torch.nonzero(label.flatten() == value).flatten() for value in (1, 2)]
            for label in labels
        ],
        num_classes=3,
        fingerprint="",
        digests=["" for _ in shapes],
    )


SLICES = cases((3, 12, 10), (5, 12, 10), (2, 12, 10))
VOLUMES = cases((1, 12, 14, 9), (1, 20, 9, 11), (1, 6, 6, 6))


@pytest.mark.parametrize(
    ("prepared", "options"),
    [
        (SLICES, {"augmentation": AugmentationConfig(preset="nnunet", noise=1)}),
        (VOLUMES, {"patch": (8, 8, 8), "oversample": 0.5}),
        (VOLUMES, {"patch": (8, 8, 8), "augmentation": AugmentationConfig(preset="nnunet")}),
    ],
)
def test_a_batch_depends_on_seed_member_and_step_alone(
    prepared: PreparedCases, options: dict[str, object]
) -> None:
    def source(seed: int = 3, member: int = 0) -> BatchSource:
        return BatchSource(prepared, batch_size=4, seed=seed, member=member, **options)

    going = source()
    walked = [going.batch(step) for step in range(5)]
    for step in (4, 1, 3):
        fresh = source().batch(step)
        assert torch.equal(fresh.images, walked[step].images)
        assert torch.equal(fresh.labels, walked[step].labels)
        assert fresh.cases == walked[step].cases
    for other in (source(seed=4), source(member=1)):
        batches = [other.batch(step) for step in range(5)]
        assert any(
            not torch.equal(a.images, b.images) for a, b in zip(batches, walked, strict=True)
        )
    first = walked[0]
    assert (first.images.dtype, first.labels.dtype) == (torch.float32, torch.int64)


def test_every_item_is_seen_equally_often_across_the_ends_of_epochs() -> None:
    source = BatchSource(SLICES, batch_size=4, seed=1)
    assert len(source) == 10
    seen = Counter(case for step in range(5) for case in source.batch(step).cases)
    assert seen == {"case_0": 6, "case_1": 10, "case_2": 4}
    volumes = BatchSource(VOLUMES, batch_size=2, patch=(4, 4, 4), seed=1)
    seen = Counter(case for step in range(6) for case in volumes.batch(step).cases)
    assert seen == {"case_0": 4, "case_1": 4, "case_2": 4}


@pytest.mark.parametrize(
    ("batch_size", "oversample", "forced"),
    [(2, 0.33, 1), (4, 0.5, 2), (12, 0.33, 4), (3, 0.0, 0), (3, 1.0, 3)],
)
def test_the_last_items_show_a_foreground_voxel_in_their_centre(
    batch_size: int, oversample: float, forced: int
) -> None:
    source = BatchSource(VOLUMES, batch_size=batch_size, patch=(1, 1, 1), oversample=oversample)
    classes: Counter[int] = Counter()
    for step in range(40):
        batch = source.batch(step)
        values = batch.labels.flatten().tolist()
        for value, name in zip(values[batch_size - forced :], batch.cases[-forced:], strict=False):
            assert (value > 0) == (name != "case_2"), "where there is none, a patch anywhere"
            classes[value] += 1
        rare = sum(value > 0 for value in values[: batch_size - forced])
        assert rare <= 2
    if forced:
        # Classes are chosen evenly, though 1 has eight voxels and 2 has one.
        assert classes[1] == pytest.approx(classes[2], rel=0.4)


def test_whole_slices_are_drawn_that_hold_the_foreground() -> None:
    source = BatchSource(SLICES, batch_size=4, oversample=0.5, seed=0)
    held = Counter()
    for step in range(30):
        batch = source.batch(step)
        assert batch.images.shape == (4, 1, 12, 10)
        held.update(batch.labels[2:].flatten(1).amax(1).tolist())
    # Class 2 is in the last slice alone; half of the draws ask for it.
    assert held[2] > 15


def test_patches_lie_inside_and_small_items_in_the_middle() -> None:
    source = BatchSource(VOLUMES, batch_size=3, patch=(8, 10, 8), seed=2)
    for step in range(6):
        batch = source.batch(step)
        assert torch.equal(batch.images[:, 0].long(), batch.labels)
    marked = replace(VOLUMES, images=[torch.ones_like(image) for image in VOLUMES.images])
    batch = BatchSource(marked, batch_size=3, patch=(8, 10, 8)).batch(0)
    for image, name in zip(batch.images[:, 0], batch.cases, strict=True):
        extents = VOLUMES.labels[VOLUMES.names.index(name)].shape[1:]
        inside = torch.zeros(8, 10, 8)
        box = []
        for wanted, extent in zip((8, 10, 8), extents, strict=True):
            before = max(0, (wanted - extent) // 2)
            box.append(slice(before, before + min(wanted, extent)))
        inside[tuple(box)] = 1
        assert torch.equal(image, inside)


def test_a_rotation_brings_in_what_lies_around_the_patch() -> None:
    prepared = cases((1, 40, 40), (1, 40, 40))
    prepared = replace(prepared, images=[torch.ones_like(image) for image in prepared.images])
    # Patches from the middle of an item: nothing they can reach lies outside.
    middle = [[torch.tensor([20 * 40 + 20])] * 2] * 2
    source = BatchSource(
        replace(prepared, foreground=middle),
        batch_size=8,
        patch=(12, 12),
        oversample=1.0,
        augmentation=AugmentationConfig(rotation=1, scaling=1, scaling_range=(0.7, 0.7)),
    )
    batch = source.batch(0)
    assert batch.images.shape == (8, 1, 12, 12)
    torch.testing.assert_close(batch.images, torch.ones_like(batch.images))


def test_one_tensor_of_all_items_gives_the_same_batches() -> None:
    together = replace(SLICES, stacked=(torch.cat(SLICES.images), torch.cat(SLICES.labels)))
    for step in range(3):
        one, other = (
            BatchSource(prepared, batch_size=4, oversample=0.5).batch(step)
            for prepared in (SLICES, together)
        )
        assert torch.equal(one.images, other.images)
        assert torch.equal(one.labels, other.labels)


# --- prefetching


def test_prefetched_batches_are_the_same() -> None:
    source = BatchSource(
        VOLUMES,
        batch_size=2,
        patch=(8, 8, 8),
        augmentation=AugmentationConfig(preset="nnunet"),
    )
    for step, batch in zip(
        range(3, 9), prefetching(source, range(3, 9), threaded=True), strict=True
    ):
        assert torch.equal(batch.images, source.batch(step).images)


def test_an_error_in_the_thread_surfaces_and_a_reader_may_leave() -> None:
    source = BatchSource(SLICES, batch_size=4)

    def steps() -> Iterator[int]:
        yield 0
        raise OSError(28, "No space left on device")

    batches = prefetching(source, steps(), threaded=True)
    next(batches)
    with pytest.raises(OSError, match="No space left"):
        next(batches)
    endless = prefetching(source, iter(int, 1), threaded=True)
    next(endless)
    endless.close()


# --- refused


@pytest.mark.parametrize(
    ("prepared", "options", "message"),
    [
        (VOLUMES, {}, r"patch must be set .*, got None for 3 sizes from \(6, 6, 6\) to"),
        (VOLUMES, {"patch": (8, 8)}, r"patch must be 3 positive extents.*, got \(8, 8\)"),
        (SLICES, {"batch_size": 0}, "batch_size must be at least 1, got 0"),
        (SLICES, {"oversample": 1.5}, r"oversample must lie in \[0, 1\], got 1\.5"),
        (SLICES.select([]), {}, "prepared must hold at least one case, got none"),
    ],
)
def test_a_bad_argument_is_named(
    prepared: PreparedCases, options: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        BatchSource(prepared, **{"batch_size": 2, **options})


def test_sampling_settings_default_to_whole_slices() -> None:
    assert SamplingConfig().model_dump() == {"batch_size": 32, "patch": None, "oversample": 0.0}
    with pytest.raises(ValueError, match="oversample"):
        SamplingConfig(oversample=2)


# --- real cases


@pytest.mark.data
def test_hippocampus_patches_show_what_the_files_hold(data_dir: Path, tmp_path: Path) -> None:
    dataset = Dataset.open(data_dir)
    chosen = dataset.cases[:6]
    config = PreprocessingConfig(dims=3, spacing="median", normalisation="auto")
    planned = plan_preprocessing(dataset, chosen, config, divisor=8, patches=True)
    assert planned.spacing == pytest.approx((1.0, 1.0, 1.0))
    patch = plan_patch(chosen, planned, divisor=8)
    assert patch == (40, 56, 40)
    prepared = prepare_cases(dataset, chosen, planned, tmp_path)
    for case, label in zip(chosen, prepared.labels, strict=True):
        image, reference, like = case.load()
        assert reference is not None
        assert isinstance(like, Geometry)
        back = planned.invert((label == 1)[:, None].float(), like)[0]
        np.testing.assert_array_equal(back.numpy() > 0.5, reference == 1)
        del image
    source = BatchSource(prepared, batch_size=2, patch=patch, oversample=0.33)
    batch = source.batch(0)
    assert batch.images.shape == (2, 1, *patch)
    assert set(batch.labels[1].unique().tolist()) == {0, 1, 2}
