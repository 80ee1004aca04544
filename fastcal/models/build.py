"""Networks by name: the U-Net of this package, MONAI's networks, or any class to import."""

from __future__ import annotations

import importlib
import inspect
import math
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from fastcal.core.doors import bounded
from fastcal.models.network import Head, SegmentationNetwork, crop_to, pad_to_multiple
from fastcal.models.trust import BUILT_IN, Trust, check_arguments
from fastcal.models.unet import PRESETS, UNet

_SYNONYMS: Mapping[str, Sequence[str]] = {
    "in_channels": ("in_channels", "in_chans", "input_channels", "n_channels"),
    "num_classes": ("num_classes", "out_channels", "n_classes", "classes"),
    "dims": ("spatial_dims", "dims", "dimensions", "dimension"),
}
"""Names that constructors of networks have for what fastcal knows."""
MOST_CHANNELS = 65_536
"""The most channels or classes, as in the settings of a network."""


def build_network(
    spec: Mapping[str, Any],
    *,
    in_channels: int | None = None,
    num_classes: int | None = None,
    dims: int | None = None,
) -> SegmentationNetwork:
    """Build a network from its specification.

    The specification is ``{"name": ..., "head": "softmax" | "sigmoid", **arguments}``. The name is
    ``"UNet"`` (with ``"preset": "paper" | "standard"``, or any argument of `UNet`), MONAI's
    ``"DynUNet"`` or ``"BasicUNet"``, or ``"package.module:Class"`` of an installed ``nn.Module``.

    The arguments go to the class. Its channels, classes and spatial axes are filled in under the
    names that it has for them. For a network that takes only multiples of some size, ``"divisor"``
    gives that size as a number, or as one number per axis, and images are padded with zeros.

    The class is imported, so the specification is the caller's own word; that of a file goes
    through `build_from_file`. The arguments of built-in networks are checked by type and size
    before a constructor sees them.

    Args:
        spec: The specification.
        in_channels: Channels of the image. It may be left out where the specification has it.
        num_classes: Classes, likewise.
        dims: Spatial axes, likewise.

    Raises:
        TypeError: A number of channels or classes is no integer.
        ValueError: There is no such network, or its class refuses the arguments.
        ImportError: The package of the class is not installed.

    Example:
        >>> spec = {"name": "UNet", "preset": "standard", "deep_supervision": True}
        >>> network = build_network(spec, in_channels=1, num_classes=3, dims=3)
        >>> network.widths
        (32, 64, 128, 256, 512)
    """
    arguments: dict[str, Any] = {key: _frozen(value) for key, value in spec.items()}
    given = {"in_channels": in_channels, "num_classes": num_classes, "dims": dims}
    for key, value in given.items():
        if value is not None:
            _check_given(key, value)
        if value is None and key not in arguments:
            raise ValueError(f"network.{key} must be given, got none")
        if value is not None and arguments.setdefault(key, value) != value:
            raise ValueError(f"network.{key} must be {value!r}, got {arguments[key]!r}")
    name = arguments.pop("name", "UNet")
    if not isinstance(name, str):
        raise ValueError(f"network.name must be a string, got {name!r}")
    if name != "UNet":
        check_arguments(name, arguments)
        return ImportedNetwork(name, **arguments)
    preset = arguments.pop("preset", "paper")
    if not isinstance(preset, str) or preset not in PRESETS:
        raise ValueError(
            f"network.preset must be {' or '.join(map(repr, PRESETS))}, got {preset!r}"
        )
    arguments = {**PRESETS[preset], **arguments}
    check_arguments(name, arguments)
    return UNet(**arguments)


def _check_given(name: str, value: int) -> None:
    """Check an argument of `build_network` in its own name, which is not that of a setting."""
    if name != "dims":
        bounded(value, name, MOST_CHANNELS)
    elif value not in (2, 3):
        raise ValueError(f"dims must be 2 or 3, got {value!r}")


def build_from_file(spec: Mapping[str, Any], trust: Trust, *, source: str) -> SegmentationNetwork:
    """Build a network from a specification that a file holds, and that may be anybody's.

    Nothing is imported before ``trust`` allows it.

    Args:
        spec: The specification, complete.
        trust: The packages that networks may be imported from.
        source: The file, for messages.

    Raises:
        UntrustedNetworkError: The network needs trust.
        ValueError: There is no such network, or its class refuses the arguments.
        ImportError: The package of the class is not installed.
    """
    trust.check(spec.get("name", "UNet"), source=source)
    return build_network(spec)


def network_spec(module: nn.Module) -> dict[str, Any]:
    """Return the specification from which `build_network` makes the same network.

    Args:
        module: A network of `build_network`, which may be compiled, averaged or parallel.

    Raises:
        TypeError: The module is another one.

    Example:
        >>> network_spec(UNet(1, 2))["name"]
        'UNet'
    """
    return dict(unwrapped(module).spec)


def unwrapped(module: nn.Module) -> SegmentationNetwork:
    """Unwrap a network from ``torch.compile``, ``AveragedModel`` or ``DistributedDataParallel``."""
    inner: Any = module
    while not isinstance(inner, SegmentationNetwork):
        found = getattr(inner, "_orig_mod", None) or getattr(inner, "module", None)
        if not isinstance(found, nn.Module):
            raise TypeError(
                f"network must be one that build_network makes, got {type(module).__name__}"
            )
        inner = found
    return inner


class ImportedNetwork(SegmentationNetwork):
    """A network whose class is imported, with the interface of `SegmentationNetwork`.

    Args:
        name: ``"DynUNet"``, ``"BasicUNet"`` or ``"package.module:Class"``.
        in_channels: See `SegmentationNetwork`.
        num_classes: See `SegmentationNetwork`.
        dims: See `SegmentationNetwork`.
        head: See `SegmentationNetwork`.
        divisor: Extents of which the class takes multiples, a number or one number per axis.
        arguments: Arguments of the class.
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
            raise ValueError(f"divisor must be {dims} positive numbers, got {divisor!r}")
        try:
            self.body: nn.Module = constructor(**arguments)
        except Exception as error:  # constructors of other packages raise what they like
            reason = str(error).strip().splitlines() or [type(error).__name__]
            raise ValueError(
                f"network must have arguments that {name} accepts, got an error: {reason[0]}"
            ) from error

    @property
    def spec(self) -> dict[str, Any]:
        """What `build_network` builds this network from, except for its weights."""
        known = {name: getattr(self, name) for name in ("in_channels", "num_classes", "dims")}
        divisor = {} if self._divisor is None else {"divisor": self._divisor}
        return {"name": self._name, **known, "head": self.head, **divisor, **self._arguments}

    @property
    def multiples(self) -> tuple[int, ...]:
        """Spatial extents are padded to multiples of these."""
        return self._multiples

    def forward(self, image: Tensor) -> Tensor | list[Tensor]:
        """Compute logits of images ``[B, in_channels, *S]``; see `SegmentationNetwork`."""
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
            raise TypeError(
                f"output of {self._name} must be a tensor of logits, got {type(logits).__name__}"
            )
        if logits.ndim != self.dims + 2 or logits.shape[1] != self.num_classes:
            raise ValueError(
                f"output of {self._name} must have shape [B, {self.num_classes}, *S] with "
                f"{self.dims} spatial axes, got {tuple(logits.shape)}"
            )
        return logits


def _cropped_part(logits: Tensor, finest: Tensor, multiples: Sequence[int]) -> Tensor:
    """Crop coarser logits by the part that belongs to the padding of the image."""
    padded = [-(-extent // by) * by for extent, by in zip(finest.shape[2:], multiples, strict=True)]
    steps = [max(1, whole // part) for whole, part in zip(padded, logits.shape[2:], strict=True)]
    size = [-(-extent // step) for extent, step in zip(finest.shape[2:], steps, strict=True)]
    return crop_to(logits, size)


def _import_class(name: str) -> type[nn.Module]:
    path = BUILT_IN.get(name, name)
    package, colon, attribute = path.partition(":")
    if not colon or not package or not attribute:
        known = ", ".join(BUILT_IN)
        raise ValueError(f"network.name must be {known} or 'package.module:Class', got {name!r}")
    try:
        module = importlib.import_module(package)
    except ImportError as error:
        hint = "; pip install 'fastcal[train]'" if path.startswith("monai.") else ""
        raise ImportError(f"the network {name} needs {package} ({error}{hint})") from error
    found = getattr(module, attribute, None)
    if not (isinstance(found, type) and issubclass(found, nn.Module)):
        raise ValueError(f"network.name must be a torch.nn.Module of {package}, got {attribute!r}")
    return found


def _fill_in(
    constructor: type[nn.Module], arguments: dict[str, Any], name: str, value: object
) -> None:
    """Pass to a constructor what fastcal knows, under its own name for it, if it has one."""
    accepted = inspect.signature(constructor).parameters
    names = [synonym for synonym in _SYNONYMS[name] if synonym in accepted]
    for synonym in names:
        if synonym in arguments and arguments[synonym] != value:
            raise ValueError(f"network.{synonym} must be {value!r}, got {arguments[synonym]!r}")
    if names and not any(synonym in arguments for synonym in names):
        arguments[names[0]] = value


def _check_arguments(name: str, constructor: type[nn.Module], arguments: dict[str, Any]) -> None:
    """Raise a ValueError that names an argument which a class does not have."""
    accepted = inspect.signature(constructor).parameters
    if any(one.kind is inspect.Parameter.VAR_KEYWORD for one in accepted.values()):
        return
    unknown = sorted(set(arguments) - set(accepted))
    if unknown:
        raise ValueError(
            f"arguments of {name} must be among {', '.join(accepted)}, got {', '.join(unknown)}"
        )


def _monai_defaults(name: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return what DynUNet requires, as nnU-Net would choose it for isotropic voxels."""
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
    """Turn lists, which JSON and YAML have, into the tuples they stand for."""
    if isinstance(value, (list, tuple)):
        return tuple(_frozen(one) for one in value)
    if isinstance(value, Mapping):
        return {key: _frozen(one) for key, one in value.items()}
    return value
