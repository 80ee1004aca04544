"""Losses that calibrate, and those of MONAI: values, gradients, ignored voxels."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from scipy.ndimage import correlate
from torch import Tensor, nn
from torch.nn import functional

from fastcal import CalibrationStatistics
from fastcal.losses import (
    DiceCELoss,
    DiceLoss,
    DicePlusPlusLoss,
    FocalLoss,
    HardL1ACELoss,
    LabelSmoothingLoss,
    NACLLoss,
    SoftL1ACELoss,
    SVLSLoss,
    WeightedCrossEntropy,
)

CLASSES = 3


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """These tensors are too small to share."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def problem(*extents: int, seed: int = 5) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shape = extents or (6, 5)
    logits = 2 * torch.randn(2, CLASSES, *shape, generator=generator, dtype=torch.float64)
    target = torch.randint(0, CLASSES, (2, *shape), generator=generator)
    return logits.requires_grad_(), target


LOSSES: dict[str, Callable[[], nn.Module]] = {
    "hard": lambda: HardL1ACELoss(n_bins=7),
    "hard-weighted": lambda: HardL1ACELoss(n_bins=7, weight=[0.5, 1.0, 2.0], ignore_index=2),
    "hard-sigmoid": lambda: HardL1ACELoss(head="sigmoid", include_background=False),
    "soft": lambda: SoftL1ACELoss(n_bins=7),
    "soft-sigmoid": lambda: SoftL1ACELoss(n_bins=4, head="sigmoid", ignore_index=1),
    "label-smoothing": lambda: LabelSmoothingLoss(smoothing=0.2, weight=[0.5, 1.0, 2.0]),
    "svls": lambda: SVLSLoss(ignore_index=2),
    "dice": lambda: DiceLoss(),
    "dice-ce": lambda: DiceCELoss(ignore_index=2),
}


@pytest.mark.parametrize("name", LOSSES)
def test_gradients_equal_finite_differences_in_float64(name: str) -> None:
    logits, target = problem(4, 3)
    loss = LOSSES[name]()
    assert torch.autograd.gradcheck(lambda z: loss(z, target), logits)


@pytest.mark.parametrize("loss", [FocalLoss(), NACLLoss(CLASSES)], ids=["focal", "nacl"])
def test_gradients_of_losses_in_float32_follow_the_loss(loss: nn.Module) -> None:
    logits, target = problem()
    step = 1e-2 * torch.randn(logits.shape, generator=torch.Generator().manual_seed(0))
    (slope,) = torch.autograd.grad(loss(logits, target), logits)
    rise = loss(logits + step, target) - loss(logits - step, target)
    assert rise.item() / 2 == pytest.approx((slope * step).sum().item(), rel=2e-2)


# --- mL1-ACE --------------------------------------------------------------------------------------


def hard_by_hand(p: Tensor, target: Tensor, n_bins: int) -> float:
    errors = []
    for image, labels in zip(p.numpy(), target.numpy(), strict=True):
        for k in range(CLASSES):
            cell = np.ceil(image[k] * n_bins).clip(1) - 1
            gaps = [
                abs(image[k][cell == b].mean() - (labels == k)[cell == b].mean())
                for b in range(n_bins)
                if (cell == b).any()
            ]
            errors.append(np.mean(gaps) if (labels == k).any() else 0.0)
    return float(np.mean(errors))


def soft_by_hand(p: Tensor, target: Tensor, n_bins: int) -> float:
    centres = (np.arange(n_bins) + 0.5) / n_bins
    errors = []
    for image, labels in zip(p.numpy(), target.numpy(), strict=True):
        for k in range(CLASSES):
            inside = image[k].clip(centres[0], centres[-1])
            share = np.maximum(0, 1 - n_bins * np.abs(inside[None] - centres[:, None, None]))
            amount = share.sum((1, 2))
            gap = np.abs((share * (image[k] - (labels == k))).sum((1, 2)))
            kept = amount >= 0.01
            errors.append((gap[kept] / amount[kept]).mean() if (labels == k).any() else 0.0)
    return float(np.mean(errors))


@pytest.mark.parametrize("n_bins", [1, 5, 20])
def test_average_calibration_errors_equal_their_formulas(n_bins: int) -> None:
    logits, target = problem(9, 8)
    target[0][target[0] == 2] = 0  # a class that the first image lacks
    p = logits.detach().softmax(1)
    hard = HardL1ACELoss(n_bins=n_bins)(logits, target).item()
    soft = SoftL1ACELoss(n_bins=n_bins)(logits, target).item()
    assert hard == pytest.approx(hard_by_hand(p, target, n_bins), rel=1e-12)
    assert soft == pytest.approx(soft_by_hand(p, target, n_bins), rel=1e-9)


def test_hard_loss_counts_as_the_statistics_do() -> None:
    """The mean gap of the occupied bins of `CalibrationStatistics`, image by image."""
    logits, target = problem(16, 16)
    statistics = CalibrationStatistics(CLASSES, 20, calibration="classwise")
    statistics.update(logits.detach().softmax(1), target, case_id=[0, 1])
    gaps = []
    for case in (0, 1):
        for k in range(CLASSES):
            curve = statistics.case(case).reliability(k)
            gaps.append(np.nanmean(np.abs(curve.mean_confidence - curve.accuracy)))
    assert HardL1ACELoss()(logits, target).item() == pytest.approx(np.mean(gaps), abs=1e-11)


def test_gradient_of_the_hard_loss_is_the_sign_of_the_gap_over_the_count() -> None:
    """Both voxels share a bin of class 0 and one of class 1: d L / d p = sign / (2 voxels)."""
    p = torch.tensor([[[0.82, 0.84], [0.18, 0.16]]], dtype=torch.float64)
    logits = torch.logit(p).requires_grad_()
    loss = HardL1ACELoss(n_bins=10, head="sigmoid")(logits, torch.tensor([[0, 1]]))
    assert loss.item() == pytest.approx((0.33 + 0.33) / 2)
    (gradient,) = torch.autograd.grad(loss, logits)
    sign = torch.tensor([[[1.0, 1.0], [-1.0, -1.0]]], dtype=torch.float64)
    torch.testing.assert_close(gradient, sign / 2 / 2 * p * (1 - p))


def test_soft_loss_is_continuous_where_the_hard_loss_jumps() -> None:
    def value(loss: nn.Module, p: float) -> float:
        column = torch.tensor([p, 0.31, 0.52], dtype=torch.float64)
        logits = torch.logit(torch.stack([column, 1 - column])[None])
        return float(loss(logits, torch.tensor([[0, 1, 0]])))

    hard, soft = HardL1ACELoss(n_bins=5, head="sigmoid"), SoftL1ACELoss(n_bins=5, head="sigmoid")
    below, above = 0.4 - 1e-9, 0.4 + 1e-9
    assert abs(value(hard, below) - value(hard, above)) > 0.05
    assert value(soft, below) == pytest.approx(value(soft, above), abs=1e-6)


def test_classes_an_image_lacks_count_as_zero_unless_told_otherwise() -> None:
    logits, target = problem()
    target[target == 2] = 0
    kept = HardL1ACELoss(ignore_empty_classes=False)(logits, target)
    assert HardL1ACELoss()(logits, target) < kept


def test_sums_over_a_million_float32_voxels_are_exact() -> None:
    """Every voxel has p = 0.7, half are right: a float32 sum of a million gaps errs by 1e-4."""
    target = torch.zeros(1, 2**20, dtype=torch.uint8)
    target[0, ::2] = 1
    logits = torch.logit(torch.tensor(0.7)).expand(1, 2, 2**20)
    loss = HardL1ACELoss(head="sigmoid")(logits, target)
    assert loss.item() == pytest.approx(0.2, abs=1e-7)


def test_half_precision_logits_are_read_in_float32() -> None:
    logits, target = problem()
    half = logits.detach().half()
    assert HardL1ACELoss()(half, target).item() == HardL1ACELoss()(half.float(), target).item()


@pytest.mark.parametrize("name", ["hard", "soft", "svls", "dice", "dice-ce", "focal", "smooth"])
def test_ignored_voxels_are_as_good_as_absent(name: str) -> None:
    make = {
        "hard": HardL1ACELoss,
        "soft": SoftL1ACELoss,
        "svls": SVLSLoss,
        "dice": DiceLoss,
        "dice-ce": DiceCELoss,
        "focal": FocalLoss,
        "smooth": LabelSmoothingLoss,
    }[name]
    logits, target = problem(6, 4)
    target[:, 3:] = 255
    if name == "svls":  # what the window repeats at the image's edge is ignored voxels here
        target[:, :3] = target[:, :1, :1]
    value = make(ignore_index=255)(logits, target.to(torch.uint8))
    expected = make()(logits[:, :, :3], target[:, :3])
    assert value.item() == pytest.approx(expected.item(), rel=1e-6)
    nothing = make(ignore_index=255)(logits, torch.full_like(target, 255))
    assert torch.isfinite(nothing)


# --- smoothing ------------------------------------------------------------------------------------


def test_label_smoothing_without_a_share_is_cross_entropy() -> None:
    logits, target = problem()
    assert LabelSmoothingLoss(smoothing=0.0)(logits, target) == WeightedCrossEntropy()(
        logits, target
    )
    expected = functional.cross_entropy(logits, target, label_smoothing=0.1)
    assert LabelSmoothingLoss()(logits, target).item() == pytest.approx(expected.item())


@pytest.mark.parametrize("extents", [(7,), (6, 5), (4, 5, 3)], ids=["1d", "2d", "3d"])
def test_svls_targets_are_a_window_over_the_one_hot_target(extents: tuple[int, ...]) -> None:
    logits, target = problem(*extents)
    loss = SVLSLoss(sigma=1.3)
    soft = loss.smoothed(target, None, logits)
    line = np.exp(-(np.arange(-1, 2) ** 2) / (2 * 1.3**2))
    window = np.ones(())
    for _ in extents:
        window = np.multiply.outer(window, line)
    centre = (1,) * len(extents)
    window[centre] = window.sum() - window[centre]
    for k in range(CLASSES):
        hot = (target[0] == k).numpy().astype(float)
        expected = correlate(hot, window / window.sum(), mode="nearest")
        np.testing.assert_allclose(soft[0, k].numpy(), expected, atol=1e-12)
    expected_loss = -(soft * logits.log_softmax(1)).sum(1).mean()
    assert loss(logits, target).item() == pytest.approx(expected_loss.item(), rel=1e-12)


def test_svls_inside_a_structure_is_cross_entropy() -> None:
    logits, target = problem()
    target[:] = 1
    value = SVLSLoss()(logits, target).item()
    assert value == pytest.approx(WeightedCrossEntropy()(logits, target).item(), rel=1e-6)


# --- MONAI's --------------------------------------------------------------------------------------


def test_monai_losses_take_label_maps_and_keep_their_values() -> None:
    import monai.losses as monai

    logits, target = problem()
    nacl = monai.NACLLoss(CLASSES, 2, alpha=0.3)(logits, target)
    assert NACLLoss(CLASSES, alpha=0.3)(logits, target.to(torch.uint8)).item() == nacl.item()


def test_focal_loss_is_cross_entropy_at_gamma_0_and_smaller_above() -> None:
    logits, target = problem()
    cross_entropy = WeightedCrossEntropy()(logits, target).item()
    assert FocalLoss(gamma=0.0)(logits, target).item() == pytest.approx(cross_entropy, rel=1e-6)
    assert FocalLoss()(logits, target).item() < cross_entropy


def test_the_losses_load_monai_only_when_one_of_its_is_made() -> None:
    program = (
        "import sys, fastcal.losses\n"
        "fastcal.losses.HardL1ACELoss()\n"
        "assert 'monai' not in sys.modules\n"
        "sys.modules['monai'] = None\n"
        "try:\n    fastcal.losses.FocalLoss()\n"
        "except ImportError as error:\n    print(error)"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert "fastcal[train]" in result.stdout


def test_bad_arguments_are_named() -> None:
    logits, target = problem()
    with pytest.raises(ValueError, match=r"head must be .*, got 'none'"):
        HardL1ACELoss(head="none")
    with pytest.raises(ValueError, match="n_bins must be between 1"):
        SoftL1ACELoss(n_bins=0)
    with pytest.raises(ValueError, match=r"empty_weight must be above 0, got 0\.0"):
        SoftL1ACELoss(empty_weight=0.0)
    with pytest.raises(ValueError, match="include_background must be True"):
        HardL1ACELoss(include_background=False, head="sigmoid")(logits[:, :1], target)
    with pytest.raises(ValueError, match="kernel_size must be an odd number of at least 3, got 4"):
        SVLSLoss(kernel_size=4)
    with pytest.raises(ValueError, match=r"smoothing must lie in \[0, 1\), got 1\.0"):
        LabelSmoothingLoss(smoothing=1.0)
    with pytest.raises(ValueError, match=r"gamma must be at least 0, got -1\.0"):
        FocalLoss(gamma=-1.0)
    with pytest.raises(ValueError, match=r"target must have shape .*, got \(2, 6\)"):
        SoftL1ACELoss()(logits, target[..., 0])


@pytest.mark.parametrize(
    "make",
    [
        SVLSLoss,
        DicePlusPlusLoss,
        lambda **options: DicePlusPlusLoss(head="sigmoid", **options),
        FocalLoss,
        lambda: NACLLoss(3),
    ],
)
@pytest.mark.parametrize("value", [3, -1, 2**32, 2**32 + 1, -(2**63), 2**63 - 1])
def test_a_target_that_is_no_class_is_refused_by_every_loss(
    make: Callable[..., nn.Module], value: int
) -> None:
    logits, target = torch.zeros(1, 3, 4, 4), torch.ones(1, 4, 4, dtype=torch.int64)
    target[0, 1, 2] = value
    loss = make()
    with pytest.raises(ValueError, match=f"target must hold 0 to 2 or .*, got the value {value}"):
        loss(logits, target)
    if not isinstance(loss, NACLLoss):
        assert torch.isfinite(make(ignore_index=value)(logits, target))


@pytest.mark.parametrize("loss", [HardL1ACELoss(), SoftL1ACELoss()])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_network_that_has_diverged_is_not_calibrated(loss: nn.Module, value: float) -> None:
    logits = torch.randn(2, 3, 4, 4)
    logits[0, :, 1, 2] = value
    assert math.isnan(loss(logits, torch.ones(2, 4, 4, dtype=torch.int64)))
