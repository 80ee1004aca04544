"""Weights on disk, as safetensors that hold the specification of the network, too."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fastcal.core import atomic
from fastcal.core.doors import parse_json, read_safetensors, state_digest
from fastcal.core.errors import DataError
from fastcal.models.build import build_from_file, unwrapped
from fastcal.models.network import SegmentationNetwork
from fastcal.models.trust import Trust, UntrustedNetworkError

_FORMAT = 2
_KEY = "fastcal"
"""Key of the metadata. There is only one, because safetensors does not keep the order of keys."""


@dataclass(frozen=True, slots=True)
class Weights:
    """The specification and the state of a network, on the CPU."""

    path: Path
    network: dict[str, Any]
    state: dict[str, Tensor]
    details: dict[str, Any] = field(default_factory=dict)

    def build(self, trust: Collection[str] = ()) -> SegmentationNetwork:
        """Build the network with these weights, in evaluation mode.

        Args:
            trust: Packages that the network may be imported from; see `fastcal.models.trust`.

        Raises:
            DataError: Specification and state do not fit together.
            UntrustedNetworkError: The network is not built in, nor of a trusted package.
        """
        packages = Trust(trust)
        try:
            # The initial weights are replaced, so drawing them must not change the global state.
            with torch.random.fork_rng([]):
                network = build_from_file(self.network, packages, source=str(self.path))
        except UntrustedNetworkError:
            raise
        except (TypeError, ValueError) as error:
            raise DataError(self.path, f"is not the checkpoint of a member ({error})") from error
        self.load_into(network)
        return network.eval()

    def describes(self, network: SegmentationNetwork) -> bool:
        """Whether a network has the same specification, so that `load_into` fits it."""
        return json.dumps(self.network, sort_keys=True) == json.dumps(network.spec, sort_keys=True)

    def load_into(self, network: SegmentationNetwork) -> None:
        """Overwrite the weights of a network with the same specification.

        Raises:
            DataError: They do not fit.
        """
        try:
            network.load_state_dict(self.state)
        except RuntimeError as error:
            reason = str(error).splitlines()[0]
            raise DataError(self.path, f"is not the checkpoint of a member ({reason})") from error


def save_weights(
    path: str | Path, module: nn.Module, *, details: Mapping[str, Any] | None = None
) -> None:
    """Write a network as safetensors, whole or not at all.

    Args:
        path: The file, in a folder that exists.
        module: A network of `build_network`, which may be compiled, averaged or parallel.
        details: Anything JSON can hold; it is kept beside the specification.

    Raises:
        TypeError: The module is another one.
        OSError: The disk reports an error.

    Example:
        >>> from fastcal.models import UNet
        >>> save_weights("best.safetensors", UNet(1, 2), details={"epoch": 3})  # doctest: +SKIP
    """
    from safetensors.torch import save

    network = unwrapped(module)
    state = {
        # The format wants contiguous tensors, each with memory of its own.
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in network.state_dict().items()
    }
    content = {
        "format": _FORMAT,
        "network": network.spec,
        "details": dict(details or {}),
        "state_sha256": state_digest(state),
    }
    content["sha256"] = _description_digest(content)
    written = save(state, metadata={_KEY: json.dumps(content)})
    with atomic.atomic_path(path) as temporary:
        temporary.write_bytes(written)


def read_weights(path: str | Path) -> Weights:
    """Read a file that `save_weights` wrote.

    Raises:
        DataError: The file is missing, damaged, or from another program.
    """
    file = Path(path)
    found = read_safetensors(file)
    try:
        # A validation score may be NaN.
        described = parse_json(found.metadata[_KEY], finite=False)
        network, details = described["network"], described["details"]
        if not (isinstance(network, dict) and isinstance(details, dict)):
            raise TypeError("no description of a network")
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(file, "does not hold fastcal's description of a network") from error
    _check_digests(file, described, found.tensors)
    return Weights(file, network, found.tensors, details)


def _check_digests(file: Path, described: dict[str, Any], state: Mapping[str, Tensor]) -> None:
    version = described.get("format", 1)
    if version not in (1, _FORMAT):
        raise DataError(file, f"the format must be 1 or {_FORMAT}, got {version!r}")
    own = described.pop("sha256", None)
    kept = described.get("state_sha256")  # files of format 1 may have none
    if (kept is not None or version == _FORMAT) and kept != state_digest(state):
        raise DataError(file, "damaged: the weights differ from those that were written")
    if (own is not None or version == _FORMAT) and own != _description_digest(described):
        raise DataError(file, "damaged: its description differs from the one that was written")


def _description_digest(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
