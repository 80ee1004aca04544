"""How long a cohort takes on many workers, and where the time goes: a formula, and a simulation.

    python -m benchmarks.scale_model                                  # 100,000 cases on 64 workers
    python -m benchmarks.scale_model --soak benchmarks/results/soak.json

The simulation runs `fastcal.cases.dealer` itself, with a clock of its own and workers that take the
time a case takes: it deals every case. With ``--soak`` the numbers of that soak are put in, and
what it took is shown beside what the formula and the simulation say.
"""

from __future__ import annotations

import argparse
import heapq
import json
import math
import random
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fastcal.cases.dealer import Answer, Hands, deal


@dataclass(frozen=True)
class Cohort:
    """What the time of a run depends on; seconds and bytes are those of one case."""

    cases: int = 100_000
    workers: int = 64
    computing: float = 4.0
    """Seconds of a worker without files: 5 members of 240 x 240 x 155 voxels and 4 classes."""
    spread: float = 0.3
    """Standard deviation of the logarithm of a case's time: volumes differ in size."""
    bytes: float = 240e6
    """Read and written: five compressed members, and the maps."""
    stream: float = 200e6
    """Bytes a second of one reader of the shared file system."""
    storage: float = 5e9
    """Bytes a second of all of them together."""
    dealing: float = 0.05
    """Seconds between the answer of a case and the beginning of the next, by the network."""
    client: float = 0.018
    """Seconds of the dealing process, which has all workers wait for it in turn."""
    starting: float = 30.0
    """Seconds until the workers have imported everything and got the list of the cases."""
    merging: float = 0.006
    """Seconds at the end: the statistics of a case are read and added."""
    lost: float = 0.001
    """Share of the cases in the middle of which a worker ends."""

    @property
    def case(self) -> float:
        """Seconds of a case in a worker while all workers are at work."""
        rate = min(self.stream, self.storage / self.workers)
        return self.computing + self.bytes / rate


def formula(cohort: Cohort) -> dict[str, float]:
    """Return the seconds of a run and where they go, from four lines of arithmetic."""
    rounds = cohort.cases * (1 + cohort.lost) / cohort.workers
    files = rounds * cohort.bytes / min(cohort.stream, cohort.storage / cohort.workers)
    parts = {
        "starting": cohort.starting,
        "files": files,
        "computing": rounds * cohort.computing,
        "network": rounds * (cohort.dealing + cohort.client),
        # The client serves one worker after another: with too many of them, they wait for it.
        "waiting for the dealer": max(
            0.0, cohort.cases * cohort.client - rounds * (cohort.case + cohort.dealing)
        ),
        # Half a case on average: the last workers have nothing to do while the others finish.
        "the last cases": cohort.case * math.exp(cohort.spread**2 / 2) / 2,
        "merge": cohort.cases * cohort.merging,
    }
    return parts | {"all": sum(parts.values())}


class SimulatedCrew:
    """Workers that take as long as cases take; see `fastcal.cases.dealer.Crew`."""

    def __init__(self, cohort: Cohort, seed: int = 0) -> None:
        self._cohort, self._random = cohort, random.Random(seed)
        self._here = {f"tcp://{n}:1": f"worker {n}" for n in range(cohort.workers)}
        self._coming: list[tuple[float, str, str]] = []
        self._begun = 0
        self.now = cohort.starting
        self.busy = 0.0
        """Seconds of all workers in cases."""

    def clock(self) -> float:
        """Return the time of the simulation."""
        return self.now

    def workers(self) -> Mapping[str, str]:
        """Return the workers; they are there again a moment after they end."""
        return self._here

    def begin(self, case: str, worker: str) -> str:
        """Start a case: its end is known from the files and the workers that are at work."""
        cohort = self._cohort
        self.now += cohort.client
        active = len(self._coming) + 1
        rate = min(cohort.stream, cohort.storage / active)
        # The logarithm has its mean where the mean of the time is what was asked for.
        factor = self._random.lognormvariate(-(cohort.spread**2) / 2, cohort.spread)
        took = factor * (cohort.computing + cohort.bytes / rate)
        self.busy += took
        self._begun += 1
        ticket = f"{case}/{self._begun}/{worker}"
        heapq.heappush(self._coming, (self.now + cohort.dealing + took, ticket, worker))
        return ticket

    def answers(self, tickets: Collection[str], seconds: float) -> Mapping[str, Answer | None]:
        """Go on to the next case that ends."""
        del tickets, seconds
        if not self._coming:
            self.now += 1.0
            return {}
        end, ticket, _ = heapq.heappop(self._coming)
        self.now = max(self.now, end)
        if self._random.random() < self._cohort.lost:
            return {ticket: None}  # the worker has ended, and is there again
        return {ticket: Answer()}

    def forget(self, ticket: str) -> None:
        """Nothing is left to forget."""


class _NoJournal:
    def note(self, *_: Any, **__: Any) -> None:
        pass


def simulated(cohort: Cohort, seed: int = 0) -> float:
    """Deal every case of a cohort, and return the seconds that this took on its clock."""
    crew = SimulatedCrew(cohort, seed)
    cases = [str(number) for number in range(cohort.cases)]
    run = deal(cases, crew, Hands(journal=_NoJournal(), clock=crew.clock))  # type: ignore[arg-type]
    if len(run.done) + len(run.failed) != cohort.cases:
        raise RuntimeError(f"{cohort.cases} cases were dealt and {len(run.done)} came back")
    return crew.now + cohort.cases * cohort.merging


def of_soak(found: Mapping[str, Any]) -> Cohort:
    """Return the cohort of a soak. Its files lie in memory, and so are in ``computing``."""
    return Cohort(
        cases=found["cases"],
        workers=found["workers"],
        computing=found["case"],
        bytes=0.0,
        dealing=max(0.0, found["dealing"] - found["client"]),
        client=found["client"],
        starting=found["starting"],
        merging=found["merging"] / found["cases"],
        lost=found["repeated"] / found["cases"],
    )


def main() -> None:
    """Print the table of a cohort."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--cases", type=int, default=Cohort.cases)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 8, 64, 256])
    parser.add_argument("--soak", type=Path, help="results of benchmarks.soak to be predicted")
    options = parser.parse_args()
    if options.soak is not None:
        found = json.loads(options.soak.read_text())["soak"]
        cohort = of_soak(found)
        print(f"measured    {found['seconds']:10.1f} s")
        print(f"formula     {formula(cohort)['all']:10.1f} s")
        print(f"simulation  {simulated(cohort):10.1f} s")
        return
    names = list(formula(Cohort()))
    print("| workers | " + " | ".join(names) + " | simulation |")
    print("|---:" * (len(names) + 2) + "|")
    for workers in options.workers:
        cohort = replace(Cohort(), cases=options.cases, workers=workers)
        cells = [f"{seconds / 3600:.2f} h" for seconds in formula(cohort).values()]
        print(f"| {workers} | {' | '.join(cells)} | {simulated(cohort) / 3600:.2f} h |", flush=True)


if __name__ == "__main__":
    main()
