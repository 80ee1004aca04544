"""The kernel benchmark behind ``fastcal bench``: checked results, cold caches, paired peers.

Example:
    >>> from fastcal.bench import Settings, run
    >>> axes = {
    ...     "dtype": ("float32",), "classes": (2,), "members": (2,), "volume": ((8, 8, 8),),
    ...     "background": (0.5,), "layout": ("ncdhw",), "outputs": ("entropy",),
    ... }
    >>> results = run(Settings(axes, peers=(), device="cpu", seconds=0.01, host=False))
    >>> results.rows[0].timing.error < 1e-6
    True
"""

from fastcal.bench.kernels import Results, run
from fastcal.bench.settings import Settings

__all__ = ["Results", "Settings", "run"]
