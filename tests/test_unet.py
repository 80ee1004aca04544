"""The paper's U-Net."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from fastcal.core.errors import DataError
from fastcal.models import UNet, load_member, set_mc_dropout


def multiplications(model: nn.Module, image: torch.Tensor) -> int:
    """Count those of convolutions; a transposed one counts once per output and input channel."""
    total = 0

    def count(module: nn.Module, _inputs: object, output: torch.Tensor) -> None:
        nonlocal total
        if isinstance(module, nn.Conv2d):
            total += output.numel() * module.weight[0].numel()
        elif isinstance(module, nn.ConvTranspose2d):
            total += output.numel() * module.in_channels

    for module in model.modules():
        module.register_forward_hook(count)
    model.eval()(image)
    return total


def test_default_network_has_the_size_of_the_papers() -> None:
    model = UNet(3, 4)
    assert round(sum(p.numel() for p in model.parameters()) / 1e6, 2) == 0.49
    assert 0.55e9 < multiplications(model, torch.zeros(1, 3, 224, 224)) < 0.7e9


@pytest.mark.parametrize("size", [(16, 16), (50, 35), (7, 100), (1, 1)])
def test_any_image_size_comes_back_as_it_went_in(size: tuple[int, int]) -> None:
    model = UNet(2, 3, widths=(4, 4, 8)).eval()
    assert model(torch.zeros(2, 2, *size)).shape == (2, 3, *size)


def test_three_dimensional_network_keeps_the_size() -> None:
    model = UNet(1, 2, dims=3, widths=(2, 4, 4), norm="instance")
    assert model(torch.rand(1, 1, 9, 12, 5)).shape == (1, 2, 9, 12, 5)


def test_padding_inside_equals_zeros_padded_outside() -> None:
    torch.manual_seed(0)
    model = UNet(1, 2, widths=(4, 8)).eval()
    image = torch.rand(1, 1, 5, 7)
    padded = torch.zeros(1, 1, 6, 8)
    padded[..., :5, :7] = image
    torch.testing.assert_close(model(image), model(padded)[..., :5, :7])


def test_every_level_has_two_normalised_convolutions_and_their_weights_are_hes() -> None:
    torch.manual_seed(0)
    model = UNet(1, 2)
    convolutions = [
        m for m in model.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)
    ]
    assert len(convolutions) == len([m for m in model.modules() if isinstance(m, nn.BatchNorm2d)])
    assert [m.out_channels for m in convolutions[:10]] == [8, 8, 16, 16, 32, 32, 64, 64, 128, 128]
    deepest = model.encoder[-1][3]
    assert deepest.weight.std().item() == pytest.approx((2 / (128 * 9)) ** 0.5, rel=0.02)


def test_last_layers_weights_sum_to_zero_over_the_classes() -> None:
    weight = UNet(1, 3, head="sigmoid").classifier.weight
    torch.testing.assert_close(weight.sum(0), torch.zeros(8, 1, 1), atol=1e-6, rtol=0)
    assert weight.std() > 0.1
    assert UNet(1, 1, head="sigmoid").classifier.weight.std() > 0.1


def test_dropout_sits_in_the_deepest_blocks_and_only_it_wakes_for_monte_carlo() -> None:
    torch.manual_seed(0)
    model = UNet(1, 2, widths=(2, 4, 8, 8), dropout=0.5).eval()
    rates = {name: m.p for name, m in model.named_modules() if isinstance(m, nn.Dropout) and m.p}
    assert sorted(rates) == ["decoder.2.6", "encoder.2.6", "encoder.3.6"]
    image = torch.rand(1, 1, 16, 16)
    assert torch.equal(model(image), model(image))
    assert set_mc_dropout(model, True) == 3
    assert not torch.equal(model(image), model(image))
    assert not any(m.training for m in model.modules() if isinstance(m, nn.BatchNorm2d))
    set_mc_dropout(model, False)
    assert torch.equal(model(image), model(image))
    assert set_mc_dropout(UNet(1, 2), True) == 0


def test_softmax_probabilities_sum_to_one_and_sigmoid_ones_need_not() -> None:
    logits = torch.randn(2, 3, 4, 4)
    softmax = UNet(1, 3, head="softmax").probabilities(logits)
    torch.testing.assert_close(softmax.sum(1), torch.ones(2, 4, 4))
    sigmoid = UNet(1, 3, head="sigmoid").probabilities(logits)
    torch.testing.assert_close(sigmoid, 1 / (1 + (-logits).exp()))


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"dims": 1}, "dims"),
        ({"widths": (8,)}, "widths"),
        ({"widths": "4,8"}, "widths"),
        ({"widths": 8}, "widths"),
        ({"strides": 2}, "strides"),
        ({"dropout": 1.0}, "dropout"),
        ({"norm": "layer"}, "norm"),
        ({"head": "argmax"}, "head"),
        ({"num_classes": 0}, "num_classes"),
    ],
)
def test_a_bad_argument_is_named(arguments: dict[str, object], named: str) -> None:
    with pytest.raises(ValueError, match=f"^{named} must .*, got"):
        UNet(**{"in_channels": 1, "num_classes": 2, **arguments})  # type: ignore[arg-type]


def test_an_image_with_other_channels_is_refused() -> None:
    with pytest.raises(ValueError, match=r"image must have shape .*, got \(1, 2, 8, 8\)"):
        UNet(1, 2, widths=(2, 2))(torch.zeros(1, 2, 8, 8))


def test_arguments_build_the_same_network_again() -> None:
    model = UNet(2, 3, widths=(2, 4), dropout=0.25, norm="instance", head="sigmoid")
    again = UNet(**model.arguments)  # type: ignore[arg-type]
    again.load_state_dict(model.state_dict())
    assert again.arguments == model.arguments


def test_a_damaged_or_missing_checkpoint_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"best\.safetensors: no such file"):
        load_member(tmp_path)
    (tmp_path / "best.pt").write_bytes(b"PK\x03\x04 cut short")
    with pytest.raises(DataError, match=r"best\.pt: damaged, or not a checkpoint"):
        load_member(tmp_path)
    torch.save({"weights": torch.zeros(1)}, tmp_path / "best.pt")
    with pytest.raises(DataError, match=r"best\.pt: is not the checkpoint of a member"):
        load_member(tmp_path)
