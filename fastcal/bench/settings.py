"""Settings of the kernel benchmark."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from fastcal.bench.peers import PEERS
from fastcal.bench.points import AXES, DTYPES, LAYOUTS, OUTPUTS, SWEEPS, Sweep
from fastcal.core.doors import bounded

MOST_CLASSES, MOST_MEMBERS, MOST_THREADS = 65_535, 10_000, 4096
_CPU_VOLUMES = ((128, 128, 128), (96, 96, 96), (240, 240, 155))
_CUDA_VOLUMES = ((240, 240, 155), (96, 96, 96), (256, 256, 256), (512, 512, 512))
_OUTPUTS = ("entropy", "six-maps", "six-maps+calibration")
_BACKGROUNDS = (0.95, 0.0, 0.5)


@dataclass(frozen=True)
class Settings:
    """What is measured and for how long. `default` and `quick` give sensible settings."""

    axes: dict[str, tuple[Any, ...]]
    """Axis of `points.Point` to its values. The first value of each axis makes the base point."""
    sweep: Sweep = "star"
    peers: tuple[str, ...] | None = None
    """Names of `PEERS`, measured at every point. None takes all, slow ones only at the base."""
    variants: bool = False
    """Also measure the competing designs of the CUDA kernels, at every point."""
    device: str | None = None
    threads: int | None = None
    seconds: float = 2.0
    """Time for the timed calls of a row."""
    budget: float = 300.0
    """Seconds after which no further volume is begun. What is left out is named."""
    host: bool = True
    """Also measure the host time of a call."""
    seed: int = 0

    def __post_init__(self) -> None:
        known = {"dtype": DTYPES, "layout": LAYOUTS, "outputs": OUTPUTS}
        if set(self.axes) != set(AXES):
            raise ValueError(f"axes must be {AXES}, got {tuple(self.axes)}")
        for axis, values in self.axes.items():
            if not values:
                raise ValueError(f"{axis} must have at least one value, got none")
            if axis in known and (wrong := [v for v in values if v not in known[axis]]):
                raise ValueError(f"{axis} must be among {', '.join(known[axis])}, got {wrong[0]!r}")
        for axis, least, most in (("classes", 2, MOST_CLASSES), ("members", 1, MOST_MEMBERS)):
            for value in self.axes[axis]:
                bounded(value, axis, most, least=least)
        if wrong := [share for share in self.axes["background"] if not 0 <= share <= 1]:
            raise ValueError(f"backgrounds must be between 0 and 1, got {wrong[0]:g}")
        if self.sweep not in SWEEPS:
            raise ValueError(f"sweep must be 'star' or 'product', got {self.sweep!r}")
        if wrong := [name for name in self.peers or () if name not in PEERS]:
            raise ValueError(f"peers must be among {', '.join(PEERS)}, got {wrong[0]!r}")
        for name in ("seconds", "budget"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name):g}")
        if self.threads is not None:
            bounded(self.threads, "threads", MOST_THREADS)

    @classmethod
    def default(cls, *, gpu: bool) -> Settings:
        """Give a sweep of a few minutes that varies every axis from a base point."""
        return cls(
            {
                "dtype": ("float32", "bfloat16", "float16"),
                "classes": (4, 2, 14, 104),
                "members": (5, 1, 10, 50),
                "volume": _CUDA_VOLUMES if gpu else _CPU_VOLUMES,
                "background": _BACKGROUNDS,
                "layout": LAYOUTS,
                "outputs": (*_OUTPUTS, "all-maps") if gpu else _OUTPUTS,
            },
            seconds=0.5 if gpu else 2.0,
        )

    @classmethod
    def quick(cls, *, gpu: bool) -> Settings:
        """Give settings for one minute: a small volume, two types, two backgrounds."""
        whole = cls.default(gpu=gpu)
        axes: dict[str, tuple[Any, ...]] = {name: values[:1] for name, values in whole.axes.items()}
        axes["dtype"], axes["background"] = ("float32", "bfloat16"), (0.95, 0.0)
        axes["volume"], axes["outputs"] = ((96, 96, 96),), (*_OUTPUTS, "calibration")
        return replace(whole, axes=axes, seconds=1.0, budget=40.0)
