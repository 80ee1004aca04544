"""The gate of safetensors: header, metadata and tensors."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fastcal.core.doors.bounds import MIB, array_bytes, check_claim, size
from fastcal.core.doors.failures import one_error
from fastcal.core.doors.json_text import parse_json
from fastcal.core.doors.opening import open_regular
from fastcal.core.doors.schema import validated
from fastcal.core.errors import DataError

_LARGEST_HEADER = 16 * MIB
_BITS = {
    **{"F64": 64, "F32": 32, "F16": 16, "BF16": 16},
    **{"I64": 64, "I32": 32, "I16": 16, "I8": 8, "U8": 8, "BOOL": 8},
    **{"U64": 64, "U32": 32, "U16": 16, "F8_E4M3": 8, "F8_E5M2": 8, "C64": 64},
}
"""Types whose bytes are whole; the format has some of 4 and 6 bits, which no network here has."""


@dataclass(frozen=True, eq=False)
class Safetensors:
    """What a safetensors file holds."""

    metadata: dict[str, str]
    tensors: dict[str, Tensor]


def read_safetensors(path: str | Path, *, most_bytes: int | None = None) -> Safetensors:
    """Read a safetensors file whose header agrees with its size.

    Args:
        path: The file.
        most_bytes: The most that the caller expects of all tensors together.

    Raises:
        MissingFileError: There is no such file.
        DataError: It is damaged, or something else.

    Example:
        >>> read_safetensors("best.safetensors").metadata["fastcal"]  # doctest: +SKIP
        '{"format": 1, ...'
    """
    path = Path(path)
    with open_regular(path) as file, one_error(path, "a safetensors file"):
        if file.size < 8:
            raise ValueError("the file is too short")
        length = int.from_bytes(file.stream.read(8), "little")
        most = min(_LARGEST_HEADER, file.size - 8)
        if length > most:
            raise ValueError(f"the header must have at most {size(most)}, got {size(length)}")
        check_claim(file.size - 8 - length, most=most_bytes, what="the tensors")
        header = parse_json(file.stream.read(length).decode())
        if not isinstance(header, dict):
            raise ValueError(f"the header must be a JSON object, got {type(header).__name__}")
        metadata = validated(path, header.pop("__metadata__", {}), dict[str, str])
        _check_tensors(path, header, file.size - 8 - length)

        from safetensors.torch import load

        file.stream.seek(0)
        return Safetensors(metadata, load(file.stream.read(file.size)))


def state_digest(state: Mapping[str, Tensor]) -> str:
    """SHA-256 of names, types, shapes and bytes, for a writer to keep and a reader to compare.

    The format has no checksum of its own: a flipped bit in a weight is one of another network.

    Args:
        state: Tensors by name, in any order, on any device.

    Example:
        >>> state_digest({"weight": torch.zeros(2)})[:8]
        '289765d8'
    """
    found = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        found.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        found.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


def _check_tensors(path: Path, header: dict[str, Any], n_bytes: int) -> None:
    from fastcal.core.doors.safetensors_schema import Entry

    entries = validated(path, header, dict[str, Entry])
    filled = 0
    for name, entry in sorted(entries.items(), key=lambda item: item[1].data_offsets):
        begin, end = entry.data_offsets
        if entry.dtype not in _BITS:
            raise DataError(path, f"the type of {name} must be a plain number, got {entry.dtype}")
        expected = array_bytes(entry.shape, _BITS[entry.dtype] // 8)
        if begin != filled or end - begin != expected:
            raise ValueError(
                f"the bytes of {name} must be from {filled} to {filled + expected}, "
                f"got {begin} to {end}"
            )
        filled = end
    if filled != n_bytes:
        raise ValueError(f"its tensors must take {size(filled)} by its header, got {size(n_bytes)}")
