"""The competing designs of the CUDA kernels, timed beside one another."""

from __future__ import annotations

from fastcal.bench.timing import Candidate


def variant(candidate: Candidate, name: str) -> Candidate:
    """Make the same call with another design of the CUDA kernels.

    The design is chosen when a kernel is launched, so that nothing needs to wait for the device
    before the next candidate chooses another.

    Args:
        candidate: A call of fastcal.
        name: ``cuda-`` and a name of ``fastcal._cuda.variants()``.
    """
    from fastcal import _cuda

    chosen = name.removeprefix("cuda-")

    def run() -> object:
        before = _cuda.variant()
        _cuda.set_variant(chosen)
        try:
            return candidate.run()
        finally:
            _cuda.set_variant(before)

    return Candidate(name, run, candidate.error, candidate.tolerance, candidate.prepare)
