"""Tensors of the host brought to a GPU while host and device go on working."""

from __future__ import annotations

import torch
from torch import Tensor

SLOTS = 2
"""Buffers: the host fills one while the other is copied."""


class Uploads:
    """Copies tensors to a device through two pinned buffers and a stream of its own.

    A copy from ordinary memory makes the host wait until the device has done all work before it.
    Here the host copies into a pinned buffer, and waits only where that buffer's last copy is not
    done yet. The device copies it on the copy stream, and the stream of the caller waits for that
    copy alone. So the next member is read while this one is computed. On a CPU a tensor stays as
    it is. Not for several threads at once.

    Args:
        device: Where tensors are brought.

    Example:
        >>> Uploads(torch.device("cpu"))(torch.ones(2))
        tensor([1., 1.])
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._slots = [_Slot() for _ in range(SLOTS)]
        self._turn = 0
        self._stream: torch.cuda.Stream | None = None

    def __call__(self, tensor: Tensor) -> Tensor:
        """Give the tensor on the device, for work on the current stream of the caller."""
        if self._device.type != "cuda" or tensor.device.type != "cpu" or tensor.numel() == 0:
            return tensor.to(self._device)
        return self._staged(tensor)

    def _staged(self, tensor: Tensor) -> Tensor:
        # The axes in the order in which they lie in memory, so that both copies are straight.
        strides = tensor.stride()
        order = sorted(range(tensor.ndim), key=lambda axis: strides[axis], reverse=True)
        laid = tensor.permute(order)
        slot = self._slots[self._turn]
        self._turn = (self._turn + 1) % SLOTS
        staging = slot.take(laid)
        if self._stream is None:
            self._stream = torch.cuda.Stream(self._device)
        with torch.cuda.stream(self._stream):
            # Memory of the copy stream: that of the caller's may still be read by earlier work.
            found = torch.empty_like(
                laid, device=self._device, memory_format=torch.contiguous_format
            )
            found.copy_(staging, non_blocking=True)
            slot.copied = self._stream.record_event()
        here = torch.cuda.current_stream(self._device)
        here.wait_event(slot.copied)
        found.record_stream(here)
        back = sorted(range(tensor.ndim), key=lambda axis: order[axis])
        return found.permute(back)


class _Slot:
    """A pinned buffer, which grows, and the event after which it may be filled again."""

    def __init__(self) -> None:
        self._buffer: Tensor | None = None
        self.copied: torch.cuda.Event | None = None

    def take(self, tensor: Tensor) -> Tensor:
        """Give the tensor in pinned memory."""
        if self.copied is not None:
            self.copied.synchronize()
        if self._buffer is None or self._buffer.numel() < tensor.nbytes:
            self._buffer = pinned(tensor.nbytes)
        staging = self._buffer[: tensor.nbytes].view(tensor.dtype).view(tensor.shape)
        return staging.copy_(tensor)


def pinned(n_bytes: int) -> Tensor:
    """Allocate bytes that a GPU copies by itself."""
    return torch.empty(n_bytes, dtype=torch.uint8, pin_memory=True)
