"""A run of the benchmark as JSON, as Markdown, and as tables in a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastcal.bench import peers, roofline
from fastcal.bench.kernels import PeerResult, PointResult, Results
from fastcal.bench.machine import headline
from fastcal.bench.points import AXES
from fastcal.core.atomic import atomic_path, write_json, write_text

if TYPE_CHECKING:
    from rich.console import Console

_WORTH_SAYING = 1e-4
"""The relative error of a library's ECE from which on it is mentioned."""

COLUMNS = ("ms", "p20-p80", "GB/s", "of copy", "of clone", "MB")


def to_json(results: Results) -> dict[str, Any]:
    """Describe a whole run. Times are in ms, sizes in bytes, bandwidths in bytes per second."""
    return {
        "title": "fastcal kernel benchmark",
        "device": str(results.device),
        "machine": results.about,
        "settings": asdict(results.settings),
        "copy_bytes_per_second": results.copy,
        "clone_bytes_per_second": results.clone,
        "seconds": results.seconds,
        "rows": [_row_json(results, row) for row in results.rows],
        "host": [asdict(host) for host in results.host],
        "skipped": results.skipped,
    }


def _row_json(results: Results, row: PointResult) -> dict[str, Any]:
    return {
        **asdict(row.point),
        "fastcal": None if row.timing is None else row.timing.record(),
        "bytes": row.point.bytes,
        "operations": row.point.operations,
        "bytes_per_second": row.bytes_per_second,
        "share_of_copy": results.share(row),
        "share_of_clone": results.share_of_clone(row),
        "peak_bytes": row.peak_bytes,
        "peers": {
            name: {
                **peer.timing.record(),
                "fastcal_times_faster": peer.ratio,
                "peak_bytes": peer.peak_bytes,
            }
            for name, peer in row.peers.items()
        },
        "left_out": row.left_out,
        "deviations": [asdict(deviation) for deviation in row.deviations],
        "refused": row.refused,
    }


def varying(results: Results) -> tuple[str, ...]:
    """Find the axes in which rows differ, apart from outputs."""
    rows = [row.point for row in results.rows]
    return tuple(
        axis
        for axis in AXES
        if axis != "outputs" and len({getattr(point, axis) for point in rows}) > 1
    )


def label(results: Results, row: PointResult) -> str:
    """Name what tells a row from the others of its table."""
    axes = varying(results)
    if results.settings.sweep == "star":
        first = results.rows[0].point
        axes = tuple(a for a in axes if getattr(row.point, a) != getattr(first, a))
        return row.point.describe(axes) if axes else "base"
    return row.point.describe(axes) if axes else "the volume"


def caption(results: Results) -> str:
    """Describe what all rows of a table have in common."""
    first, axes = results.rows[0].point, [axis for axis in AXES if axis != "outputs"]
    if results.settings.sweep == "star":
        return f"base: {first.describe(axes)}"
    return first.describe([axis for axis in axes if axis not in varying(results)])


def peer_columns(rows: Sequence[PointResult]) -> list[str]:
    """List the peers of which some row has a time."""
    return [name for name in peers.KNOWN if any(name in row.peers for row in rows)]


def cells(results: Results, row: PointResult, columns: Sequence[str]) -> list[str]:
    """Format the cells of `COLUMNS` and the ratios of the peers."""
    if row.timing is None:
        return [f"refused: {row.refused}", *[""] * (len(COLUMNS) - 1 + len(columns))]
    share, clone = results.share(row), results.share_of_clone(row)
    speed, peak = row.bytes_per_second, row.peak_bytes
    return [
        _number(row.timing.median * 1e3),
        f"{_number(row.timing.percentile(20) * 1e3)}-{_number(row.timing.percentile(80) * 1e3)}",
        "" if speed is None else f"{speed / 1e9:.1f}" if speed < 1e11 else f"{speed / 1e9:.0f}",
        "" if share is None else f"{share:.2f}",
        "" if clone is None else f"{clone:.2f}",
        "" if peak is None else f"{peak / 1e6:.1f}",
        *(_ratio(row.peers.get(name)) for name in columns),
    ]


def notes(results: Results) -> Iterator[str]:
    """Yield the lines below the tables: the roof, what was left out, how far peers were off."""
    yield (
        f"a copy on {results.device} moves {results.copy / 1e9:.1f} GB/s and a clone "
        f"{results.clone / 1e9:.1f} GB/s, read plus written; "
        f"the run took {results.seconds:.0f} s"
    )
    if columns := peer_columns(results.rows):
        yield "the number of a peer says how many times faster fastcal is, in paired rounds"
    for name in columns:
        yield f"{name}: {peers.KNOWN[name].what}"
    for line in results.skipped:
        yield f"not measured: {line}"
    for row in results.rows:
        for name, reason in row.left_out.items():
            yield f"not measured: {name} at {label(results, row)}, {row.point.outputs}: {reason}"
    for row in results.refused:
        yield f"REFUSED: {label(results, row)}, {row.point.outputs}: {row.refused}"
    worst: dict[str, tuple[peers.Deviation, PointResult]] = {}
    for row in results.rows:
        for found in row.deviations:
            if found.name not in worst or found.relative > worst[found.name][0].relative:
                worst[found.name] = found, row
    for name, (most, row) in worst.items():
        if most.relative > _WORTH_SAYING:
            yield (
                f"{name} ECE is off by up to {most.relative:.1%}, {label(results, row)}: "
                f"{most.theirs:.6f}, in float64 {most.exact:.6f}"
            )


def markdown(results: Results) -> str:
    """Format the run as one page."""
    lines = ["# Kernel benchmark", "", f"{headline(results.about)}.", ""]
    if results.rows:
        lines += [f"{_sentence(caption(results))}.", ""]
    for outputs, rows in by_outputs(results).items():
        columns = peer_columns(rows)
        heads = ["", *COLUMNS, *columns]
        lines += [f"## {outputs}", "", _line(heads), "|---" + "|---:" * (len(heads) - 1) + "|"]
        lines += [_line([label(results, r), *cells(results, r, columns)]) for r in rows]
        lines.append("")
    if results.host:
        heads = _host_heads(results)
        lines += ["## Host time of a call on 4 x 4 x 4 voxels", "", _line(heads)]
        lines += ["|---" + "|---:" * (len(heads) - 1) + "|", *map(_line, _host_cells(results)), ""]
    lines += [f"- {note}" for note in notes(results)]
    return "\n".join(lines) + "\n"


def show(results: Results, console: Console) -> None:
    """Print the tables and notes."""
    from rich.table import Table

    console.print(headline(results.about), style="dim", highlight=False)
    if results.rows:
        console.print(caption(results), highlight=False)
    for outputs, rows in by_outputs(results).items():
        columns = peer_columns(rows)
        table = Table(title=outputs, title_justify="left", title_style="bold")
        table.add_column("", no_wrap=True)
        for head in (*COLUMNS, *columns):
            table.add_column(head, justify="right", no_wrap=True)
        for row in rows:
            table.add_row(label(results, row), *cells(results, row, columns))
        console.print(table)
    if results.host:
        table = Table(title="host time, 4 x 4 x 4 voxels", title_justify="left", title_style="bold")
        for head in _host_heads(results):
            table.add_column(head, justify="left" if head == "call" else "right")
        for host in _host_cells(results):
            table.add_row(*host)
        console.print(table)
    for note in notes(results):
        console.print(f"- {note}", highlight=False, markup=False)


def write(results: Results, folder: Path) -> list[Path]:
    """Write ``kernels.json``, ``kernels.md`` and, where matplotlib is, ``roofline.png``."""
    folder.mkdir(parents=True, exist_ok=True)
    picture = None
    if any(row.timing is not None for row in results.rows):
        try:
            picture = roofline.draw(results)
        except ImportError as error:
            results.skipped.append(f"roofline.png: {error}")
    written = write_tables(results, folder)
    if picture is not None:
        written.append(folder / "roofline.png")
        with atomic_path(written[-1]) as temporary:
            temporary.write_bytes(picture)
    return written


def write_tables(results: Results, folder: Path) -> list[Path]:
    """Write ``kernels.json`` and ``kernels.md``: all of a run, or what there is of it so far."""
    folder.mkdir(parents=True, exist_ok=True)
    written = [folder / "kernels.json", folder / "kernels.md"]
    write_json(written[0], to_json(results))
    write_text(written[1], markdown(results))
    return written


def by_outputs(results: Results) -> dict[str, list[PointResult]]:
    """Group the rows by table."""
    found: dict[str, list[PointResult]] = {}
    for row in results.rows:
        found.setdefault(row.point.outputs, []).append(row)
    return found


def _host_heads(results: Results) -> list[str]:
    limited = any(host.target is not None for host in results.host)
    return ["call", "us", *["to stay under"] * limited]


def _host_cells(results: Results) -> Iterator[list[str]]:
    columns = len(_host_heads(results))
    for host in results.host:
        limit = "" if host.target is None else f"{host.target:g}"
        yield [host.call, f"{host.microseconds:.1f}", limit][:columns]


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def _ratio(peer: PeerResult | None) -> str:
    return "" if peer is None else f"{peer.ratio:.1f}x"


def _number(value: float) -> str:
    return f"{value:.3f}" if value < 1 else f"{value:.2f}" if value < 100 else f"{value:.0f}"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
