"""A run folder is data: without the user's word only the built-in networks are built."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastcal.models import UNet
from fastcal.models.build import network_spec
from fastcal.models.trust import (
    BUILT_IN,
    MOST_PARAMETERS,
    Trust,
    UntrustedNetworkError,
    check_arguments,
    estimated_parameters,
)

BASE = {"in_channels": 1, "num_classes": 3, "dims": 3}


@pytest.mark.parametrize("name", [*BUILT_IN, *BUILT_IN.values()])
def test_the_built_in_networks_need_no_trust(name: str):
    assert Trust().check(name) == name


@pytest.mark.parametrize(
    "name",
    ["torch.hub:load", "torchvision.models:resnet18", "os:system", "fastcal.models.ensemble:X"],
)
def test_any_other_import_is_refused_and_says_what_it_would_have_been(name: str):
    module, _, attribute = name.partition(":")
    with pytest.raises(UntrustedNetworkError) as caught:
        Trust().check(name, source="runs/a/best.safetensors")
    line = str(caught.value)
    assert f"runs/a/best.safetensors would import {module} and call its {attribute}" in line
    assert f"--trust {module.partition('.')[0]} (trust=" in line
    assert line.startswith("network must be 'UNet', 'DynUNet', 'BasicUNet' or of a trusted package")


def test_a_trusted_package_has_its_submodules_and_no_other_package():
    trust = Trust(["mylab", "other.networks"])
    for name in ("mylab:Net", "mylab.a.b:Net", "other.networks:Net", "other.networks.x:Net"):
        assert trust.check(name) == name
    for name in ("mylab2:Net", "other:Net", "other.networks2:Net", "torch.nn:Linear"):
        with pytest.raises(UntrustedNetworkError):
            trust.check(name)


@pytest.mark.parametrize(
    "name", ["", "UNet2", ":", "a:", ":b", "a b:c", "a..b:c", "../x:y", 3, None]
)
def test_what_is_no_name_is_refused(name: Any):
    with pytest.raises(ValueError, match="network must be"):
        Trust(["a"]).check(name)


@pytest.mark.parametrize("packages", ["torch", [3], ["a b"], [""], ["a."], ["a:b"]])
def test_trust_takes_names_of_packages_alone(packages: Any):
    with pytest.raises((TypeError, ValueError), match="trust must"):
        Trust(packages)


@given(st.text())
def test_no_text_is_trusted_by_accident(name: str):
    assert Trust().allows(name) == (name in BUILT_IN or name in BUILT_IN.values())


# --- arguments ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "network",
    [
        UNet(1, 2),
        UNet(2, 4, dims=3, widths=(4, 8, 16), residual=True, blocks=(1, 2, 2), dropout=0.5),
        UNet(
            *(1, 3),
            dims=3,
            widths=(4, 8, 8),
            strides=((1, 2, 2), 2),
            kernels=((1, 3, 3), 3, 3),
            downsampling="stride",
            activation="leaky-relu",
            norm="instance",
            head="sigmoid",
            deep_supervision=True,
        ),
    ],
)
def test_what_a_network_says_of_itself_passes(network: UNet):
    spec = network_spec(network)
    check_arguments(spec.pop("name"), spec)
    as_json = {k: list(v) if isinstance(v, tuple) else v for k, v in spec.items()}
    check_arguments("UNet", as_json)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("DynUNet", {"strides": (1, 2, 2), "filters": (16, 32, 64), "deep_supervision": True}),
        ("DynUNet", {"strides": [1, [2, 2, 1]], "norm_name": ("INSTANCE", {"affine": True})}),
        ("DynUNet", {"act_name": ["leakyrelu", {"negative_slope": 0.01}], "divisor": [4, 4, 4]}),
        ("BasicUNet", {"features": (8, 8, 16, 32, 64, 8), "dropout": 0.1, "divisor": 16}),
        ("monai.networks.nets:BasicUNet", {"act": "relu", "norm": "batch"}),
    ],
)
def test_arguments_of_monais_networks_pass(name: str, arguments: dict[str, Any]):
    check_arguments(name, {**BASE, **arguments})


@pytest.mark.parametrize(
    ("name", "arguments", "words"),
    [
        ("UNet", {"widths": (10**6, 10**6)}, "network.widths.0 must be less than or equal to 8192"),
        ("UNet", {"widths": (8192,) * 12}, "at most 2147483648 parameters"),
        ("UNet", {"widths": [8]}, "widths"),
        ("UNet", {"widths": [8] * 100}, "widths"),
        ("UNet", {"widths": "ab"}, "widths"),
        ("UNet", {"blocks": 10**9}, "blocks"),
        ("UNet", {"kernels": [999, 999]}, "kernels"),
        ("UNet", {"num_classes": 10**9}, "network.num_classes must be less than"),
        ("UNet", {"num_classes": True}, "num_classes"),
        ("UNet", {"in_channels": 0}, "in_channels"),
        ("UNet", {"dims": 4}, "network.dims must be 2 or 3, got 4"),
        ("UNet", {"head": "tanh"}, "head"),
        ("UNet", {"source": "local"}, "arguments that UNet knows (in_channels, "),
        ("UNet", {"dropout": float("nan")}, "dropout"),
        (
            "DynUNet",
            {"filters": [8192] * 12, "strides": [1] * 12, "kernel_size": [31] * 12},
            "most",
        ),
        ("DynUNet", {"act_name": ["relu", {"x": [1]}]}, "act_name"),
        ("DynUNet", {"act_name": "os.system('x')"}, "act_name"),
        ("BasicUNet", {"features": [8] * 5}, "features"),
        ("BasicUNet", {"divisor": 0}, "divisor"),
    ],
)
def test_arguments_beyond_their_schema_are_refused(
    name: str, arguments: dict[str, Any], words: str
):
    with pytest.raises(ValueError, match="network") as caught:
        check_arguments(name, {**BASE, **arguments})
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_nothing_is_known_of_the_arguments_of_a_trusted_class():
    check_arguments("mylab:Net", {"anything": object()})


@pytest.mark.parametrize(
    "network",
    [
        UNet(1, 2),
        UNet(3, 4, dims=3, widths=(8, 16, 32)),
        UNet(1, 2, widths=(4, 64, 8), blocks=(3, 1, 2), kernels=(3, 5, 3)),
        UNet(2, 2, dims=3, widths=(4, 8), residual=True, blocks=2),
    ],
)
def test_the_estimate_is_no_less_than_the_parameters_and_of_their_size(network: UNet):
    spec = network.arguments
    blocks = spec["blocks"]
    estimate = estimated_parameters(
        spec["widths"],
        dims=spec["dims"],
        kernels=spec["kernels"],
        convolutions=[2 * count for count in blocks],
        outer=max(spec["in_channels"], spec["num_classes"]),
    )
    weights = sum(p.numel() for p in network.parameters() if p.ndim > 1)
    assert weights <= estimate <= 6 * weights < MOST_PARAMETERS
