"""Which networks a run folder may name: a folder is data, and data must not choose what runs.

The metadata of a member's weights names the class of its network and the arguments of its
constructor. Any importable class would do, so a crafted folder could run any constructor that is
installed. Without the user's word only the built-in networks are built, and their arguments are
checked before the constructor sees them.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fastcal.core.doors.schema import described

BUILT_IN: Mapping[str, str] = {
    "UNet": "fastcal.models.unet:UNet",
    "DynUNet": "monai.networks.nets:DynUNet",
    "BasicUNet": "monai.networks.nets:BasicUNet",
}
"""Networks that need no trust, and what each of them is imported from."""

MOST_PARAMETERS = 2**31
"""Of a built-in network, as estimated from its widths: 8 GiB of float32."""


class UntrustedNetworkError(ValueError):
    """A network that only the user's word allows to import."""


@dataclass(frozen=True)
class Trust:
    """The packages that the user allows networks to be imported from.

    Args:
        packages: Names such as ``"mylab"`` or ``"mylab.networks"``; each allows its submodules
            too. Whatever a trusted package offers under its names is trusted with it.

    Raises:
        TypeError: A name is no text, or ``packages`` is one text in place of a collection.
        ValueError: A name is no dotted Python name.

    Example:
        >>> Trust(["mylab"]).allows("mylab.networks:Net"), Trust().allows("mylab.networks:Net")
        (True, False)
    """

    packages: Collection[str] = ()

    def __post_init__(self) -> None:
        if isinstance(self.packages, str):
            raise TypeError(f"trust must be a list of packages, got the text {self.packages!r}")
        for package in self.packages:
            if not isinstance(package, str):
                raise TypeError(f"trust must hold names of packages, got {package!r}")
            if not all(part.isidentifier() for part in package.split(".")):
                raise ValueError(f"trust must hold dotted names of packages, got {package!r}")

    def allows(self, name: str) -> bool:
        """Whether a network of this name may be imported.

        Args:
            name: ``"UNet"``, ``"DynUNet"``, ``"BasicUNet"`` or ``"package.module:Class"``.
        """
        if name in BUILT_IN or name in BUILT_IN.values():
            return True
        module, _, _ = name.partition(":")
        return any(module == one or module.startswith(f"{one}.") for one in self.packages)

    def check(self, name: object, *, source: str | None = None) -> str:
        """Return the name of a network that may be imported; nothing is imported here.

        Call this before ``importlib`` sees the name.

        Args:
            name: What the specification calls the network.
            source: What the specification was read from, such as a file; None for the user's own
                settings.

        Raises:
            UntrustedNetworkError: The name needs trust. The message says what would have been
                imported, and what allows it.
            ValueError: It is no name of a network.
        """
        known = ", ".join(map(repr, BUILT_IN))
        if not isinstance(name, str):
            raise ValueError(f"network must be named by text, got {type(name).__name__}")
        module, colon, attribute = name.partition(":")
        parts = [*module.split("."), attribute]
        if name not in BUILT_IN and not (colon and all(part.isidentifier() for part in parts)):
            raise ValueError(
                f"network must be {known} or 'package.module:Class', got {_short(name)}"
            )
        if self.allows(name):
            return name
        package = module.partition(".")[0]
        asks = "it" if source is None else source
        raise UntrustedNetworkError(
            f"network must be {known} or of a trusted package, got {_short(name)}: {asks} would "
            f"import {module} and call its {attribute}; if you trust that package, allow it by "
            f"--trust {package} (trust=[{package!r}] in Python)"
        )


def check_arguments(name: str, arguments: Mapping[str, Any]) -> None:
    """Check the arguments of a built-in network by type and size, before it is built.

    Nothing is checked for a network of a trusted package.

    Args:
        name: Of the network.
        arguments: Of its constructor, with ``in_channels``, ``num_classes``, ``dims`` and
            ``head``.

    Raises:
        ValueError: An argument is unknown, of another type or out of range, or the network would
            have more than 2**31 parameters.

    Example:
        >>> check_arguments("UNet", {"in_channels": 1, "num_classes": 2, "widths": [10**6, 10**6]})
        Traceback (most recent call last):
        ValueError: network.widths.0 must be less than or equal to 8192, got 1000000
    """
    from pydantic import ValidationError

    name = next((short for short, path in BUILT_IN.items() if name == path), name)
    if name not in BUILT_IN:
        return
    try:
        checked = _schema(name).model_validate(_with_tuples(arguments))
    except ValidationError as error:
        raise ValueError(_sentence(name, error.errors(include_url=False)[0])) from None
    except RecursionError:
        raise ValueError("network must have flat arguments, got nested ones") from None
    parameters = estimated_parameters(
        checked.widths,
        dims=checked.dims,
        kernels=checked.kernels,
        convolutions=checked.convolutions,
        outer=max(checked.in_channels, checked.num_classes),
    )
    if parameters > MOST_PARAMETERS:
        raise ValueError(
            f"network must have at most {MOST_PARAMETERS} parameters, got widths "
            f"{tuple(checked.widths)} with about {parameters}"
        )


def estimated_parameters(
    widths: Sequence[int],
    *,
    dims: int,
    kernels: Iterable[int | Sequence[int]],
    convolutions: Sequence[int],
    outer: int,
) -> int:
    """Parameters of the convolutions of a U-Net, from above.

    Args:
        widths: Channels of each level.
        dims: Spatial axes.
        kernels: Extents of the convolutions of each level; the last one stands for the rest.
        convolutions: Of each level, going down; going up there are two.
        outer: Channels of the image or of the result, whichever are more.
    """
    taps = [k**dims if isinstance(k, int) else math.prod(k) for k in kernels] or [3**dims]
    counts = list(convolutions) or [2]
    total, before = 0, outer
    for level, width in enumerate(widths):
        n_taps = taps[min(level, len(taps) - 1)]
        n_down = counts[min(level, len(counts) - 1)]
        down = before * width + n_down * width * width
        up = 3 * width * width + 2 * before * width
        total += (down + up) * n_taps
        before = width
    return total


def _schema(name: str) -> Any:
    from fastcal.models.trust_schema import SCHEMAS

    return SCHEMAS[name]


def _with_tuples(value: Any) -> Any:
    """Lists, which JSON has, as the tuples they stand for."""
    if isinstance(value, list | tuple):
        return tuple(_with_tuples(one) for one in value)
    if isinstance(value, Mapping):
        return {key: _with_tuples(one) for key, one in value.items()}
    return value


def _sentence(name: str, problem: Any) -> str:
    # Behind the argument's name pydantic has the branch of a union, which says nothing to a user.
    first, *rest = problem["loc"]
    if problem["type"] == "extra_forbidden" and not rest:
        known = [field.alias or key for key, field in _schema(name).model_fields.items()]
        return (
            f"network must have arguments that {name} knows ({', '.join(known)}), "
            f"got {_short(first)}"
        )
    place = (first, *(part for part in rest if isinstance(part, int)))
    return f"network.{described({**problem, 'loc': place})}"


def _short(value: object) -> str:
    if isinstance(value, str | int | float | bool | None):
        text = repr(value if not isinstance(value, str) else value[:100])
    else:
        text = type(value).__name__
    return text if len(text) <= 80 else f"{text[:77]}..."
