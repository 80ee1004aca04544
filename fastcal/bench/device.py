"""The device that a benchmark runs on: its clock, its cache, its memory, its copy bandwidth."""

from __future__ import annotations

import ctypes
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import torch

_MEGABYTE = 10**6
_ASSUMED_CACHE = 64 * _MEGABYTE
_CPU_COPY, _CUDA_COPY = 256 * _MEGABYTE, 2048 * _MEGABYTE
_CUDA_FLUSH = 512 * _MEGABYTE


class Device(Protocol):
    """What the benchmark asks of a device."""

    torch: torch.device
    cache_bytes: int
    """Size of the largest cache."""

    def seconds(self, run: Callable[[], object]) -> float:
        """Time one call that finds the cache cold, in seconds."""
        ...

    def free_bytes(self) -> int:
        """Tell how much memory is free."""
        ...

    def peak_bytes(self, run: Callable[[], object]) -> int | None:
        """Measure the memory that one call takes beyond what is taken; None where unknown."""
        ...

    def synchronize(self) -> None:
        """Wait until all work that was started is done."""
        ...

    def release(self) -> None:
        """Give back memory that nothing uses."""
        ...

    @property
    def copy_size(self) -> int:
        """Size in bytes of a tensor whose copy shows the bandwidth."""
        ...


def open_device(name: str | None) -> Device:
    """Open a device by name: ``"cpu"``, ``"cuda"`` or ``"cuda:1"``. None is a GPU if there is one.

    Raises:
        ValueError: There is no such device here.
    """
    if name is None:
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ValueError(f"--device must be cpu, cuda or cuda:N, got {name!r}") from None
    if device.type == "cpu":
        return Cpu()
    if device.type != "cuda":
        raise ValueError(f"--device must be cpu, cuda or cuda:N, got {name!r}")
    if not torch.cuda.is_available():
        raise ValueError(
            f"--device must be cpu where torch {torch.__version__} sees no GPU, got {name!r}"
        )
    if device.index is not None and device.index >= torch.cuda.device_count():
        raise ValueError(f"--device must be one of {torch.cuda.device_count()} GPUs, got {name!r}")
    return Cuda(device)


def copy_bandwidth(device: Device, rounds: int = 11) -> float:
    """Measure the bandwidth of a large copy, bytes read plus bytes written per second: the roof."""
    size = min(device.copy_size, device.free_bytes() // 8)
    generator = torch.Generator(device.torch).manual_seed(0)
    source = torch.rand(size // 4, device=device.torch, generator=generator)
    target = torch.empty_like(source)
    taken = [device.seconds(lambda: target.copy_(source)) for _ in range(rounds)]
    return 2 * source.nbytes / statistics.median(taken[1:])


def clone_bandwidth(device: Device, rounds: int = 11) -> float:
    """Measure the bandwidth of `torch.Tensor.clone`, bytes read plus bytes written per second.

    On a GPU it is the most that a kernel reaches; a copy by ``copy_`` may take the copy engine.
    """
    size = min(device.copy_size, device.free_bytes() // 8)
    source = torch.zeros(size // 4, device=device.torch)
    taken = [device.seconds(source.clone) for _ in range(rounds)]
    return 2 * source.nbytes / statistics.median(taken[1:])


class Cpu:
    """The processor. Memory is that of the process."""

    def __init__(self) -> None:
        self.torch = torch.device("cpu")
        self.cache_bytes = _last_level_cache()
        self.copy_size = _CPU_COPY
        self._scratch = torch.zeros(2 * self.cache_bytes, dtype=torch.uint8)

    def seconds(self, run: Callable[[], object]) -> float:
        """Time one call after a buffer larger than the cache was written."""
        self._scratch.add_(1)
        start = time.perf_counter()
        run()
        return time.perf_counter() - start

    def free_bytes(self) -> int:
        """Tell how much memory is available to the process."""
        return _kilobytes(Path("/proc/meminfo"), "MemAvailable") or 8 * 10**9

    def peak_bytes(self, run: Callable[[], object]) -> int | None:
        """Measure the peak of the resident size, which the system resets on request."""
        status, reset = Path("/proc/self/status"), Path("/proc/self/clear_refs")
        self.release()
        try:
            reset.write_text("5")
        except OSError:
            return None
        before = _kilobytes(status, "VmRSS")
        run()
        peak = _kilobytes(status, "VmHWM")
        return None if before is None or peak is None else max(0, peak - before)

    def synchronize(self) -> None:
        """Do nothing, since calls on the processor are synchronous."""

    def release(self) -> None:
        """Give freed memory back to the system."""
        try:
            ctypes.CDLL(None).malloc_trim(0)
        except AttributeError:  # another C library
            return


class Cuda:
    """A GPU. Times are those between two events on the current stream."""

    def __init__(self, device: torch.device) -> None:
        self.torch = torch.device("cuda", torch.cuda.current_device())
        if device.index is not None:
            self.torch = device
        torch.cuda.set_device(self.torch)
        properties = torch.cuda.get_device_properties(self.torch)
        self.cache_bytes = int(getattr(properties, "L2_cache_size", 0)) or _ASSUMED_CACHE
        self.copy_size = _CUDA_COPY
        # Larger than the cache asks for, so that the device is busy with it while the call is
        # queued, and the time between the events holds no waiting for Python.
        size = max(4 * self.cache_bytes, _CUDA_FLUSH)
        self._scratch = torch.zeros(size // 8, dtype=torch.int64, device=self.torch)
        self._clean = torch.zeros(2 * self.cache_bytes // 8, dtype=torch.int64, device=self.torch)
        self._seen = torch.zeros((), dtype=torch.int64, device=self.torch)

    def seconds(self, run: Callable[[], object]) -> float:
        """Time one call between two events, after buffers larger than the cache passed through it.

        The buffer that is read comes last: lines of the cache that were written would go back to
        memory within the time of the call.
        """
        start = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        end = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        self._scratch.zero_()
        torch.amax(self._clean, 0, out=self._seen)
        start.record()
        run()
        end.record()
        end.synchronize()
        return float(start.elapsed_time(end)) / 1e3

    def free_bytes(self) -> int:
        """Tell how much memory of the GPU is free."""
        self.release()
        return torch.cuda.mem_get_info(self.torch)[0]

    def peak_bytes(self, run: Callable[[], object]) -> int | None:
        """Measure the peak of torch's allocator during one call."""
        torch.cuda.reset_peak_memory_stats(self.torch)
        before = torch.cuda.memory_allocated(self.torch)
        run()
        self.synchronize()
        return max(0, torch.cuda.max_memory_allocated(self.torch) - before)

    def synchronize(self) -> None:
        """Wait until the GPU is idle."""
        torch.cuda.synchronize(self.torch)

    def release(self) -> None:
        """Give cached memory back to the driver."""
        torch.cuda.empty_cache()


def _last_level_cache() -> int:
    sizes = []
    for file in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size"):
        text = file.read_text().strip()
        factor = {"K": 2**10, "M": 2**20}.get(text[-1:], 1)
        sizes.append(int(text.rstrip("KM")) * factor)
    return max(sizes, default=_ASSUMED_CACHE)


def _kilobytes(file: Path, key: str) -> int | None:
    """Read the value of a line ``key:  N kB``, in bytes."""
    try:
        for line in file.read_text().splitlines():
            if line.startswith(key + ":"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return None
