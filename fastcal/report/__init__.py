"""Reports on predictions: one HTML page, and the tables and figures of comparisons."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastcal.report.builder import build

__all__ = ["build"]


def __getattr__(name: str) -> Any:
    """Load `build` when it is asked for: figures need none of what it reads with."""
    if name == "build":
        from fastcal.report.builder import build

        return build
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
