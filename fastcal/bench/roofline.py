"""The roofline plot: operations per second against operations per byte, below the bandwidth."""

from __future__ import annotations

import math

from fastcal.bench.kernels import PointResult, Results
from fastcal.bench.points import OUTPUTS
from fastcal.report.style import (
    BLUE,
    GREEN,
    INK,
    MUTED,
    ORANGE,
    PURPLE,
    VERMILION,
    house_style,
    new_figure,
    png_bytes,
)

_COLOURS = dict(zip(OUTPUTS, (BLUE, VERMILION, PURPLE, GREEN, ORANGE), strict=True))
_MARKERS = {"float32": "o", "bfloat16": "s", "float16": "D", "float64": "^"}
_HOLLOW = ("eager", "compile")
_SHARES = (1.0, 0.75, 0.5)


def draw(results: Results) -> bytes:
    """Draw a run as PNG: fastcal filled, PyTorch hollow, the roof and shares of it as lines.

    The abscissa is `Point.operations` over `Point.bytes`. Both are counted from the formulas, so
    equal work has the same abscissa whoever does it.
    """
    rows = [row for row in results.rows if row.timing is not None]
    with house_style():
        figure = new_figure(8.0, 5.2)
        axes = figure.subplots()
        for row in rows:
            _point(axes, row)
        low = min(_intensity(row) for row in rows) / 1.3
        high = max(_intensity(row) for row in rows) * 1.3
        for share in _SHARES:
            roof = [share * results.copy * x / 1e9 for x in (low, high)]
            axes.plot((low, high), roof, color=INK if share == 1 else MUTED, lw=2 * share, zorder=1)
            name = (
                f"{share:.0%} of copying" if share < 1 else f"copy, {results.copy / 1e9:.0f} GB/s"
            )
            axes.annotate(
                name,
                (high, roof[1]),
                xytext=(4, 0),
                textcoords="offset points",
                va="center",
                fontsize=9,
                color=INK if share == 1 else MUTED,
                annotation_clip=False,
            )
        axes.set(xscale="log", yscale="log", xlim=(low, high))
        axes.set_xlabel("operations per byte")
        axes.set_ylabel("operations per second, in 10$^9$")
        axes.set_title(f"Roofline of the ensemble pass on {_device(results)}", loc="left")
        _ticks(axes, low, high)
        _legend(figure, rows)
        return png_bytes(figure)


def _intensity(row: PointResult) -> float:
    return row.point.operations / row.point.bytes


def _point(axes, row: PointResult) -> None:  # type: ignore[no-untyped-def]
    colour, marker = _COLOURS[row.point.outputs], _MARKERS[row.point.dtype]
    assert row.timing is not None
    speed = row.point.operations / row.timing.median / 1e9
    axes.plot(_intensity(row), speed, marker, color=colour, ms=7, mec="white", mew=0.6, zorder=3)
    for name in _HOLLOW:
        if name in row.peers:
            theirs = row.point.operations / row.peers[name].timing.median / 1e9
            fill = "white" if name == "eager" else "none"
            axes.plot(
                _intensity(row), theirs, marker, mec=colour, mfc=fill, ms=6, mew=1.2, zorder=2
            )


def _ticks(axes, low: float, high: float) -> None:  # type: ignore[no-untyped-def]
    from matplotlib.ticker import FixedLocator, NullFormatter, ScalarFormatter

    steps = [m * 10.0**e for e in range(-3, 4) for m in (1, 1.5, 2, 3, 4, 5, 7)]
    inside = [step for step in steps if low <= step <= high]
    axes.xaxis.set_major_locator(FixedLocator(inside))
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_minor_formatter(NullFormatter())


def _legend(figure, rows: list[PointResult]) -> None:  # type: ignore[no-untyped-def]
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], marker="o", ls="", color=_COLOURS[name], label=name)
        for name in OUTPUTS
        if any(row.point.outputs == name for row in rows)
    ]
    handles += [
        Line2D([], [], marker=_MARKERS[name], ls="", color=MUTED, label=name)
        for name in _MARKERS
        if any(row.point.dtype == name for row in rows)
    ]
    if any(name in row.peers for row in rows for name in _HOLLOW):
        handles.append(
            Line2D(
                [],
                [],
                marker="o",
                ls="",
                mec=MUTED,
                mfc="white",
                label="PyTorch, eager or compiled",
            )
        )
    figure.legend(handles=handles, loc="outside lower center", ncols=math.ceil(len(handles) / 2))


def _device(results: Results) -> str:
    about = results.about
    if results.device.type == "cuda":
        gpu = about["gpu"]
        assert isinstance(gpu, dict)
        return str(gpu["devices"][results.device.index or 0]).partition(",")[0]
    threads = about["threads"]
    return f"{about['cpu']}, {threads} thread{'s' * (threads != 1)}"
