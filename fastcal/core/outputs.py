"""The maps a pass writes: which are asked for, and the tensors they go to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from fastcal.core.arrays import INTEGERS, Array, to_tensor
from fastcal.core.problem import MAPS

_NEEDS_MEMBER_PROBABILITIES = ("expected_entropy", "mutual_information", "variance")


def check_maps(maps: str | Sequence[str], space: str) -> tuple[str, ...]:
    """``maps`` as a tuple of known names, each once.

    Raises:
        TypeError: ``maps`` are no names.
        ValueError: A name is unknown, or the map is not defined for averaged logits.
    """
    if not isinstance(maps, Iterable):
        raise TypeError(f"maps must be names of maps, got {type(maps).__name__}")
    names = (maps,) if isinstance(maps, str) else tuple(dict.fromkeys(maps))
    for name in names:
        if name not in MAPS:
            raise ValueError(f"maps must be among {', '.join(MAPS)}; got {name!r}")
        if space == "logit" and name in _NEEDS_MEMBER_PROBABILITIES:
            raise ValueError(f"map {name!r} is not defined with space='logit': use space='prob'")
    return names


def map_tensors(
    maps: tuple[str, ...],
    out: Mapping[str, Array] | Array | None,
    shape: torch.Size,
    device: torch.device,
    class_dim: int,
    real: torch.dtype,
    multilabel: bool,
) -> list[Tensor]:
    """One tensor a map, in the order of ``maps``: those of ``out``, checked, or fresh ones.

    Args:
        maps: Checked names.
        out: Map name to tensor for some of the maps, or a tensor where there is one map.
        shape: Of a member.
        device: Of the members.
        class_dim: The member's class axis, not negative.
        real: The accumulation type.
        multilabel: Label and confidence have a class axis.

    Raises:
        TypeError, ValueError: ``out`` does not fit; the message names the map.
    """
    reduced = (*shape[:class_dim], *shape[class_dim + 1 :])
    if out is None:
        return [
            torch.empty(
                shape if _has_classes(name, multilabel) else reduced,
                dtype=torch.int64 if name == "label" else real,
                device=device,
            )
            for name in maps
        ]
    if isinstance(out, Mapping):
        given = out
        for name in given:
            if name not in maps:
                raise ValueError(f"out holds {name!r}, which is not among maps {maps}")
    elif len(maps) == 1:
        given = {maps[0]: out}
    else:
        raise TypeError(f"out must be a dict of maps where {len(maps)} maps come out")
    tensors = []
    for name in maps:
        expected = shape if _has_classes(name, multilabel) else reduced
        if name not in given:
            dtype = torch.int64 if name == "label" else real
            tensors.append(torch.empty(expected, dtype=dtype, device=device))
            continue
        tensor = _check(given[name], name, tuple(expected), device)
        if name == "label":
            _check_label_dtype(tensor.dtype, shape[class_dim])
        elif tensor.dtype != real:
            raise TypeError(f"out for {name!r} must be {real}, got {tensor.dtype}")
        tensors.append(tensor)
    return tensors


def check_apart(
    maps: tuple[str, ...], outputs: Sequence[Tensor], inputs: Mapping[str, Sequence[Tensor]]
) -> None:
    """Outputs that were given must not lie in what is read, nor in one another.

    Memory is compared from the first element of a tensor to its last. Under ``torch.compile`` there
    are no addresses to compare.

    Args:
        maps: Names of the outputs.
        outputs: A tensor a map.
        inputs: What to call the tensors that are read, and the tensors.

    Raises:
        ValueError: Two of them share memory; the message names both.
    """
    if torch.compiler.is_compiling():
        return
    written = [
        (f"out for {name!r}", _span(tensor)) for name, tensor in zip(maps, outputs, strict=True)
    ]
    read = [(name, _span(tensor)) for name, tensors in inputs.items() for tensor in tensors]
    for index, (name, (start, end)) in enumerate(written):
        for other, (other_start, other_end) in (*written[:index], *read):
            if start < other_end and other_start < end:
                raise ValueError(f"{name} must not share memory with {other}")


def _span(tensor: Tensor) -> tuple[int, int]:
    """First address of a tensor, and the one behind its last element."""
    start = tensor.data_ptr()
    if tensor.numel() == 0:
        return start, start
    steps = zip(tensor.shape, tensor.stride(), strict=True)
    last = sum((extent - 1) * step for extent, step in steps)
    return start, start + (last + 1) * tensor.element_size()


def given_back(
    name: str, tensor: Tensor, out: Mapping[str, Array] | Array | None, numpy: bool
) -> Array:
    """What the caller gets for a map: their own ``out`` object, or the result in their kind."""
    if isinstance(out, Mapping):
        out = out.get(name)
    if out is not None:
        return out
    return tensor.numpy() if numpy else tensor


def _has_classes(name: str, multilabel: bool) -> bool:
    return name == "mean" or (multilabel and name in ("label", "confidence"))


def _check(array: Array, name: str, shape: tuple[int, ...], device: torch.device) -> Tensor:
    if getattr(array, "requires_grad", False):
        raise ValueError(f"out for {name!r} must not require grad")
    tensor = to_tensor(array, f"out for {name!r}")
    if isinstance(array, np.ndarray) and not (
        array.flags.writeable and tensor.data_ptr() == array.ctypes.data
    ):
        raise ValueError(
            f"out for {name!r} must be a writeable array in native byte order without negative "
            "strides"
        )
    if tuple(tensor.shape) != shape:
        raise ValueError(f"out for {name!r} must have shape {shape}, got {tuple(tensor.shape)}")
    if tensor.device != device:
        raise ValueError(f"out for {name!r} must be on {device}, got {tensor.device}")
    if any(step == 0 and extent > 1 for step, extent in zip(tensor.stride(), shape, strict=True)):
        raise ValueError(f"out for {name!r} must not be an expanded tensor")
    return tensor


def _check_label_dtype(dtype: torch.dtype, num_classes: int) -> None:
    if dtype not in INTEGERS:
        raise TypeError(f"out for 'label' must be an integer tensor, got {dtype}")
    most = torch.iinfo(dtype).max - (0 if dtype.is_signed else 1)
    if num_classes - 1 > most:
        raise ValueError(
            f"out for 'label' of type {dtype} cannot hold {num_classes} classes and the mark of "
            "invalid voxels"
        )
