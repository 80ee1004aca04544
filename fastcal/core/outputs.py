"""The maps that a pass writes: which of them are wanted, and the tensors they go to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from fastcal.core.arrays import INTEGERS, Array, to_tensor
from fastcal.core.predictions import Predictions
from fastcal.core.problem import MAP_TABLE, MAPS


def check_maps(maps: str | Sequence[str], space: str) -> tuple[str, ...]:
    """Give the wanted maps as a tuple of known names, each once.

    Raises:
        TypeError: ``maps`` is neither a name nor a sequence of names.
        ValueError: A name is unknown, or the map is not defined for averaged logits.
    """
    if not isinstance(maps, Iterable):
        raise TypeError(f"maps must be names of maps, got {type(maps).__name__}")
    names = (maps,) if isinstance(maps, str) else tuple(dict.fromkeys(maps))
    for name in names:
        if name not in MAPS:
            raise ValueError(f"maps must be among {', '.join(MAPS)}, got {name!r}")
        if space == "logit" and MAP_TABLE[name].of_members:
            raise ValueError(f"space must be 'prob' for the map {name!r}, got 'logit'")
    return names


def map_tensors(
    maps: tuple[str, ...], out: Mapping[str, Array] | Array | None, predictions: Predictions
) -> list[Tensor]:
    """Give one tensor per map, in the order of ``maps``: that of ``out``, checked, or a new one.

    Args:
        maps: Checked names.
        out: Name of a map to its tensor, for some of the maps, or a tensor where there is one map.
        predictions: What the maps are of.

    Raises:
        TypeError: ``out`` or a tensor in it has the wrong type. The message names the map.
        ValueError: A tensor in ``out`` does not fit. The message names the map.
    """
    shape, device, real = predictions.shape, predictions.device, predictions.real
    voxels, multilabel = predictions.voxel_shape, predictions.multilabel
    if out is None:
        return [_made(name, predictions) for name in maps]
    if isinstance(out, Mapping):
        given = out
        for name in given:
            if name not in maps:
                raise ValueError(f"out must hold maps among {', '.join(maps)}, got {name!r}")
    elif len(maps) == 1:
        given = {maps[0]: out}
    else:
        raise TypeError(
            f"out must be a dict from name to tensor for {len(maps)} maps, got {type(out).__name__}"
        )
    tensors = []
    for name in maps:
        kind = MAP_TABLE[name]
        expected = shape if kind.has_class_axis(multilabel) else voxels
        if name not in given:
            tensors.append(_made(name, predictions))
            continue
        tensor = _check(given[name], name, tuple(expected), device)
        if kind.integer:
            _check_label_dtype(tensor.dtype, predictions.num_classes)
        elif tensor.dtype != real:
            raise TypeError(f"out for {name!r} must be {real}, got {tensor.dtype}")
        tensors.append(tensor)
    return tensors


def _made(name: str, predictions: Predictions) -> Tensor:
    kind = MAP_TABLE[name]
    dtype = torch.int64 if kind.integer else predictions.real
    return predictions.empty(dtype, classes=kind.has_class_axis(predictions.multilabel))


def check_apart(
    maps: tuple[str, ...], outputs: Sequence[Tensor], inputs: Mapping[str, Sequence[Tensor]]
) -> None:
    """Check that outputs share no memory with what is read, nor with one another.

    Memory is compared from the first element of a tensor to its last. Under ``torch.compile`` there
    are no addresses to compare.

    Args:
        maps: Names of the outputs.
        outputs: One tensor per map.
        inputs: Name of an argument to its tensors that are read.

    Raises:
        ValueError: Two of them share memory. The message names both.
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
    """The first address of a tensor, and the one behind its last element."""
    start = tensor.data_ptr()
    if tensor.numel() == 0:
        return start, start
    steps = zip(tensor.shape, tensor.stride(), strict=True)
    last = sum((extent - 1) * step for extent, step in steps)
    return start, start + (last + 1) * tensor.element_size()


def given_back(
    name: str, tensor: Tensor, out: Mapping[str, Array] | Array | None, numpy: bool
) -> Array:
    """Give what the caller gets for a map: their own ``out`` object, or a tensor or array."""
    if isinstance(out, Mapping):
        out = out.get(name)
    if out is not None:
        return out
    return tensor.numpy() if numpy else tensor


def _check(array: Array, name: str, shape: tuple[int, ...], device: torch.device) -> Tensor:
    if getattr(array, "requires_grad", False):
        raise ValueError(f"out for {name!r} must not require a gradient, got requires_grad=True")
    tensor = to_tensor(array, f"out for {name!r}")
    if isinstance(array, np.ndarray) and not (
        array.flags.writeable and tensor.data_ptr() == array.ctypes.data
    ):
        raise ValueError(
            f"out for {name!r} must be a writeable array in native byte order with strides that "
            "torch can describe, got one that is not"
        )
    if tuple(tensor.shape) != shape:
        raise ValueError(f"out for {name!r} must have shape {shape}, got {tuple(tensor.shape)}")
    if tensor.device != device:
        raise ValueError(f"out for {name!r} must be on {device}, got {tensor.device}")
    if _overlaps_itself(tensor):
        raise ValueError(
            f"out for {name!r} must have memory of its own for every element, got strides "
            f"{tensor.stride()} for shape {shape}"
        )
    return tensor


def _overlaps_itself(tensor: Tensor) -> bool:
    """Whether two elements may lie at one address: an axis steps within the reach of smaller ones.

    (Axes that interleave without a collision exist, but no slice or permutation makes them.)
    """
    reach = 0
    for step, extent in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if extent > 1:
            if step <= reach:
                return tensor.numel() > 0
            reach += (extent - 1) * step
    return False


def _check_label_dtype(dtype: torch.dtype, num_classes: int) -> None:
    if dtype not in INTEGERS:
        raise TypeError(f"out for 'label' must be an integer tensor, got {dtype}")
    most = torch.iinfo(dtype).max - (0 if dtype.is_signed else 1)
    if num_classes - 1 > most:
        raise ValueError(
            f"out for 'label' must have a type that holds {num_classes} classes and the mark of "
            f"invalid voxels, got {dtype}"
        )
