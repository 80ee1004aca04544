"""Weights on disk: safetensors with the network's specification inside."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fastcal.core import atomic
from fastcal.core.errors import DataError
from fastcal.models.build import build_network, unwrapped
from fastcal.models.network import SegmentationNetwork

_KEY = "fastcal"
"""Of the metadata. One key alone: safetensors writes several in no certain order."""


@dataclass(frozen=True, slots=True)
class Weights:
    """A network's specification and state, on the CPU."""

    path: Path
    network: dict[str, Any]
    state: dict[str, Tensor]
    details: dict[str, Any] = field(default_factory=dict)

    def build(self) -> SegmentationNetwork:
        """The network with these weights, in evaluation mode.

        Raises:
            DataError: they do not fit.
        """
        try:
            # Whatever its class draws for its first weights is replaced.
            with torch.random.fork_rng([]):
                network = build_network(self.network)
        except (TypeError, ValueError) as error:
            raise DataError(self.path, f"not a member's checkpoint ({error})") from error
        self.load_into(network)
        return network.eval()

    def describes(self, network: SegmentationNetwork) -> bool:
        """Whether `load_into` fits a network: both have one specification."""
        return json.dumps(self.network, sort_keys=True) == json.dumps(network.spec, sort_keys=True)

    def load_into(self, network: SegmentationNetwork) -> None:
        """Overwrite the weights of a network of the same specification."""
        try:
            network.load_state_dict(self.state)
        except RuntimeError as error:
            reason = str(error).splitlines()[0]
            raise DataError(self.path, f"not a member's checkpoint ({reason})") from error


def save_weights(
    path: str | Path, module: nn.Module, *, details: Mapping[str, Any] | None = None
) -> None:
    """Write a network as safetensors, whole or not at all.

    Args:
        path: the file; its folder exists.
        module: one that `build_network` made, also compiled, averaged or in parallel.
        details: anything JSON can hold, kept beside the specification.

    Raises:
        TypeError: another module.
        OSError: the disk's own error.

    Example:
        >>> from fastcal.models import UNet
        >>> save_weights("best.safetensors", UNet(1, 2), details={"epoch": 3})  # doctest: +SKIP
    """
    from safetensors.torch import save

    network = unwrapped(module)
    state = {
        # Contiguous, and each with memory of its own, as the format has it.
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in network.state_dict().items()
    }
    text = json.dumps({"format": 1, "network": network.spec, "details": dict(details or {})})
    content = save(state, metadata={_KEY: text})
    with atomic.atomic_path(path) as temporary:
        temporary.write_bytes(content)


def read_weights(path: str | Path) -> Weights:
    """Read a file of `save_weights`.

    Raises:
        DataError: the file is missing, damaged, or of another program.
    """
    from safetensors import SafetensorError, safe_open

    file = Path(path)
    if not file.is_file():
        raise DataError(file, "no such checkpoint")
    try:
        with safe_open(file, framework="pt", device="cpu") as opened:
            metadata = opened.metadata() or {}
            state = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise DataError(file, "damaged, or not a checkpoint") from error
    try:
        described = json.loads(metadata[_KEY])
        return Weights(file, described["network"], state, described["details"])
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(file, "safetensors without fastcal's description of a network") from error
