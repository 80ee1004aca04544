"""The paper's losses: values by hand, gradients against autograd and finite differences."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from fastcal import losses
from fastcal.losses import PaperDiceLoss, WeightedCrossEntropy

WEIGHT = [0.5, 2.0, 3.0]


def problem(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    logits = 2 * torch.randn(2, 3, 4, 5, generator=generator, dtype=dtype)
    return logits.requires_grad_(), torch.randint(0, 3, (2, 4, 5), generator=generator)


def one_hot(target: Tensor) -> Tensor:
    return functional.one_hot(target, 3).movedim(-1, 1).double()


def cross_entropy_formula(logits: Tensor, target: Tensor) -> Tensor:
    weight = torch.tensor(WEIGHT, dtype=torch.float64).view(1, 3, 1, 1)
    return -(weight * one_hot(target) * logits.softmax(1).log()).sum() / target.numel()


def dice_formula(logits: Tensor, target: Tensor) -> Tensor:
    p, y = logits.sigmoid(), one_hot(target)
    terms = [
        w * (y[:, k] * p[:, k]).sum() / ((y[:, k] ** 2 + p[:, k] ** 2).sum() + 1e-5)
        for k, w in enumerate(WEIGHT)
    ]
    return -2 * sum(terms, torch.zeros((), dtype=torch.float64))


CASES = [
    pytest.param(WeightedCrossEntropy(weight=WEIGHT), cross_entropy_formula, id="ce"),
    pytest.param(PaperDiceLoss(weight=WEIGHT), dice_formula, id="dice"),
]


@pytest.mark.parametrize(("loss", "formula"), CASES)
def test_value_and_gradient_equal_the_formulas(loss: nn.Module, formula: nn.Module) -> None:
    logits, target = problem()
    value, expected = loss(logits, target), formula(logits, target)
    assert value.item() == pytest.approx(expected.item(), rel=1e-13)
    (gradient,) = torch.autograd.grad(value, logits)
    (expected_gradient,) = torch.autograd.grad(expected, logits)
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-11, atol=1e-14)


@pytest.mark.parametrize("head", ["softmax", "sigmoid"])
@pytest.mark.parametrize("ignore_index", [None, 2])
def test_gradients_equal_finite_differences(head: str, ignore_index: int | None) -> None:
    logits, target = problem()
    logits, target = logits.detach()[..., :2, :2].requires_grad_(), target[:, :2, :2]
    for loss in (
        PaperDiceLoss(head=head, ignore_index=ignore_index),
        WeightedCrossEntropy(weight=WEIGHT, ignore_index=ignore_index),
    ):
        assert torch.autograd.gradcheck(lambda z, loss=loss: loss(z, target), logits)


def test_cross_entropy_divides_by_the_voxels_and_not_by_their_weights() -> None:
    logits, target = problem()
    ours = WeightedCrossEntropy(weight=WEIGHT)(logits, target)
    weight = torch.tensor(WEIGHT, dtype=torch.float64)
    torchs = functional.cross_entropy(logits, target, weight=weight)
    assert ours.item() == pytest.approx((torchs * weight[target].mean()).item(), rel=1e-12)
    assert abs(ours.item() - torchs.item()) > 0.1


def test_cross_entropy_of_uniform_logits_is_the_log_of_the_classes() -> None:
    value = WeightedCrossEntropy()(torch.zeros(2, 3, 4), torch.zeros(2, 4, dtype=torch.uint8))
    assert value.item() == pytest.approx(math.log(3), rel=1e-6)


def test_dice_loss_of_a_perfect_prediction_is_minus_the_number_of_classes() -> None:
    target = torch.tensor([[[0, 1], [2, 0]]], dtype=torch.uint8)
    logits = (200 * one_hot(target.long()) - 100).float()
    assert PaperDiceLoss()(logits, target).item() == pytest.approx(-3.0, abs=1e-4)


def test_dice_loss_takes_its_sums_over_the_whole_batch() -> None:
    """y = (1, 0), p = (1/2, 1/2) for the only class: 2 * 0.5 / (1 + 0.25 + 0.25) = 2/3."""
    target, logits = torch.tensor([[0], [1]]), torch.zeros(2, 2, 1, dtype=torch.float64)
    value = PaperDiceLoss(weight=[1.0, 0.0], eps=0.0)(logits, target)
    assert value.item() == pytest.approx(-2 / 3, rel=1e-12)


@pytest.mark.parametrize("loss_type", [WeightedCrossEntropy, PaperDiceLoss])
def test_ignored_voxels_are_as_good_as_absent(
    loss_type: type[WeightedCrossEntropy] | type[PaperDiceLoss],
) -> None:
    logits, target = problem()
    target[:, 2:] = 255
    value = loss_type(ignore_index=255)(logits, target.to(torch.uint8))
    expected = loss_type()(logits[:, :, :2], target[:, :2])
    assert value.item() == pytest.approx(expected.item(), rel=1e-12)
    nothing = loss_type(ignore_index=255)(logits, torch.full_like(target, 255))
    assert nothing.item() == 0.0


def test_bad_shapes_types_and_weights_are_named() -> None:
    logits, target = problem()
    with pytest.raises(ValueError, match=r"target must have shape \(2, 4, 5\) .*, got \(2, 4\)"):
        WeightedCrossEntropy()(logits, target[..., 0])
    with pytest.raises(TypeError, match=r"target must hold integers, got torch\.float32"):
        PaperDiceLoss()(logits, target.float())
    with pytest.raises(ValueError, match="weight must hold one number per class: 3, got 2"):
        PaperDiceLoss(weight=[1.0, 1.0])(logits, target)
    with pytest.raises(ValueError, match="head must be 'softmax' or 'sigmoid', got 'none'"):
        PaperDiceLoss(head="none")


@pytest.mark.parametrize("name", [name for name in losses.__all__ if name.endswith("Loss")])
def test_losses_run_in_a_script_alone_and_inside_a_module(name: str) -> None:
    class Scaled(torch.nn.Module):
        def __init__(self, loss: torch.nn.Module) -> None:
            super().__init__()
            self.loss = loss

        def forward(self, logits, target):  # type: ignore[no-untyped-def]
            return 2 * self.loss(logits, target)

    dice = losses.DiceLoss()
    given = {"AuxiliaryLoss": (dice, dice), "DeepSupervisionLoss": (dice,), "NACLLoss": (3,)}
    loss = getattr(losses, name)(*given.get(name, ()))
    generator = torch.Generator().manual_seed(5)
    logits = torch.randn(2, 3, 8, 8, generator=generator, requires_grad=True)
    target = torch.randint(0, 3, (2, 8, 8), generator=generator)
    (expected,) = torch.autograd.grad(loss(logits, target), logits)
    (alone,) = torch.autograd.grad(torch.jit.script(loss)(logits, target), logits)
    (inside,) = torch.autograd.grad(torch.jit.script(Scaled(loss))(logits, target), logits)
    torch.testing.assert_close(alone, expected)
    torch.testing.assert_close(inside, 2 * expected)


@pytest.mark.parametrize(
    "loss",
    [
        *(losses.WeightedCrossEntropy(), losses.LabelSmoothingLoss(), losses.MbLSLoss()),
        *(losses.SVLSLoss(), losses.PaperDiceLoss(head="softmax"), losses.DiceLoss()),
        *(losses.DiceCELoss(), losses.HardL1ACELoss(), losses.SoftL1ACELoss()),
        *(losses.FocalLoss(), losses.NACLLoss(1)),
    ],
    ids=lambda loss: type(loss).__name__,
)
def test_a_softmax_of_one_class_is_refused_and_teaches_nothing(loss: nn.Module) -> None:
    with pytest.raises(ValueError, match=r"one class, got 'softmax'|two classes for a softmax"):
        loss(torch.randn(2, 1, 6, 6), torch.zeros(2, 6, 6, dtype=torch.int64))
