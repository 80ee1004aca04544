"""What users hand over, read as torch tensors that share its memory."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Floats: TypeAlias = NDArray[np.float64]
Integers: TypeAlias = NDArray[np.int64]
Array: TypeAlias = Any
"""A torch tensor, a NumPy array, or anything else with ``__dlpack__``.

Results are NumPy arrays where the predictions were NumPy arrays, and torch tensors otherwise.
"""

_REAL = {
    torch.float16: torch.float32,
    torch.bfloat16: torch.float32,
    torch.float32: torch.float32,
    torch.float64: torch.float64,
}

INTEGERS = frozenset(
    {
        torch.int8,
        torch.int16,
        torch.int32,
        torch.int64,
        torch.uint8,
        torch.uint16,
        torch.uint32,
        torch.uint64,
    }
)


def to_tensor(array: Array, name: str) -> Tensor:
    """Read an array as a detached, strided torch tensor over the same memory.

    NumPy arrays may be read-only and may have any strides. Three kinds are copied, because torch
    cannot describe them: arrays with negative strides, with strides that are not a multiple of the
    item size, and in foreign byte order. Arrays of ``bfloat16`` (ml_dtypes) are read as torch's
    bfloat16. Subclasses of `torch.Tensor`, such as MONAI's MetaTensor, are read as plain tensors.

    Args:
        array: See `Array`.
        name: Name of the argument, for the message.

    Raises:
        TypeError: ``array`` is none of these, or the tensor is not dense.
    """
    if isinstance(array, Tensor):
        tensor = array
        if torch.overrides.has_torch_function_unary(tensor):
            tensor = tensor.as_subclass(Tensor)
        if tensor.requires_grad:
            tensor = tensor.detach()
    elif isinstance(array, np.ndarray):
        tensor = _from_numpy(array, name)
    elif hasattr(array, "__dlpack__"):
        tensor = torch.utils.dlpack.from_dlpack(array)
    else:
        raise TypeError(
            f"{name} must be a torch tensor, a NumPy array or an object with __dlpack__, "
            f"got {type(array).__name__}"
        )
    if tensor.layout is not torch.strided:
        raise TypeError(f"{name} must be a dense tensor, got {tensor.layout}")
    return tensor


def real_dtype(tensor: Tensor, name: str) -> torch.dtype:
    """Give the accumulation type of a tensor: float64 for float64, else float32.

    Raises:
        TypeError: The tensor is not float16, bfloat16, float32 or float64.
    """
    real = _REAL.get(tensor.dtype)
    if real is None:
        raise TypeError(
            f"{name} must be float16, bfloat16, float32 or float64, got {_short(tensor.dtype)}"
        )
    return real


def accumulation_type(dtype: torch.dtype) -> torch.dtype:
    """The type in which numbers of ``dtype`` are computed and summed."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


class _Borrowed:
    """Hands the memory of an array to NumPy once more, without its read-only mark."""

    def __init__(self, array: np.ndarray[Any, Any]) -> None:
        interface = dict(array.__array_interface__)
        interface["data"] = (interface["data"][0], False)
        self.__array_interface__ = interface
        self.array = array


def _from_numpy(array: np.ndarray[Any, Any], name: str) -> Tensor:
    brain = array.dtype.name == "bfloat16"
    if brain:
        array = array.view(np.uint16)
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    item = array.itemsize
    if any(stride < 0 or stride % item for stride in array.strides):
        array = array.copy()
    elif not array.flags.writeable:
        # torch warns about read-only memory, but inputs are only ever read.
        array = np.asarray(_Borrowed(array))
    try:
        tensor = torch.from_numpy(array)
    except TypeError:
        raise TypeError(f"{name} must hold numbers, got an array of type {array.dtype}") from None
    return tensor.view(torch.bfloat16) if brain else tensor
