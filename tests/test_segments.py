"""Segment scores: the values of the formulas, and the same from every way to compute them."""

from __future__ import annotations

import numpy as np
import pytest
import segment_oracle
import torch
from engines import on_every_engine
from members import logits

import fastcal
from fastcal import EnsembleAccumulator, SegmentSettings, ensemble_statistics, segment_scores
from fastcal.segments import SCORES
from fastcal.segments.interior import interior

SETTINGS = SegmentSettings(
    spacing=(1.5, 1.0, 0.5), pairs=True, interior_voxels=1.0, patch=3, component_voxels=2
)


def blobs(
    classes: int = 3, members: int = 3, size: tuple[int, ...] = (13, 12, 11)
) -> list[torch.Tensor]:
    """Members that agree on large structures: noise that is smooth, plus a little of its own."""
    generator = torch.Generator().manual_seed(classes)
    coarse = torch.randn(2, classes, 4, 4, 4, generator=generator)
    common = 6 * torch.nn.functional.interpolate(coarse, size, mode="trilinear")
    return [common + torch.randn(common.shape, generator=generator) for _ in range(members)]


def assert_scores_equal(got: fastcal.SegmentScores, wanted: fastcal.SegmentScores) -> None:
    for name in SCORES:
        one, other = getattr(got, name), getattr(wanted, name)
        assert (one is None) == (other is None), name
        if one is not None:
            assert torch.equal(
                torch.as_tensor(one).nan_to_num(-1.0), torch.as_tensor(other).nan_to_num(-1.0)
            ), name


@on_every_engine
@pytest.mark.parametrize("multilabel", [False, True])
@pytest.mark.parametrize("paper_clip", [False, True])
def test_every_score_is_that_of_the_formulas(paper_clip: bool, multilabel: bool) -> None:
    members = blobs()
    settings = SegmentSettings(
        spacing=(1.5, 1.0, 0.5),
        pairs=True,
        paper_clip=paper_clip,
        interior_voxels=1.5,
        patch=3,
        component_voxels=2,
    )
    got = ensemble_statistics(members, maps=(), multilabel=multilabel, segments=settings).segments
    wanted = segment_oracle.scores(
        [member.double().numpy() for member in members],
        multilabel=multilabel,
        spacing=(1.5, 1.0, 0.5),
        paper_clip=paper_clip,
        depth=1.5,
        patch=3,
        smallest=2,
    )
    assert got.available == SCORES
    for name in SCORES:
        np.testing.assert_allclose(got[name], wanted[name], rtol=2e-6, atol=1e-7, err_msg=name)


@on_every_engine
@pytest.mark.parametrize("multilabel", [False, True])
@pytest.mark.parametrize("space", ["prob", "logit"])
def test_streaming_equals_one_shot(space: str, multilabel: bool) -> None:
    members = blobs()
    options = {"multilabel": multilabel, "space": space, "segments": SETTINGS}
    weights, temperatures = [1.0, 0.5, 2.0], [1.0, 1.5, 0.7]
    whole = ensemble_statistics(
        members, maps=("entropy",), weights=weights, temperature=temperatures, **options
    )
    ensemble = EnsembleAccumulator(("entropy",), **options)
    for member, weight, temperature in zip(members, weights, temperatures, strict=True):
        ensemble.update(member, weight=weight, temperature=temperature)
    ensemble.update(members[0], weight=0.0)
    streamed = ensemble.finalize()
    assert_scores_equal(streamed.segments, whole.segments)
    assert torch.equal(streamed.entropy, whole.entropy)
    assert ("mutual_information" in whole.segments.available) == (space == "prob")


def test_maps_and_calibration_are_those_without_segments() -> None:
    members, target = blobs(), torch.randint(0, 3, (2, 13, 12, 11))
    plain = ensemble_statistics(members, target, maps=("entropy", "variance"))
    both = ensemble_statistics(members, target, maps=("entropy", "variance"), segments=True)
    assert torch.equal(plain.entropy, both.entropy)
    assert torch.equal(plain.variance, both.variance)
    assert plain.calibration.ece() == both.calibration.ece()
    assert plain.segments is None
    assert sorted(both.maps) == ["entropy", "variance"]


@on_every_engine
def test_scores_of_a_saved_mean_are_those_of_the_pass() -> None:
    members = blobs()
    result = ensemble_statistics(
        members, maps=("mean", "label", "entropy", "mutual_information"), segments=True
    )
    saved = segment_scores(
        result.mean,
        result.label.to(torch.int16),
        entropy=result.entropy,
        mutual_information=result.mutual_information,
    )
    for name in saved.available:
        np.testing.assert_array_equal(saved[name], result.segments[name], err_msg=name)
    alone = segment_scores(result.mean)
    for name in ("binary_entropy", "volume", "soft_volume", "confidence", "components"):
        np.testing.assert_array_equal(alone[name], saved[name], err_msg=name)
    np.testing.assert_allclose(alone.entropy, saved.entropy, rtol=1e-5)
    assert alone.mutual_information is None


@pytest.mark.parametrize("class_dim", [0, 1, -1])
def test_the_class_axis_may_lie_anywhere(class_dim: int) -> None:
    mean = torch.stack(blobs(members=1))[0, :1].softmax(1)
    moved = mean[0] if class_dim == 0 else mean.movedim(1, class_dim)
    assert_scores_equal(segment_scores(moved, class_dim=class_dim), segment_scores(mean))
    members = blobs(members=2)
    wanted = ensemble_statistics([it[:1] for it in members], maps=(), segments=SETTINGS).segments
    moved_members = [it[0] if class_dim == 0 else it[:1].movedim(1, class_dim) for it in members]
    got = ensemble_statistics(moved_members, maps=(), class_dim=class_dim, segments=SETTINGS)
    assert_scores_equal(got.segments, wanted)


def test_numpy_gives_numpy() -> None:
    mean = blobs(members=1)[0].softmax(1).numpy()
    assert all(isinstance(segment_scores(mean)[name], np.ndarray) for name in ("volume", "entropy"))


def test_an_empty_segment_has_no_score_but_its_size() -> None:
    mean = torch.tensor([[[0.8, 0.9, 0.7], [0.2, 0.1, 0.3]]])
    scores = segment_scores(mean)
    assert scores.volume.tolist() == [[3.0, 0.0]]
    assert scores.components[0, 1] == 0
    np.testing.assert_allclose(scores.soft_volume, [[2.4, 0.6]], rtol=1e-6)
    for name in ("binary_entropy", "entropy", "confidence", "interior_entropy", "patch_entropy"):
        assert scores[name].isnan().tolist() == [[False, True]], name


def test_agreement_is_known_where_only_some_members_have_a_structure() -> None:
    members = [torch.tensor([[[4.0, 4.0, 4.0], [0.0, 0.0, last]]]) for last in (5.0, 0.0, 0.0)]
    scores = ensemble_statistics(members, maps=(), segments=SegmentSettings(pairs=True)).segments
    assert scores.volume.tolist() == [[3.0, 0.0]]
    assert scores.pooled_pairwise_dice[0, 1] == 0
    assert scores.pairwise_dice[0, 1] == 0
    np.testing.assert_allclose(scores.volume_spread[0, 1], 1 / np.sqrt(3))


def test_one_member_agrees_with_nobody() -> None:
    scores = ensemble_statistics(
        blobs(members=1), maps=(), segments=SegmentSettings(pairs=True)
    ).segments
    for name in ("pooled_pairwise_dice", "pairwise_dice", "volume_spread"):
        assert scores[name].isnan().all(), name


@pytest.mark.parametrize("depth", [0.0, 1.0, 2.5, 4.0])
@pytest.mark.parametrize("steps", [(1.0, 1.0, 1.0), (0.7, 1.3, 2.5)])
def test_the_interior_is_what_the_distance_transform_says(
    depth: float, steps: tuple[float, ...]
) -> None:
    from scipy import ndimage

    labels = torch.stack(blobs(4, 1, (19, 17, 15)))[0].argmax(1)
    labels[1] = 3  # one class: no boundary
    wanted = np.zeros(labels.shape, bool)
    for item, k in np.ndindex(2, 4):
        inside = labels[item].numpy() == k
        if inside.all():
            wanted[item] = True
        else:
            distance = ndimage.distance_transform_edt(inside, sampling=steps)
            wanted[item] |= inside & (distance > depth * (1 + 1e-7))
    np.testing.assert_array_equal(interior(labels, depth, steps).numpy(), wanted)


def test_labels_of_every_integer_type_mean_the_same() -> None:
    mean = blobs(members=1)[0].softmax(1)
    label = mean.argmax(1)
    label[:, 0] = -1
    wanted = segment_scores(mean, label)
    for dtype in (torch.int8, torch.uint8, torch.int16, torch.uint16, torch.int32, torch.uint32):
        assert_scores_equal(segment_scores(mean, label.to(dtype)), wanted)


def test_rows_name_the_structures() -> None:
    scores = segment_scores(torch.tensor([[[0.9, 0.2], [0.1, 0.8]]]))
    (case,) = scores.rows(["background", "tumour"])
    assert case["tumour"]["volume"] == 1.0
    assert "pairwise_dice" not in case["tumour"]
    with pytest.raises(ValueError, match="structures must be 2 names, got 1"):
        list(scores.rows(["tumour"]))


def test_a_score_of_members_that_were_not_kept_says_how_to_keep_them() -> None:
    scores = ensemble_statistics(logits(2, 3, (4, 4)), maps=(), segments=True).segments
    with pytest.raises(ValueError, match=r"pairwise_dice must .*pairs=True\), got None"):
        scores["pairwise_dice"]
    with pytest.raises(ValueError, match=r"score must be among .*, got 'dice'"):
        scores["dice"]


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda p: segment_scores(p[:, :1]), ValueError, "multilabel must be True"),
        (lambda p: segment_scores(p * 2), ValueError, r"mean must hold probabilities in \[0, 1\]"),
        (lambda p: segment_scores(p, p.argmax(1) + 1), ValueError, "label must be a class"),
        (lambda p: segment_scores(p * 2, p.argmax(1)), ValueError, "mean must hold"),
        (lambda p: segment_scores(p, p[:, 0]), TypeError, "label must hold integers, got"),
        (lambda p: segment_scores(p, p.argmax(1)[0]), ValueError, "label must have shape"),
        (lambda p: segment_scores(p, entropy=p), ValueError, "entropy must have shape"),
        (
            lambda p: segment_scores(p, entropy=p[:, 0] * float("nan")),
            ValueError,
            "entropy must be finite in every segment",
        ),
        (
            lambda p: segment_scores(p, mutual_information=p[:, 0] * float("inf")),
            ValueError,
            "mutual_information must be finite in every segment",
        ),
        (lambda p: segment_scores(p, spacing=[1.0]), ValueError, "spacing must hold one number"),
        (lambda p: segment_scores(p, spacing=[1, 1, 0]), ValueError, "spacing must be positive"),
        (lambda p: segment_scores(p, spacing=2.0), TypeError, "spacing must be one number per"),
        (lambda p: segment_scores(p, interior_mm=3.0), ValueError, "spacing must be given"),
        (lambda p: segment_scores(p, interior_voxels=-1), ValueError, "interior_voxels must be"),
        (lambda p: segment_scores(p, patch=0), ValueError, "patch must be at least 1, got 0"),
        (lambda p: segment_scores(p, component_voxels=0), ValueError, "component_voxels must be"),
        (lambda p: segment_scores(p, paper_clip=1), TypeError, "paper_clip must be True or False"),
        (lambda p: ensemble_statistics([p], segments=3), TypeError, "segments must be True, False"),
        (
            lambda p: ensemble_statistics([p], segments=SegmentSettings(spacing=[1.0])),
            ValueError,
            "spacing must hold one number",
        ),
        (lambda _: EnsembleAccumulator(segments=None), TypeError, "segments must be True, False"),
    ],
)
def test_bad_arguments_are_named(call: object, error: type[Exception], message: str) -> None:
    mean = blobs(members=1)[0].softmax(1)
    with pytest.raises(error, match=message):
        call(mean)


def test_accumulator_that_refuses_its_first_member_holds_none() -> None:
    ensemble = EnsembleAccumulator(segments=SegmentSettings(spacing=[1.0]))
    with pytest.raises(ValueError, match="spacing must hold one number"):
        ensemble.update(blobs(members=1)[0])
    assert ensemble.n_members == 0
    ensemble.update(torch.zeros(1, 2, 5))
    assert ensemble.finalize().segments.volume.tolist() == [[5.0, 0.0]]
