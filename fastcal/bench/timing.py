"""Paired timing of checked candidates.

A candidate is timed only after its result passed its check. Candidates are interleaved: every round
calls each of them once, in rotated order, so that a slow phase of the machine hits all of them. A
ratio is the median of the ratios of the rounds.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

FEWEST_ROUNDS, MOST_ROUNDS = 3, 50


class WrongResult(AssertionError):
    """The result of a candidate is outside its tolerance. No time of it may be printed."""


@dataclass(frozen=True)
class Candidate:
    """Something to time, and how its result is judged."""

    name: str
    run: Callable[[], object]
    error: Callable[[object], float] | None = None
    """Error of the result against the float64 reference; None where there is nothing to judge."""
    tolerance: float = 0.0
    prepare: Callable[[], object] | None = None
    """Called only before the judged run, to wipe outputs that an earlier candidate filled."""


@dataclass(frozen=True)
class Timing:
    """Seconds of every round, and the error that the result had before."""

    name: str
    seconds: list[float]
    error: float | None = None

    @property
    def median(self) -> float:
        """Median of the rounds, in seconds."""
        return statistics.median(self.seconds)

    def percentile(self, percent: int) -> float:
        """Give a percentile of the rounds, in seconds."""
        ordered = sorted(self.seconds)
        return ordered[round((len(ordered) - 1) * percent / 100)]

    def times_faster_than(self, other: Timing) -> float:
        """Compute the median over the rounds of ``other / self``."""
        return statistics.median(b / a for a, b in zip(self.seconds, other.seconds, strict=True))

    def record(self) -> dict[str, Any]:
        """Describe the timing for JSON."""
        return {
            "median_ms": self.median * 1e3,
            "p20_ms": self.percentile(20) * 1e3,
            "p80_ms": self.percentile(80) * 1e3,
            "rounds": len(self.seconds),
            "error": self.error,
        }


def judge(candidate: Candidate) -> float | None:
    """Run once and return the error of the result.

    Raises:
        WrongResult: The error is NaN or above the tolerance.
    """
    if candidate.prepare is not None:
        candidate.prepare()
    result = candidate.run()
    if candidate.error is None:
        return None
    error = candidate.error(result)
    if not error <= candidate.tolerance:
        raise WrongResult(
            f"{candidate.name}: error {error:.3g} above {candidate.tolerance:.3g}; not timed"
        )
    return error


def wall_clock(run: Callable[[], object]) -> float:
    """Time one call, in seconds."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def measure(
    candidates: Sequence[Candidate],
    *,
    rounds: int | None = None,
    seconds: float = 2.0,
    warmup: int = 1,
    clock: Callable[[Callable[[], object]], float] = wall_clock,
    errors: dict[str, float | None] | None = None,
) -> dict[str, Timing]:
    """Judge every candidate, then time one call of each per round.

    Args:
        candidates: What to time. Every round calls all of them.
        rounds: Number of rounds. None takes as many as fit into ``seconds``, between
            `FEWEST_ROUNDS` and `MOST_ROUNDS`.
        seconds: Time for the timed calls.
        warmup: Number of calls of each candidate before, at least one.
        clock: Times one call, in seconds.
        errors: What `judge` found earlier. Candidates in it are not judged again.

    Raises:
        WrongResult: A result is outside its tolerance.
    """
    errors = dict(errors or {})
    for candidate in candidates:
        if candidate.name not in errors:
            errors[candidate.name] = judge(candidate)
    for _ in range(max(warmup, 1)):
        one_round = sum(clock(candidate.run) for candidate in candidates)
    if rounds is None:
        rounds = max(FEWEST_ROUNDS, min(MOST_ROUNDS, int(seconds / max(one_round, 1e-6))))
    found: dict[str, list[float]] = {candidate.name: [] for candidate in candidates}
    for i in range(rounds):
        turn = i % len(candidates)
        for candidate in [*candidates[turn:], *candidates[:turn]]:
            found[candidate.name].append(clock(candidate.run))
    return {name: Timing(name, values, errors[name]) for name, values in found.items()}
