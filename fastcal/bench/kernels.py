"""The kernel benchmark: every point checked, then timed beside its peers."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import torch

from fastcal.bench import peers
from fastcal.bench.device import Device, clone_bandwidth, copy_bandwidth, open_device
from fastcal.bench.host import HostTime, host_times
from fastcal.bench.machine import machine
from fastcal.bench.peers import Deviation
from fastcal.bench.points import Point, points
from fastcal.bench.settings import Settings
from fastcal.bench.timing import Candidate, Timing, WrongResult, judge, measure
from fastcal.bench.workload import Workload, ours

_SLOW = 15.0
"""Seconds of a call above which a peer is not timed."""
_READ = "fastcal, scores read"
_SHARE_OF_MEMORY = 0.9


@dataclass(frozen=True)
class PeerResult:
    """The time of a peer at a point, beside fastcal's in the same rounds."""

    timing: Timing
    ratio: float
    """How many times faster fastcal is."""
    peak_bytes: int | None


@dataclass
class PointResult:
    """What was measured at a point. There is no timing where fastcal's own result was refused."""

    point: Point
    timing: Timing | None = None
    peak_bytes: int | None = None
    peers: dict[str, PeerResult] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    """Peers that could not be measured at this point, with the reason."""
    deviations: list[Deviation] = field(default_factory=list)
    refused: str | None = None

    @property
    def bytes_per_second(self) -> float | None:
        """The fewest bytes that the call can move, over its median time."""
        return None if self.timing is None else self.point.bytes / self.timing.median


@dataclass
class Results:
    """A whole run."""

    settings: Settings
    about: dict[str, object]
    device: torch.device
    copy: float
    """Bytes per second of a copy on the device in this process, read plus written."""
    clone: float
    """The same of `torch.Tensor.clone`."""
    rows: list[PointResult] = field(default_factory=list)
    host: list[HostTime] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    """Points that were not measured, by name, and peers that cannot run here, with reasons."""
    seconds: float = 0.0

    def share(self, row: PointResult) -> float | None:
        """Give the bandwidth of a row as a share of the copy bandwidth."""
        return None if row.bytes_per_second is None else row.bytes_per_second / self.copy

    def share_of_clone(self, row: PointResult) -> float | None:
        """Give the bandwidth of a row as a share of that of a clone."""
        return None if row.bytes_per_second is None else row.bytes_per_second / self.clone

    @property
    def refused(self) -> list[PointResult]:
        """Rows where fastcal's own result was wrong."""
        return [row for row in self.rows if row.refused is not None]


def run(
    settings: Settings,
    say: Callable[[str], None] = lambda _: None,
    keep: Callable[[Results], None] = lambda _: None,
) -> Results:
    """Measure every point of the settings.

    Args:
        settings: What is measured, and for how long.
        say: Called with each line of progress.
        keep: Called with the results so far after each volume, so that nothing is lost where a run
            is killed.

    Raises:
        ValueError: There is no such device here.
    """
    begun = time.monotonic()
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    device = open_device(settings.device)
    gpu = device.torch.type == "cuda"
    say(f"copy bandwidth of {device.torch}")
    roofs = copy_bandwidth(device), clone_bandwidth(device)
    results = Results(settings, machine(gpu=gpu), device.torch, *roofs)
    usable = _usable_peers(settings, device, results.skipped)
    if settings.host:
        results.host = host_times(device)

    todo = points(settings.axes, settings.sweep)
    base = replace(todo[0], outputs="entropy")
    for place, group in itertools.groupby(todo, lambda point: replace(point, outputs="entropy")):
        outputs = [point.outputs for point in group]
        name = place.describe(tuple(axis for axis in settings.axes if axis != "outputs"))
        spent = time.monotonic() - begun
        if spent > settings.budget:
            results.skipped.append(f"{name}: the budget of {settings.budget:g} s was spent")
            continue
        needed, free = place.working_bytes, _SHARE_OF_MEMORY * device.free_bytes()
        if needed > free:
            results.skipped.append(
                f"{name}: needs {needed / 1e9:.1f} GB, {free / 1e9:.1f} are free"
            )
            continue
        say(f"{name} ({spent:.0f} s)")
        chosen = [
            peer
            for peer in usable
            if place == base or settings.peers is not None or peers.KNOWN[peer].everywhere
        ]
        try:
            results.rows += _measure_volume(place, outputs, chosen, device, settings)
        except RuntimeError as error:  # out of memory, or a device that fails
            results.skipped.append(f"{name}: {_first_line(error)}")
        device.release()
        results.seconds = time.monotonic() - begun
        keep(results)
    results.seconds = time.monotonic() - begun
    return results


def _usable_peers(settings: Settings, device: Device, skipped: list[str]) -> list[str]:
    usable = []
    names = settings.peers if settings.peers is not None else tuple(peers.PEERS)
    for name in (*names, *(peers.VARIANTS if settings.variants else ())):
        if reason := peers.unavailable(name, device):
            skipped.append(f"peer {name}: {reason}")
        else:
            usable.append(name)
    return usable


def _measure_volume(
    place: Point, outputs: Sequence[str], chosen: Sequence[str], device: Device, settings: Settings
) -> list[PointResult]:
    volume = Workload(place, outputs, device, settings.seed)
    return [
        _measure_row(replace(place, outputs=name), volume, chosen, device, settings)
        for name in outputs
    ]


def _measure_row(
    point: Point, volume: Workload, chosen: Sequence[str], device: Device, settings: Settings
) -> PointResult:
    row = PointResult(point)
    candidates, errors = [ours(volume, point.outputs)], {}
    try:
        errors[candidates[0].name] = judge(candidates[0])
    except (WrongResult, RuntimeError, ValueError) as error:
        row.refused = _first_line(error)
        return row
    row.peak_bytes = device.peak_bytes(candidates[0].run)

    peaks: dict[str, int | None] = {}
    for name in chosen:
        if point.outputs not in peers.KNOWN[name].outputs:
            continue
        reason = _too_large(name, point, device)
        if reason is None:
            candidate = peers.candidate(name, volume, point.outputs, row.deviations)
            reason = _try(candidate, device, errors, peaks)
        if reason is None:
            candidates.append(candidate)
        else:
            row.left_out[name] = reason
    if any(candidate.name == "plain" for candidate in candidates):
        candidates.append(ours(volume, point.outputs, name=_READ, read=True))

    timings = measure(candidates, seconds=settings.seconds, clock=device.seconds, errors=errors)
    row.timing = timings["fastcal"]
    for name, peak in peaks.items():
        mine = timings[_READ] if name == "plain" else row.timing
        ratio = mine.times_faster_than(timings[name])
        row.peers[name] = PeerResult(timings[name], ratio, peak)
    return row


def _too_large(name: str, point: Point, device: Device) -> str | None:
    needed, free = peers.spare_bytes(name, point), _SHARE_OF_MEMORY * device.free_bytes()
    return None if needed <= free else f"needs {needed / 1e9:.1f} GB more"


def _try(
    candidate: Candidate,
    device: Device,
    errors: dict[str, float | None],
    peaks: dict[str, int | None],
) -> str | None:
    """Judge a peer and find its peak memory. Say why it is not timed, or nothing."""
    try:
        errors[candidate.name] = judge(candidate)
        start = time.monotonic()
        peaks[candidate.name] = device.peak_bytes(candidate.run)
        device.synchronize()
    except Exception as error:  # whatever a library raises, the others go on
        errors.pop(candidate.name, None)
        device.release()
        return _first_line(error)
    taken = time.monotonic() - start
    if taken > _SLOW:
        del peaks[candidate.name]
        return f"one call takes {taken:.0f} s"
    return None


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__
