"""The compiled CUDA backend. Importing it fails, with the reason, where it cannot run."""

from __future__ import annotations

import torch

from fastcal.backends.gpu_passes import GpuPasses
from fastcal.backends.gpu_sums import GpuSums

try:
    from fastcal import _cuda
except ImportError as error:
    if error.path is not None and "_cuda." in error.path:
        raise
    raise ImportError(
        "not built: this installation was made without nvcc or with FASTCAL_CUDA=OFF"
    ) from None


def _stream(device: torch.device) -> tuple[int, int]:
    index = torch.cuda.current_device() if device.index is None else device.index
    return index, torch.cuda.current_stream(index).cuda_stream


def _reason() -> str:
    """Say why the kernels cannot run here; an empty string where they can."""
    if torch.version.cuda is None:
        return f"torch {torch.__version__} was built without CUDA"
    return _cuda.unavailable()


if reason := _reason():
    raise ImportError(reason)

_passes = GpuPasses(_cuda, _stream)
ensemble_statistics = _passes.ensemble_statistics
ensemble_accumulate = _passes.ensemble_accumulate
ensemble_finalize = _passes.ensemble_finalize
segment_sums = _passes.segment_sums

_sums = GpuSums(_cuda, _stream)
class_sums = _sums.class_sums
class_gradient = _sums.class_gradient
bin_gaps = _sums.bin_gaps
bin_gradient = _sums.bin_gradient
temperature_sums = _sums.temperature_sums
