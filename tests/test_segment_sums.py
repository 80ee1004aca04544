"""The pass over segments: its integers against float64, and the same on every engine."""

from __future__ import annotations

import numpy as np
import pytest
import segment_oracle
import torch
from engines import on_every_engine
from torch import Tensor

import fastcal
from fastcal import ops
from fastcal.core.segment_problem import SegmentProblem, SegmentWords

WORDS = SegmentWords


def problem(
    classes: int = 4,
    shape: tuple[int, ...] = (2, 7, 9, 11),
    *,
    dtype: torch.dtype = torch.float32,
    multilabel: bool = False,
    seed: int = 0,
    clip: bool = False,
) -> SegmentProblem:
    """A volume with everything that a pass can read: sharp and soft voxels, and ignored ones."""
    generator = torch.Generator().manual_seed(seed)
    batch, *voxels = shape
    z = 4 * torch.randn(batch, classes, *voxels, generator=generator, dtype=torch.float64)
    mean = (z.sigmoid() if multilabel else z.softmax(1)).to(dtype)
    real = torch.float64 if dtype == torch.float64 else torch.float32
    label = (mean > 0.5).long() if multilabel else mean.argmax(1)
    ignored = torch.rand(batch, *voxels, generator=generator) < 0.1
    label[ignored.unsqueeze(1).expand_as(label) if multilabel else ignored] = -1
    n = torch.randint(0, 8, mean.shape, generator=generator).to(real)
    return SegmentProblem(
        mean,
        label.to(torch.int16),
        torch.rand(batch, *voxels, generator=generator, dtype=real),
        torch.rand(batch, *voxels, generator=generator, dtype=real) / 8,
        n,
        torch.rand(label.shape, generator=generator) < 0.5,
        -1,
        multilabel,
        True,
        clip,
    )


def sums_of(given: SegmentProblem) -> Tensor:
    batch, classes = given.mean.shape[:2]
    sums = torch.zeros(batch, classes, WORDS.COUNT, dtype=torch.int64)
    ops.segment_sums(*given.flatten(), sums)
    return sums


def real(sums: Tensor, word: int) -> np.ndarray:
    return (sums[..., word].double() + sums[..., word + 1].double() * 2.0**-40).numpy()


REAL_WORDS = {
    "soft": WORDS.SOFT,
    "confidence": WORDS.CONFIDENCE,
    "binary_entropy": WORDS.BINARY_ENTROPY,
    "entropy": WORDS.ENTROPY,
    "mutual_information": WORDS.INFORMATION,
    "interior_entropy": WORDS.INTERIOR_ENTROPY,
}
COUNT_WORDS = {
    "voxels": WORDS.VOXELS,
    "interior": WORDS.INTERIOR,
    "votes": WORDS.VOTES,
    "vote_pairs": WORDS.VOTE_PAIRS,
}


def expected(given: SegmentProblem) -> dict[str, np.ndarray]:
    return segment_oracle.segment_sums(
        given.mean.double().numpy(),
        given.label.numpy(),
        entropy=given.entropy.double().numpy(),
        mutual_information=given.mutual_information.double().numpy(),
        votes=given.votes.long().numpy(),
        interior=given.interior.numpy(),
        paper_clip=given.clip,
    )


@on_every_engine
@pytest.mark.parametrize("multilabel", [False, True])
@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16], ids=str
)
def test_every_sum_is_that_of_the_formulas(
    dtype: torch.dtype, clip: bool, multilabel: bool
) -> None:
    given = problem(dtype=dtype, multilabel=multilabel, clip=clip)
    sums, wanted = sums_of(given), expected(given)
    for name, word in COUNT_WORDS.items():
        np.testing.assert_array_equal(sums[..., word].numpy(), wanted[name], err_msg=name)
    tolerance = 1e-11 if dtype == torch.float64 else 3e-7
    for name, word in REAL_WORDS.items():
        np.testing.assert_allclose(real(sums, word), wanted[name], rtol=tolerance, err_msg=name)
    assert not sums[..., WORDS.BAD_LABEL : WORDS.BAD_INFORMATION + 1].any()


@on_every_engine
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("multilabel", [False, True])
@pytest.mark.parametrize("classes", [1, 2, 5, 70])
def test_the_integers_are_those_of_the_reference(
    classes: int, multilabel: bool, dtype: torch.dtype
) -> None:
    given = problem(classes, (2, 5, 6, 67), dtype=dtype, multilabel=multilabel, seed=classes)
    with fastcal.backend("reference"):
        wanted = sums_of(given)
    assert torch.equal(sums_of(given), wanted)


@on_every_engine
def test_the_integers_do_not_depend_on_strides_threads_or_the_order_of_voxels() -> None:
    given = problem(3, (2, 20, 17, 13))
    wanted = sums_of(given)

    def changed(move: object) -> SegmentProblem:
        fields = [move(it) if isinstance(it, Tensor) else it for it in given.flatten()]
        return SegmentProblem(*fields)

    assert torch.equal(sums_of(changed(lambda it: it.transpose(-1, -2))), wanted)
    assert torch.equal(
        sums_of(changed(lambda it: it.movedim(0, -1).contiguous().movedim(-1, 0))), wanted
    )
    halves = [changed(lambda it, k=k: it.tensor_split(2, -1)[k]) for k in range(2)]
    parts = sum(map(sums_of, halves))
    low = parts[..., WORDS.SOFT + 1 :: 2]
    parts[..., WORDS.SOFT :: 2] += low >> 40
    low &= (1 << 40) - 1
    assert torch.equal(parts, wanted)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        assert torch.equal(sums_of(given), wanted)
    finally:
        torch.set_num_threads(threads)


@on_every_engine
def test_what_is_no_number_is_counted_and_left_out() -> None:
    given = problem(3, (1, 6, 6, 6))
    given.label.fill_(1)
    clean = sums_of(given)
    given.mean[0, 1, 0, 0, 0] = float("nan")
    given.mean[0, 1, 0, 0, 1] = 1.5
    given.entropy[0, 0, 0, 2] = float("inf")
    given.mutual_information[0, 0, 0, 3] = float("nan")
    given.label[0, 0, 0, 4] = 3
    given.label[0, 0, 0, 5] = -2
    sums = sums_of(given)[0]
    assert sums[:, WORDS.BAD_MEAN].tolist() == [0, 2, 0]
    assert sums[:, WORDS.BAD_ENTROPY].tolist() == [0, 1, 0]
    assert sums[:, WORDS.BAD_INFORMATION].tolist() == [0, 1, 0]
    assert sums[:, WORDS.BAD_LABEL].tolist() == [2, 0, 0]
    assert sums[1, WORDS.VOXELS] == clean[0, 1, WORDS.VOXELS] - 4


@on_every_engine
@pytest.mark.parametrize("shape", [(0, 4, 4), (2, 0, 4), (1,), (1, 1)])
def test_volumes_without_voxels_and_single_voxels(shape: tuple[int, ...]) -> None:
    given = problem(3, shape)
    sums = sums_of(given)
    assert sums[..., WORDS.VOXELS].sum() == (given.label >= 0).sum()


@on_every_engine
def test_sums_are_added_to_what_is_there() -> None:
    given = problem(3, (1, 6, 6, 6))
    once = sums_of(given)
    twice = once.clone()
    ops.segment_sums(*given.flatten(), twice)
    np.testing.assert_allclose(real(twice, WORDS.SOFT), 2 * real(once, WORDS.SOFT), rtol=1e-12)
    assert torch.equal(twice[..., WORDS.VOXELS], 2 * once[..., WORDS.VOXELS])
    assert (twice[..., WORDS.SOFT + 1 :: 2] < 1 << 40).all()
