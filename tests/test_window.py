"""`fastcal.models.sliding_window`."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fastcal.models import UNet, sliding_window


@pytest.fixture
def network() -> nn.Module:
    torch.manual_seed(0)
    return UNet(1, 3, widths=(2, 4), norm="batch").eval()


def test_one_window_is_a_plain_forward_pass(network: nn.Module) -> None:
    images = torch.rand(3, 1, 12, 10)
    for patch in (None, (12, 10)):
        for batch_size in (1, 2):
            logits = sliding_window(network, images, patch=patch, batch_size=batch_size)
            torch.testing.assert_close(logits, network(images), rtol=1e-5, atol=1e-6)


def test_image_smaller_than_the_patch_is_padded_about_its_centre(network: nn.Module) -> None:
    images = torch.rand(2, 1, 7, 10)
    padded = nn.functional.pad(images, (0, 0, 2, 3))
    expected = network(padded)[:, :, 2:9]
    assert torch.equal(sliding_window(network, images, patch=(12, 10), batch_size=2), expected)


def test_windows_of_a_pointwise_network_leave_no_seam() -> None:
    pointwise = nn.Conv3d(2, 3, 1).eval()
    images = torch.rand(2, 2, 9, 14, 6)
    logits = sliding_window(pointwise, images, patch=(4, 8, 6), overlap=0.25, batch_size=3)
    torch.testing.assert_close(logits, pointwise(images), rtol=1e-5, atol=1e-6)


def test_windows_are_blended_by_a_gaussian() -> None:
    # Two windows of 8 over 12 voxels: starts 0 and 4. Each says where it is.
    starts = iter((0.0, 1.0))

    def predict(windows: torch.Tensor) -> torch.Tensor:
        return torch.full_like(windows, next(starts))

    blended = sliding_window(predict, torch.zeros(1, 1, 12, 8), patch=(8, 8))[0, 0, :, 4]
    weight = torch.exp(-((torch.arange(8) - 3.5) ** 2) / 2)  # sigma 8 / 8
    expected = torch.zeros(12)
    expected[8:] = 1
    expected[4:8] = weight[:4] / (weight[:4] + weight[4:])
    torch.testing.assert_close(blended, expected, rtol=1e-3, atol=1e-3)


def test_mirroring_changes_nothing_where_the_network_is_symmetric_and_averages_elsewhere(
    network: nn.Module,
) -> None:
    images = torch.rand(1, 1, 8, 8)
    pointwise = nn.Conv2d(1, 3, 1)
    plain = sliding_window(pointwise, images, patch=None)
    mirrored = sliding_window(pointwise, images, patch=None, mirror_axes=(0, 1))
    torch.testing.assert_close(mirrored, plain)
    expected = (network(images) + network(images.flip(3)).flip(3)) / 2
    made = sliding_window(network, images, patch=(8, 8), mirror_axes=(1,))
    torch.testing.assert_close(made, expected)


@pytest.mark.parametrize(
    "options",
    [
        {"patch": (8,)},
        {"patch": (8, 0)},
        {"overlap": 1.0},
        {"batch_size": 0},
        {"mirror_axes": (2,)},
        {"mirror_axes": (0, 0)},
    ],
)
def test_bad_argument_is_named(network: nn.Module, options: dict[str, object]) -> None:
    (name,) = options
    with pytest.raises(ValueError, match=f"^{name.removesuffix('_axes')} must .*, got"):
        sliding_window(network, torch.zeros(1, 1, 8, 8), **{"patch": (8, 8), **options})
