"""The gate of PyTorch's checkpoints: weights only, vetted before PyTorch reads them.

``torch.load(weights_only=True)`` calls no code of the file's choice. It still trusts sizes, hashes
nested keys, and compares no checksum, so that a flipped bit is a weight like any other.

A checkpoint that fastcal writes is sealed: its last bytes, a comment of the ZIP format, are the
SHA-256 of all bytes before them.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from fastcal.core.doors.archive import Archive, open_archive
from fastcal.core.doors.bounds import MIB, check_claim
from fastcal.core.doors.failures import shown
from fastcal.core.doors.pickle_machine import (
    Forbidden,
    Machine,
    Maker,
    Table,
    as_tree,
    hashable,
)
from fastcal.core.doors.schema import validated
from fastcal.core.errors import DataError

_LARGEST_PICKLE = 64 * MIB
_END = b"PK\5\6"
_MARK = b"fastcal sha256 "
_SEAL_LENGTH = len(_MARK) + hashlib.sha256().digest_size
_STORAGE_DTYPES: dict[str, torch.dtype] = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}


def read_checkpoint(path: str | Path, model: Any = None, *, most_bytes: int | None = None) -> Any:
    """Read a file of ``torch.save`` that holds tensors and plain values, on the CPU.

    Args:
        path: The file, in the ZIP format of PyTorch 1.6 and later.
        model: What `validated` takes; None returns what was saved.
        most_bytes: The most that the caller expects of the whole file.

    Raises:
        MissingFileError: There is no such file.
        DataError: It is damaged (each member's checksum is compared), asks for code (the name is
            given), or claims what it does not hold.

    Example:
        >>> read_checkpoint("member_00/last.pt", dict[str, object])  # doctest: +SKIP
        {'model': OrderedDict(...), 'optimiser': {...}, 'course': {...}}
    """
    with open_archive(path, "a checkpoint of tensors and plain values") as archive:
        check_claim(archive.size, most=most_bytes, what="the checkpoint")
        try:
            _check_seal(archive)
            _vet(archive)
        except Forbidden as error:
            raise DataError(path, str(error)) from None
        archive.stream.seek(0)
        content = torch.load(archive.stream, map_location="cpu", weights_only=True)
    return content if model is None else validated(path, content, model)


def sealed(content: bytes | bytearray | memoryview) -> bytes:
    """Return the bytes of ``torch.save`` with their digest behind them.

    PyTorch and ``zipfile`` read the result as before.

    Args:
        content: A ZIP archive without a comment.

    Raises:
        ValueError: It is something else.

    Example:
        >>> stream = io.BytesIO()
        >>> torch.save({"step": 3}, stream)
        >>> torch.load(io.BytesIO(sealed(stream.getvalue())), weights_only=True)
        {'step': 3}
    """
    body = bytes(content)
    if body[-22:-18] != _END or body[-2:] != b"\0\0":
        raise ValueError("content must be an archive of torch.save, got other bytes")
    body = body[:-2] + _SEAL_LENGTH.to_bytes(2, "little")
    return body + _MARK + hashlib.sha256(body).digest()


def _check_seal(archive: Archive) -> None:
    """Compare the digest of a sealed archive; those of other programs and versions have none."""
    stream = archive.stream
    comment = archive.comment
    if not comment:
        stream.seek(-22, os.SEEK_END)
        if stream.read(4) != _END:  # a comment whose length was overwritten
            raise ValueError("bytes behind the archive's end")
        return
    if len(comment) != _SEAL_LENGTH or not comment.startswith(_MARK):
        raise ValueError("a comment that is no digest")
    stream.seek(0)
    found, left = hashlib.sha256(), archive.size - _SEAL_LENGTH
    while left and (piece := stream.read(min(left, MIB))):
        found.update(piece)
        left -= len(piece)
    if found.digest() != comment.removeprefix(_MARK):
        raise ValueError("its bytes differ from those that were written")


def _vet(archive: Archive) -> None:
    """Everything that PyTorch would believe."""
    members = {name.partition("/")[2]: archive.member(name) for name in sorted(archive.names)}
    if "data.pkl" not in members or "constants.pkl" in members:
        raise ValueError("no data.pkl, or a program beside it")
    for member in members.values():
        if not member.stored:
            raise ValueError(f"{shown(member.name)} must be stored uncompressed, got it deflated")
        member.check()
    sizes = {
        name.removeprefix("data/"): member.size
        for name, member in members.items()
        if name.startswith("data/")
    }
    content = members["data.pkl"].read(_LARGEST_PICKLE)
    as_tree(Machine(content, _table(sizes)).run(), lambda leaf: leaf)


@dataclass(frozen=True)
class _Kind:
    """Stands for a class of storages."""

    itemsize: int


@dataclass(frozen=True)
class _Storage:
    """Stands for the numbers of one or more tensors."""

    numel: int


class _Tensor:
    """Stands for a tensor."""

    def __init__(self, storage: Any, offset: Any, shape: Any, stride: Any, *_: Any) -> None:
        if not isinstance(storage, _Storage):
            raise ValueError(f"a tensor out of {shown(storage)}")
        steps = (offset, *shape, *stride)
        if len(shape) != len(stride) or not all(type(n) is int and n >= 0 for n in steps):
            raise ValueError("a tensor whose shape or strides are no numbers")
        numel = math.prod(shape)
        last = offset + sum((n - 1) * step for n, step in zip(shape, stride, strict=True))
        # An expanded tensor has few numbers and any shape; whoever copies it pays for the shape.
        if numel and (last >= storage.numel or numel > storage.numel):
            raise ValueError(f"a tensor of shape {tuple(shape)} out of {storage.numel} numbers")


class _Parameter:
    """Stands for a parameter."""

    def __init__(self, tensor: Any, *_: Any) -> None:
        if not isinstance(tensor, _Tensor):
            raise ValueError(f"a parameter out of {shown(tensor)}")


class _Ordered(dict[Any, Any]):
    """Stands for an OrderedDict, which has attributes: ``_metadata`` in a ``state_dict``."""

    def __init__(self, *items: Any) -> None:
        super().__init__((hashable(key), value) for key, value in (items[0] if items else ()))

    def set_state(self, state: Any) -> None:
        if not isinstance(state, dict) or set(state) - {"_metadata"}:
            raise ValueError("attributes that a state_dict does not have")
        as_tree(state, lambda leaf: leaf)


def _table(sizes: dict[str, int]) -> Table:
    def storage(described: Any) -> _Storage:
        word, kind, key, _, numel = described
        if word != "storage" or not isinstance(kind, _Kind) or type(numel) is not int:
            raise ValueError("a storage that is described in another way")
        if sizes.get(str(key)) != numel * kind.itemsize:
            raise ValueError(
                f"the storage {shown(key)} must have {numel * kind.itemsize} bytes, got "
                f"{sizes.get(str(key), 'none')}"
            )
        return _Storage(numel)

    return Table(_MAKERS, _CONSTANTS, storage, _ATTRIBUTES)


def _shape(numbers: Any = ()) -> tuple[int, ...]:
    return tuple(numbers)


_MAKERS: dict[tuple[str, str], Maker] = {
    ("collections", "OrderedDict"): _Ordered,
    ("torch._utils", "_rebuild_tensor_v2"): _Tensor,
    ("torch._utils", "_rebuild_parameter"): _Parameter,
    ("torch", "Size"): _shape,
    ("torch", "device"): lambda *_: None,
}
_CONSTANTS: dict[tuple[str, str], Any] = {
    **{("torch", name): _Kind(dtype.itemsize) for name, dtype in _STORAGE_DTYPES.items()},
    **{("torch", str(dtype).removeprefix("torch.")): None for dtype in _STORAGE_DTYPES.values()},
}
_ATTRIBUTES: dict[type, Callable[[Any, Any], None]] = {
    _Ordered: lambda ordered, state: ordered.set_state(state)
}
