"""Losses by name, deep supervision, and the margin loss."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from fastcal.losses import (
    DeepSupervisionLoss,
    DiceCELoss,
    DiceLoss,
    DicePlusPlusLoss,
    MbLSLoss,
    PaperDiceLoss,
    SoftL1ACELoss,
    WeightedCrossEntropy,
    build_loss,
)
from fastcal.losses.build import AUXILIARIES, LOSSES

SETTING = {"head": "softmax", "num_classes": 3}


def problem(*extents: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    shape = extents or (6, 4)
    logits = 3 * torch.randn(2, 3, *shape, generator=generator, dtype=torch.float64)
    return logits, torch.randint(0, 3, (2, *shape), generator=generator)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("extents", [(6, 4), (4, 4, 3)], ids=["2d", "3d"])
def test_every_name_gives_a_loss_with_a_gradient(name: str, extents: tuple[int, ...]) -> None:
    logits, target = problem(*extents)
    loss = build_loss(name, **SETTING)
    (gradient,) = torch.autograd.grad(loss(logits.requires_grad_(), target), logits)
    assert gradient.isfinite().all()
    assert gradient.abs().sum() > 0


def test_settings_reach_the_loss() -> None:
    logits, target = problem()
    weights = [0.5, 1.0, 2.0]
    shared = {"num_classes": 3, "class_weights": weights, "ignore_index": 1}
    pairs = [
        (
            build_loss("ce", head="softmax", label_smoothing=0.1, **shared),
            WeightedCrossEntropy(weight=weights, ignore_index=1, label_smoothing=0.1),
        ),
        (
            build_loss("dice", head="sigmoid", eps=0.1, **shared),
            PaperDiceLoss(head="sigmoid", weight=weights, ignore_index=1, eps=0.1),
        ),
    ]
    for built, made in pairs:
        assert built(logits, target) == made(logits, target)


@pytest.mark.parametrize("auxiliary", AUXILIARIES)
def test_an_auxiliary_loss_is_added_with_its_factor(auxiliary: str) -> None:
    logits, target = problem()
    both = build_loss(f"dice-ce+{auxiliary}", **SETTING, auxiliary={"n_bins": 5, "factor": 0.25})
    alone = AUXILIARIES[auxiliary](n_bins=5)
    expected = DiceCELoss()(logits, target) + 0.25 * alone(logits, target)
    assert both(logits, target).item() == pytest.approx(expected.item(), rel=1e-12)


def test_unknown_names_and_options_are_named() -> None:
    with pytest.raises(ValueError, match=r"loss must be one of ce, dice.*, got 'iou'"):
        build_loss("iou", **SETTING)
    with pytest.raises(ValueError, match=r"loss must be .*, got 'ce\+brier'"):
        build_loss("ce+brier", **SETTING)
    with pytest.raises(ValueError, match="options of focal must be among gamma, got gama"):
        build_loss("focal", **SETTING, gama=3)
    with pytest.raises(ValueError, match=r"options of soft-l1ace must be among .*, got bins"):
        build_loss("ce+soft-l1ace", **SETTING, auxiliary={"bins": 3})
    with pytest.raises(ValueError, match="auxiliary must be empty for"):
        build_loss("ce", **SETTING, auxiliary={"n_bins": 3})
    with pytest.raises(
        ValueError, match="head must be 'softmax' for the loss 'svls', got 'sigmoid'"
    ):
        build_loss("svls", head="sigmoid", num_classes=3)
    with pytest.raises(ValueError, match="ignore_index must be None for the loss 'nacl'"):
        build_loss("nacl", **SETTING, ignore_index=2)
    with pytest.raises(ValueError, match="class_weights must hold one number per class: 3, got 2"):
        build_loss("ce", **SETTING, class_weights=[1.0, 2.0])


# --- deep supervision -----------------------------------------------------------------------------


def test_deep_supervision_weighs_the_loss_of_every_resolution() -> None:
    logits, target = problem(8, 4)
    coarse = functional.avg_pool2d(logits, 2)
    loss = WeightedCrossEntropy()
    fine_value, coarse_value = loss(logits, target), loss(coarse, target[:, 1::2, 1::2])
    halved = DeepSupervisionLoss(loss)([logits, coarse], target)
    assert halved.item() == pytest.approx((2 * fine_value + coarse_value).item() / 3, rel=1e-12)
    given = DeepSupervisionLoss(loss, weights=(1.0, 0.25))([logits, coarse], target)
    assert given.item() == pytest.approx((fine_value + 0.25 * coarse_value).item(), rel=1e-12)
    assert DeepSupervisionLoss(loss)(logits, target) == fine_value


def test_targets_are_brought_to_a_resolution_as_torch_does_by_nearest_centres() -> None:
    from fastcal.losses.deep_supervision import resized_target

    labels = torch.randint(0, 5, (2, 9, 8, 7), generator=torch.Generator().manual_seed(0))
    for extents in ((3, 4, 7), (4, 3, 2), (18, 8, 3)):
        expected = functional.interpolate(labels[:, None].double(), extents, mode="nearest-exact")
        assert torch.equal(resized_target(labels, extents), expected[:, 0].long())


def test_deep_supervision_names_what_does_not_fit() -> None:
    logits, target = problem(8, 4)
    with pytest.raises(ValueError, match=r"logits must hold .*, got an empty list"):
        DeepSupervisionLoss(WeightedCrossEntropy())([], target)
    with pytest.raises(ValueError, match=r"logits must have .*, got 2 resolutions"):
        DeepSupervisionLoss(WeightedCrossEntropy(), weights=(1.0,))([logits, logits], target)
    with pytest.raises(ValueError, match="weights must be numbers of at least 0"):
        DeepSupervisionLoss(WeightedCrossEntropy(), weights=(1.0, -1.0))


# --- margin ---------------------------------------------------------------------------------------


def test_margin_loss_is_cross_entropy_inside_the_margin_and_grows_beyond_it() -> None:
    logits, target = problem()
    cross_entropy = WeightedCrossEntropy()(logits, target)
    assert MbLSLoss(margin=100.0)(logits, target) == cross_entropy
    apart = (logits.amax(1, keepdim=True) - logits).clamp(min=2.0) - 2.0
    value = MbLSLoss(margin=2.0, alpha=0.3)(logits, target)
    assert value.item() == pytest.approx((cross_entropy + 0.3 * apart.mean()).item(), rel=1e-12)
    target[0] = 255
    kept = MbLSLoss(margin=2.0, ignore_index=255)(logits, target)
    assert kept.item() == pytest.approx(MbLSLoss(margin=2.0)(logits[1:], target[1:]).item())


def test_dice_plus_plus_is_dice_at_gamma_1_and_forgives_the_unsure_above() -> None:
    logits, target = problem()
    target[0, 0] = 255
    for head in ("softmax", "sigmoid"):
        dice = DiceLoss(head=head, ignore_index=255)(logits, target)
        plus = DicePlusPlusLoss(gamma=1.0, head=head, ignore_index=255)(logits, target)
        assert plus.item() == pytest.approx(dice.item(), rel=1e-12)
        assert DicePlusPlusLoss(head=head, ignore_index=255)(logits, target) < dice
    with pytest.raises(ValueError, match=r"gamma must be at least 1, got 0\.5"):
        DicePlusPlusLoss(gamma=0.5)


# --- training together ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["ce", "dice", "soft-dice", "dice-ce", "label-smoothing", "svls", "mbls"]
)
def test_losses_may_be_mapped_over_members(name: str) -> None:
    logits, target = problem()
    members, targets = torch.stack([logits, -logits, 2 * logits]), torch.stack([target] * 3)
    targets[1] = targets[1].flip(1)
    loss = build_loss(name, **SETTING, ignore_index=2)
    step = torch.func.grad_and_value(loss)
    gradients, values = torch.func.vmap(step)(members, targets)
    for m in range(3):
        gradient, value = step(members[m], targets[m])
        torch.testing.assert_close(values[m], value, rtol=1e-12, atol=0)
        torch.testing.assert_close(gradients[m], gradient, rtol=1e-10, atol=1e-14)


def test_soft_calibration_loss_may_be_mapped_over_members() -> None:
    logits, target = problem()
    members, targets = torch.stack([logits, 2 * logits]), torch.stack([target] * 2)
    loss = SoftL1ACELoss()
    values = torch.func.vmap(loss)(members, targets)
    assert values[1].item() == pytest.approx(loss(members[1], target).item(), rel=1e-12)
