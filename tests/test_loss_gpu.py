"""The fused losses on a GPU: the values and gradients of the CPU, bit for bit again and again."""

from __future__ import annotations

import pytest
import torch
from members import arranged, labels, logits
from torch import nn

from fastcal.losses import DiceCELoss, HardL1ACELoss, PaperDiceLoss, SoftL1ACELoss

pytestmark = pytest.mark.gpu

LOSSES: dict[str, nn.Module] = {
    "dice-ce": DiceCELoss(weight=[0.5, 1.0, 2.0, 1.5, 1.0], label_smoothing=0.1, ignore_index=3),
    "dice": PaperDiceLoss(head="sigmoid"),
    "hard": HardL1ACELoss(),
    "soft": SoftL1ACELoss(head="sigmoid", ignore_index=0),
}


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("layout", ["contiguous", "channels_last", "cropped"])
def test_values_and_gradients_are_those_of_the_cpu(name: str, layout: str) -> None:
    (z,) = logits(1, 5, (37, 41, 23), dtype=torch.float64)
    target = labels(5, (2, 37, 41, 23))
    found = []
    for device in ("cpu", "cuda"):
        own = arranged(z.to(device), layout).requires_grad_()
        value = LOSSES[name].to(device)(own, target.to(device))
        (gradient,) = torch.autograd.grad(value, own)
        found.append((value.item(), gradient.cpu()))
    assert found[1][0] == pytest.approx(found[0][0], rel=1e-11)
    torch.testing.assert_close(found[1][1], found[0][1], rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_narrow_types_follow_float64(dtype: torch.dtype) -> None:
    (z,) = logits(1, 4, (24, 24, 24), dtype=dtype)
    target = labels(4, (2, 24, 24, 24)).cuda()
    loss = DiceCELoss().cuda()
    gradients = []
    for kind in (dtype, torch.float64):
        own = z.cuda().to(kind).requires_grad_()
        gradients.append(torch.autograd.grad(loss(own, target), own)[0].double())
    scale = gradients[1].abs().max().item()
    tolerance = {torch.float32: 2e-5, torch.float16: 5e-3, torch.bfloat16: 1e-2}[dtype]
    torch.testing.assert_close(*gradients, rtol=0, atol=tolerance * scale)


def test_a_loss_has_the_same_bits_every_time() -> None:
    (z,) = logits(1, 4, (128, 96, 80))
    own, target = z.cuda().requires_grad_(), labels(4, (2, 128, 96, 80)).cuda()
    values = [DiceCELoss()(own, target) + SoftL1ACELoss()(own, target) for _ in range(5)]
    gradients = [torch.autograd.grad(value, own)[0] for value in values]
    for value, gradient in zip(values[1:], gradients[1:], strict=True):
        assert torch.equal(value, values[0])
        assert torch.equal(gradient, gradients[0])


def test_members_are_mapped_over() -> None:
    (z,) = logits(1, 4, (16, 16), dtype=torch.float64, batch=6)
    members, target = z.view(3, 2, 4, 16, 16).cuda(), labels(4, (2, 16, 16)).cuda()
    step = torch.func.grad_and_value(DiceCELoss())
    gradients, values = torch.func.vmap(step, in_dims=(0, None))(members, target)
    for m in range(3):
        gradient, value = step(members[m], target)
        torch.testing.assert_close(values[m], value, rtol=1e-12, atol=0)
        torch.testing.assert_close(gradients[m], gradient, rtol=1e-10, atol=1e-14)


def test_a_target_that_is_no_class_makes_the_loss_nan() -> None:
    (z,) = logits(1, 4, (16, 16))
    target = labels(4, (2, 16, 16)).cuda()
    target[0, 0, 0] = 9
    assert DiceCELoss()(z.cuda(), target).isnan()
