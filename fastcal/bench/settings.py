"""Settings of the kernel benchmark."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from fastcal.bench.peers import PEERS
from fastcal.bench.points import AXES, DTYPES, LAYOUTS, OUTPUTS, SWEEPS, Sweep

_CPU_VOLUMES = ((128, 128, 128), (96, 96, 96), (240, 240, 155))
_CUDA_VOLUMES = ((240, 240, 155), (96, 96, 96), (256, 256, 256), (512, 512, 512))
_OUTPUTS = ("entropy", "six-maps", "six-maps+calibration")
_BACKGROUNDS = (0.95, 0.0, 0.5)


@dataclass(frozen=True)
class Settings:
    """What is measured and for how long; `default` and `quick` give sensible ones."""

    axes: dict[str, tuple[Any, ...]]
    """Axis of `points.Point` to its values; the first of each makes the base point."""
    sweep: Sweep = "star"
    peers: tuple[str, ...] | None = None
    """Names of `PEERS`, measured at every point. None: all, the slow ones at the base alone."""
    device: str | None = None
    threads: int | None = None
    seconds: float = 2.0
    """Budget of the timed calls of a row."""
    budget: float = 300.0
    """Seconds after which no further volume is begun; what is left out is named."""
    host: bool = True
    """Measure the host time of a call too."""
    seed: int = 0

    def __post_init__(self) -> None:
        known = {"dtype": DTYPES, "layout": LAYOUTS, "outputs": OUTPUTS}
        if set(self.axes) != set(AXES):
            raise ValueError(f"axes must be {AXES}, got {tuple(self.axes)}")
        for axis, values in self.axes.items():
            if not values:
                raise ValueError(f"{axis} needs a value")
            if axis in known and (wrong := [v for v in values if v not in known[axis]]):
                raise ValueError(f"{axis} must be of {tuple(known[axis])}, got {wrong[0]!r}")
        for axis in ("classes", "members"):
            if min(self.axes[axis]) < (2 if axis == "classes" else 1):
                raise ValueError(f"{axis} too small: {min(self.axes[axis])}")
        if wrong := [share for share in self.axes["background"] if not 0 <= share <= 1]:
            raise ValueError(f"background is a share in [0, 1], got {wrong[0]:g}")
        if self.sweep not in SWEEPS:
            raise ValueError(f"sweep must be of {SWEEPS}, got {self.sweep!r}")
        if wrong := [name for name in self.peers or () if name not in PEERS]:
            raise ValueError(f"peers must be of {tuple(PEERS)}, got {wrong[0]!r}")
        for name in ("seconds", "budget"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name):g}")
        if self.threads is not None and self.threads < 1:
            raise ValueError(f"threads must be positive, got {self.threads}")

    @classmethod
    def default(cls, *, gpu: bool) -> Settings:
        """The sweep of a few minutes: every axis varied from a base point."""
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
        """Within a minute: a small volume, two types, two backgrounds, all peers at the base."""
        whole = cls.default(gpu=gpu)
        axes: dict[str, tuple[Any, ...]] = {name: values[:1] for name, values in whole.axes.items()}
        axes["dtype"], axes["background"] = ("float32", "bfloat16"), (0.95, 0.0)
        axes["volume"], axes["outputs"] = ((96, 96, 96),), (*_OUTPUTS, "calibration")
        return replace(whole, axes=axes, seconds=1.0, budget=40.0)
