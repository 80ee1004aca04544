"""Networks by name, their variants, and their weights on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from fastcal.core.errors import DataError
from fastcal.models import UNet, build_network, load_member, network_spec, save_weights
from fastcal.models.weights import read_weights

SMALL: dict[str, dict[str, Any]] = {
    "paper": {"name": "UNet", "widths": [2, 4, 4], "dropout": 0.5},
    "residual": {"name": "UNet", "widths": [2, 4, 4], "residual": True, "blocks": [1, 2, 1]},
    "strided": {"name": "UNet", "widths": [2, 4, 4], "downsampling": "stride", "norm": "instance"},
    "thick": {
        "name": "UNet",
        "widths": [2, 4, 4],
        "strides": [[1, 2], 2],
        "kernels": [[1, 3], 3, 3],
    },
    "DynUNet": {"name": "DynUNet", "filters": [4, 4, 8], "strides": [1, 2, 2], "head": "sigmoid"},
    "BasicUNet": {"name": "BasicUNet", "features": [2, 2, 2, 4, 4, 2]},
    "own": {"name": "test_networks:OneConvolution", "divisor": 4},
}


class OneConvolution(nn.Module):
    """A foreign network, which takes only multiples of four."""

    def __init__(self, in_chans: int, n_classes: int, width: int = 3) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(in_chans, width, 3, padding=1), nn.Conv2d(width, n_classes, 1)
        )

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        assert not any(extent % 4 for extent in image.shape[2:])
        return self.layers(image)


def small(name: str) -> nn.Module:
    torch.manual_seed(0)
    return build_network(SMALL[name], in_channels=2, num_classes=3, dims=2)


@pytest.mark.parametrize("name", SMALL)
def test_network_of_any_kind_keeps_the_size_and_comes_back_from_its_file(
    name: str, tmp_path: Path
) -> None:
    network = small(name).eval()
    image = torch.rand(2, 2, 19, 33, generator=torch.Generator().manual_seed(1))
    logits = network(image)
    assert logits.shape == (2, 3, 19, 33)
    head = SMALL[name].get("head", "softmax")
    activated = logits.softmax(1) if head == "softmax" else logits.sigmoid()
    torch.testing.assert_close(network.probabilities(logits), activated)

    save_weights(tmp_path / "best.safetensors", network, details={"epoch": 7})
    first = (tmp_path / "best.safetensors").read_bytes()
    state = torch.random.get_rng_state()
    again = load_member(tmp_path, trust=["test_networks"])
    assert torch.equal(torch.random.get_rng_state(), state)
    assert not again.training
    assert torch.equal(again(image), logits)
    assert network_spec(again) == network_spec(network)
    save_weights(tmp_path / "best.safetensors", again, details={"epoch": 7})
    assert (tmp_path / "best.safetensors").read_bytes() == first
    assert read_weights(tmp_path / "best.safetensors").details == {"epoch": 7}


def test_standard_network_has_nnunets_widths_and_layers() -> None:
    network = build_network(
        {"name": "UNet", "preset": "standard"}, in_channels=1, num_classes=3, dims=3
    )
    # 512 x 256 x 27 x 2 of the deepest level alone are 10.6 M.
    assert round(sum(p.numel() for p in network.parameters()) / 1e6, 1) == 22.6
    kinds = {type(module) for module in network.modules()}
    assert nn.InstanceNorm3d in kinds
    assert nn.MaxPool3d not in kinds


@pytest.mark.parametrize(
    ("spec", "sizes"),
    [
        ({"name": "UNet"}, [(21, 10, 7), (11, 5, 4)]),
        ({"name": "UNet", "strides": [[1, 2, 2], 2, 2]}, [(21, 10, 7), (21, 5, 4)]),
        ({"name": "DynUNet", "strides": [1, 2, 2, 2]}, [(21, 10, 7), (21, 10, 7)]),
    ],
)
def test_deep_supervision_gives_a_list_in_training_and_logits_after(
    spec: dict[str, Any], sizes: list[tuple[int, ...]]
) -> None:
    widths = {"widths" if spec["name"] == "UNet" else "filters": [2, 2, 4, 4]}
    spec = {**spec, **widths, "deep_supervision": True}
    network = build_network(spec, in_channels=1, num_classes=2, dims=3)
    image = torch.rand(2, 1, 21, 10, 7)
    outputs = network.train()(image)
    assert [tuple(one.shape) for one in outputs] == [(2, 2, *size) for size in sizes]
    sum(one.sum() for one in outputs).backward()
    assert all(parameter.grad is not None for parameter in network.parameters())
    assert network.eval()(image).shape == (2, 2, 21, 10, 7)


def test_checkpointing_changes_neither_gradients_nor_running_statistics() -> None:
    image = torch.rand(3, 2, 16, 16)
    states = []
    for active in (False, True):
        network = small("paper").train()
        network.checkpointing = active
        torch.manual_seed(3)
        network(image).square().sum().backward()
        grads = {f"grad of {name}": p.grad for name, p in network.named_parameters()}
        states.append({**network.state_dict(), **grads})
    for name, value in states[0].items():
        torch.testing.assert_close(states[1][name], value, rtol=0, atol=0, msg=name)
    with pytest.raises(ValueError, match="checkpointing must be False for DynUNet"):
        small("DynUNet").checkpointing = True


def test_weights_of_a_compiled_and_of_an_averaged_network_are_the_networks(tmp_path: Path) -> None:
    network = small("residual")
    averaged = torch.optim.swa_utils.AveragedModel(network)
    for number, wrapped in enumerate((torch.compile(network), averaged)):
        save_weights(tmp_path / f"{number}.safetensors", wrapped)
    files = [(tmp_path / f"{number}.safetensors").read_bytes() for number in range(2)]
    assert files[0] == files[1]
    with pytest.raises(TypeError, match="network must be one that build_network makes, got Conv2d"):
        save_weights(tmp_path / "x.safetensors", nn.Conv2d(1, 1, 1))
    assert not (tmp_path / "x.safetensors").exists()


def test_checkpoint_of_the_first_version_loads(tmp_path: Path) -> None:
    network = UNet(1, 2, widths=(2, 4, 4)).eval()
    names = ("in_channels", "num_classes", "dims", "widths", "dropout", "norm", "head")
    arguments = {name: network.arguments[name] for name in names}
    torch.save({"network": arguments, "model": network.state_dict()}, tmp_path / "best.pt")
    image = torch.rand(1, 1, 9, 9)
    assert torch.equal(load_member(tmp_path)(image), network(image))


def test_names_of_the_papers_weights_are_those_of_the_first_version() -> None:
    affine = ("weight", "bias")
    norm = (*affine, "running_mean", "running_var", "num_batches_tracked")
    block = [*("0.weight", "3.weight"), *(f"{layer}.{name}" for layer in (1, 4) for name in norm)]
    places = ("encoder.0", "encoder.1", "decoder.0")
    names = {f"{place}.{name}" for place in places for name in block}
    names |= {f"{place}.{name}" for place in ("upsampling.0", "classifier") for name in affine}
    assert set(UNet(1, 2, widths=(2, 4)).state_dict()) == names


@pytest.mark.parametrize(
    ("spec", "error", "message"),
    [
        ({"name": "VNet"}, ValueError, "must be UNet, DynUNet, BasicUNet or .*, got 'VNet'"),
        ({"name": 3}, ValueError, "network.name must be a string, got 3"),
        ({"name": "UNet", "preset": "huge"}, ValueError, "network.preset must be .*, got 'huge'"),
        ({"name": "UNet", "width": 8}, ValueError, "arguments that UNet knows .*, got 'width'"),
        ({"name": "UNet", "head": "tanh"}, ValueError, "head must be .*, got 'tanh'"),
        ({"name": "UNet", "strides": [2, 2]}, ValueError, r"strides must hold 4 .*, got \(2, 2\)"),
        ({"name": "UNet", "kernels": [3, 3, 3, 3, 4]}, ValueError, "kernels must be odd"),
        ({"name": "UNet", "blocks": 0}, ValueError, "blocks must be"),
        ({"name": "UNet", "activation": "gelu"}, ValueError, "activation must be .*, got 'gelu'"),
        ({"name": "DynUNet", "filters": [4]}, ValueError, "network.filters: .* at least 2 items"),
        ({"name": "DynUNet", "norm_name": "x"}, ValueError, "arguments that DynUNet accepts"),
        ({"name": "UNet", "widths": [10**5, 10**5]}, ValueError, "network.widths.0 must be less"),
        ({"name": "UNet", "widths": [8192] * 12}, ValueError, "must have at most 2147483648"),
        ({"name": "no_such_package:Net"}, ImportError, "the network no_such_package:Net needs"),
        ({"name": "os:system"}, ValueError, "must be a torch.nn.Module of os, got 'system'"),
        ({"name": "test_networks:OneConvolution", "divisor": [4]}, ValueError, "divisor must be"),
        ({"name": "UNet", "in_channels": 2}, ValueError, "network.in_channels must be 1, got 2"),
    ],
)  # fmt: skip
def test_bad_specification_is_named(
    spec: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        build_network(spec, in_channels=1, num_classes=2, dims=2)


def test_file_that_is_no_networks_is_named(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    file = tmp_path / "best.safetensors"
    file.write_bytes(b"\x08\x00\x00\x00\x00\x00\x00\x00cut")
    with pytest.raises(DataError, match=r"best\.safetensors: damaged, or not a safetensors file"):
        load_member(file)
    save_file({"weight": torch.zeros(1)}, file)
    with pytest.raises(DataError, match="does not hold fastcal's description"):
        load_member(file)
    save_weights(file, small("paper"))
    weights = read_weights(file)
    broken = type(weights)(file, {**weights.network, "widths": [2, 4, 8]}, weights.state)
    with pytest.raises(DataError, match=r"best\.safetensors: is not the checkpoint of a member"):
        broken.build()
