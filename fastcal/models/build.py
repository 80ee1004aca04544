"""Networks by name: our U-Net, MONAI's, or any class that can be imported."""

from __future__ import annotations

import importlib
import inspect
import math
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from fastcal.models.network import Head, SegmentationNetwork, crop_to, pad_to_multiple
from fastcal.models.unet import PRESETS, UNet

_MONAI = {
    "DynUNet": "monai.networks.nets:DynUNet",
    "BasicUNet": "monai.networks.nets:BasicUNet",
}
_SYNONYMS: Mapping[str, Sequence[str]] = {
    "in_channels": ("in_channels", "in_chans", "input_channels", "n_channels"),
    "num_classes": ("num_classes", "out_channels", "n_classes", "classes"),
    "dims": ("spatial_dims", "dims", "dimensions", "dimension"),
}
"""What the constructors of networks call what fastcal knows."""


def build_network(
    spec: Mapping[str, Any],
    *,
    in_channels: int | None = None,
    num_classes: int | None = None,
    dims: int | None = None,
) -> SegmentationNetwork:
    """Build a network from its specification.

    Args:
        spec: ``{"name": ..., "head": "softmax" | "sigmoid", **arguments}``. The name is ``"UNet"``
            (ours, with ``"preset": "paper" | "standard"`` or any argument of `UNet`), MONAI's
            ``"DynUNet"`` or ``"BasicUNet"``, or ``"package.module:Class"`` of an installed
            ``nn.Module``. Arguments go to the class; its channels, classes and spatial axes are
            filled in under the names it has for them. A network that takes only multiples of some
            size says so by ``"divisor"``, a number or one an axis: images are padded with zeros.
        in_channels, num_classes, dims: may be left out where the spec has them.

    Raises:
        ValueError: no such network, or one that its class refuses.
        ImportError: the package of the class is not installed.

    Example:
        >>> spec = {"name": "UNet", "preset": "standard", "deep_supervision": True}
        >>> network = build_network(spec, in_channels=1, num_classes=3, dims=3)
        >>> network.widths
        (32, 64, 128, 256, 512)
    """
    arguments: dict[str, Any] = {key: _frozen(value) for key, value in spec.items()}
    given = {"in_channels": in_channels, "num_classes": num_classes, "dims": dims}
    for key, value in given.items():
        if value is None and key not in arguments:
            raise ValueError(f"network: {key} is missing")
        if value is not None and arguments.setdefault(key, value) != value:
            raise ValueError(f"network: {key} is {arguments[key]!r} there, expected {value!r}")
    name = arguments.pop("name", "UNet")
    if not isinstance(name, str):
        raise ValueError(f"network: got the name {name!r}, expected a string")
    if name != "UNet":
        return ImportedNetwork(name, **arguments)
    preset = arguments.pop("preset", "paper")
    if preset not in PRESETS:
        raise ValueError(f"preset: got {preset!r}, expected {' or '.join(map(repr, PRESETS))}")
    arguments = {**PRESETS[preset], **arguments}
    _check_arguments(name, UNet, arguments)
    return UNet(**arguments)


def network_spec(module: nn.Module) -> dict[str, Any]:
    """The specification that `build_network` makes the same network from.

    Raises:
        TypeError: it is none of `build_network`'s, compiled, averaged or parallel ones included.

    Example:
        >>> network_spec(UNet(1, 2))["name"]
        'UNet'
    """
    return dict(unwrapped(module).spec)


def unwrapped(module: nn.Module) -> SegmentationNetwork:
    """The network inside ``torch.compile``, ``AveragedModel`` and ``DistributedDataParallel``."""
    inner: Any = module
    while not isinstance(inner, SegmentationNetwork):
        found = getattr(inner, "_orig_mod", None) or getattr(inner, "module", None)
        if not isinstance(found, nn.Module):
            raise TypeError(
                f"network: got {type(module).__name__}, expected one that build_network makes"
            )
        inner = found
    return inner


class ImportedNetwork(SegmentationNetwork):
    """A network whose class is imported, given the form of `SegmentationNetwork`.

    Args:
        name: ``"DynUNet"``, ``"BasicUNet"`` or ``"package.module:Class"``.
        in_channels, num_classes, dims, head: see `SegmentationNetwork`.
        divisor: spatial extents that the class takes multiples of, a number or one an axis.
        arguments: everything else goes to the class.
    """

    def __init__(
        self,
        name: str,
        *,
        in_channels: int,
        num_classes: int,
        dims: int,
        head: Head = "softmax",
        divisor: int | Sequence[int] | None = None,
        **arguments: Any,
    ) -> None:
        super().__init__(in_channels, num_classes, dims, head)
        self._name, self._arguments, self._divisor = name, arguments, divisor
        constructor = _import_class(name)
        arguments = {**_monai_defaults(name, arguments), **arguments}
        for key, value in (
            ("in_channels", in_channels),
            ("num_classes", num_classes),
            ("dims", dims),
        ):
            _fill_in(constructor, arguments, key, value)
        _check_arguments(name, constructor, arguments)
        if divisor is None:
            divisor = _monai_divisor(name, dims, arguments)
        self._multiples = (divisor,) * dims if isinstance(divisor, int) else tuple(divisor)
        if len(self._multiples) != dims or min(self._multiples) < 1:
            raise ValueError(f"divisor: got {divisor!r}, expected {dims} positive numbers")
        try:
            self.body: nn.Module = constructor(**arguments)
        except (TypeError, ValueError, AssertionError, KeyError, IndexError) as error:
            reason = str(error).strip().splitlines() or [type(error).__name__]
            raise ValueError(f"network: {name} refuses its arguments ({reason[0]})") from error

    @property
    def spec(self) -> dict[str, Any]:
        known = {name: getattr(self, name) for name in ("in_channels", "num_classes", "dims")}
        divisor = {} if self._divisor is None else {"divisor": self._divisor}
        return {"name": self._name, **known, "head": self.head, **divisor, **self._arguments}

    @property
    def multiples(self) -> tuple[int, ...]:
        return self._multiples

    def forward(self, image: Tensor) -> Tensor | list[Tensor]:
        self.check_image(image)
        size = image.shape[2:]
        output = self.body(pad_to_multiple(image, self._multiples))
        if isinstance(output, Tensor) and output.ndim == self.dims + 3:
            output = output.unbind(1)  # DynUNet stacks its deep supervision
        if isinstance(output, (list, tuple)):
            logits = [self._checked(one) for one in output]
            logits[0] = crop_to(logits[0], size)
            if self.training:
                coarse = (_cropped_part(one, logits[0], self._multiples) for one in logits[1:])
                return [logits[0], *coarse]
            return logits[0]
        return crop_to(self._checked(output), size)

    def _checked(self, logits: object) -> Tensor:
        if not isinstance(logits, Tensor):
            raise TypeError(f"{self._name} returned {type(logits).__name__}, expected logits")
        if logits.ndim != self.dims + 2 or logits.shape[1] != self.num_classes:
            raise ValueError(
                f"{self._name} returned shape {tuple(logits.shape)}, expected "
                f"[B, {self.num_classes}, *S] with {self.dims} spatial axes"
            )
        return logits


def _cropped_part(logits: Tensor, finest: Tensor, multiples: Sequence[int]) -> Tensor:
    """Coarser logits without what stands for padding of the image."""
    padded = [-(-extent // by) * by for extent, by in zip(finest.shape[2:], multiples, strict=True)]
    steps = [max(1, whole // part) for whole, part in zip(padded, logits.shape[2:], strict=True)]
    size = [-(-extent // step) for extent, step in zip(finest.shape[2:], steps, strict=True)]
    return crop_to(logits, size)


def _import_class(name: str) -> type[nn.Module]:
    path = _MONAI.get(name, name)
    package, colon, attribute = path.partition(":")
    if not colon or not package or not attribute:
        known = ", ".join(("UNet", *_MONAI))
        raise ValueError(f"network: got {name!r}, expected {known} or 'package.module:Class'")
    try:
        module = importlib.import_module(package)
    except ImportError as error:
        hint = "; pip install 'fastcal[train]'" if path.startswith("monai.") else ""
        raise ImportError(f"network: {name} needs {package} ({error}{hint})") from error
    found = getattr(module, attribute, None)
    if not (isinstance(found, type) and issubclass(found, nn.Module)):
        raise ValueError(f"network: {package} has no torch.nn.Module named {attribute!r}")
    return found


def _fill_in(
    constructor: type[nn.Module], arguments: dict[str, Any], name: str, value: object
) -> None:
    """Give a constructor what fastcal knows, under its own name for it, if it has one."""
    accepted = inspect.signature(constructor).parameters
    names = [synonym for synonym in _SYNONYMS[name] if synonym in accepted]
    for synonym in names:
        if synonym in arguments and arguments[synonym] != value:
            raise ValueError(
                f"network: {synonym} is {arguments[synonym]!r} there, expected {value!r}"
            )
    if names and not any(synonym in arguments for synonym in names):
        arguments[names[0]] = value


def _check_arguments(name: str, constructor: type[nn.Module], arguments: dict[str, Any]) -> None:
    """Name an argument that a class does not have."""
    accepted = inspect.signature(constructor).parameters
    if any(one.kind is inspect.Parameter.VAR_KEYWORD for one in accepted.values()):
        return
    unknown = sorted(set(arguments) - set(accepted))
    if unknown:
        raise ValueError(
            f"network: {name} has no argument {', '.join(unknown)}; it has {', '.join(accepted)}"
        )


def _monai_defaults(name: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """What DynUNet has to be told and nnU-Net would choose for isotropic voxels."""
    if name != "DynUNet":
        return {}
    strides = arguments.get("strides", (1, 2, 2, 2, 2))
    return {
        "strides": strides,
        "kernel_size": (3,) * len(strides),
        "upsample_kernel_size": tuple(strides[1:]),
    }


def _monai_divisor(name: str, dims: int, arguments: Mapping[str, Any]) -> tuple[int, ...]:
    if name == "BasicUNet":
        return (16,) * dims
    if name != "DynUNet":
        return (1,) * dims
    strides = [[one] * dims if isinstance(one, int) else one for one in arguments["strides"]]
    return tuple(math.prod(stride[axis] for stride in strides) for axis in range(dims))


def _frozen(value: Any) -> Any:
    """Lists, which JSON and YAML have, as the tuples they stand for."""
    if isinstance(value, (list, tuple)):
        return tuple(_frozen(one) for one in value)
    if isinstance(value, Mapping):
        return {key: _frozen(one) for key, one in value.items()}
    return value
