"""Many small cases on workers that are killed at random: nothing is lost, and memory stays flat.

    python -m benchmarks.soak --cases 200 --kill-every 10
    python -m benchmarks.soak                # 1,000 cases, four workers, a kill a minute

The result must be that of a run in one process, file by file and bit by bit, before a figure is
shown. What `benchmarks.scale_model` needs of a machine is measured too.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import tempfile
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import psutil

from benchmarks.harness import RESULTS
from fastcal.bench.machine import headline, machine
from fastcal.cases.journal import FILE, read_journal
from fastcal.core import atomic
from fastcal.data import nifti
from fastcal.data.nifti import Geometry
from fastcal.predict import PredictionSummary, Progress, ensemble_folders

MEMBERS, CLASSES = 3, 3
SHAPE = (24, 24, 12)


@dataclass(frozen=True)
class Soak:
    """What a soak found."""

    cases: int
    workers: int
    kills: int
    """Workers that were killed."""
    repeated: int
    """Cases that were begun once more, at most one for each kill."""
    aside: int
    """Cases that were killed at both tries, and were done by the same command once more."""
    seconds: float
    """From the start of the workers to the last file."""
    starting: float
    """Until the first case was begun."""
    merging: float
    """After the last case was done."""
    case: float
    """Mean time of a case in its worker."""
    dealing: float
    """Mean time of a worker between two cases."""
    client: float
    """Processor time of the dealing process, for each case."""
    own_mb: tuple[float, float]
    """Size of the dealing process in the first and in the last quarter."""
    worker_mb: tuple[float, float]
    """Size of the largest worker, likewise."""


def write_cases(folder: Path, count: int) -> None:
    """Write members as nnU-Net does, and labels."""
    rng = np.random.default_rng(0)
    like = Geometry.from_affine(np.diag([1.0, 1.0, 2.0, 1.0]), SHAPE)
    for member in range(MEMBERS):
        (folder / f"fold_{member}").mkdir(parents=True)
    (folder / "labels").mkdir()
    for number in range(count):
        case = f"case_{number:05d}"
        labels = rng.integers(0, CLASSES, SHAPE).astype(np.uint8)
        nifti.write(folder / f"labels/{case}.nii.gz", labels, like, dtype="int")
        for member in range(MEMBERS):
            z = 2 * np.eye(CLASSES)[labels] + rng.normal(0, 1, (*SHAPE, CLASSES))
            p = np.exp(z)
            p = np.moveaxis(p / p.sum(-1, keepdims=True), -1, 0).astype(np.float32)
            place = folder / f"fold_{member}/{case}"
            np.savez_compressed(f"{place}.npz", probabilities=p.transpose(0, 3, 2, 1))
            nifti.write(f"{place}.nii.gz", p.argmax(0).astype(np.uint8), like, dtype="int")


class Watch:
    """Samples the size of this process and of its workers, and kills one of them now and then."""

    def __init__(self, kill_every: float) -> None:
        self._kill_every = kill_every
        self._end = threading.Event()
        self._random = random.Random(0)
        self.kills = 0
        self.own: list[float] = []
        self.largest: list[float] = []
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def _run(self) -> None:
        this, last = psutil.Process(), time.monotonic()
        while not self._end.wait(0.5):
            workers = _workers(this)
            sizes = [_size(worker) for worker in workers]
            if not any(sizes):
                continue
            self.own.append(_size(this))
            self.largest.append(max(sizes))
            if len(workers) < 2:  # somebody must be there to go on
                continue
            if time.monotonic() - last >= self._kill_every:
                last = time.monotonic()
                os.kill(self._random.choice(workers).pid, signal.SIGKILL)
                self.kills += 1


def _workers(this: psutil.Process) -> list[psutil.Process]:
    """Processes that were forked from the server of forks."""
    return [
        worker for server in this.children() for worker in server.children() if _size(worker) > 50
    ]


def _size(process: psutil.Process) -> float:
    try:
        return float(process.memory_info().rss) / 2**20
    except psutil.Error:
        return 0.0


def combine(
    folder: Path, out: str, workers: int | None, told: list[tuple[float, float]]
) -> PredictionSummary:
    """Combine the members of all cases."""

    def tell(state: Progress) -> None:
        del state
        told.append((time.monotonic(), time.process_time()))

    return ensemble_folders(
        sorted(folder.glob("fold_*")),
        folder / out,
        labels=folder / "labels",
        workers=workers,
        progress=tell,
    )


def files(folder: Path) -> dict[str, bytes]:
    """Every file but the journal."""
    found = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != FILE)
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


def soak(cases: int, workers: int, kill_every: float) -> Soak:
    """Run the cases, compare with one process, and measure.

    Raises:
        RuntimeError: A case was lost, or a file differs.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_cases(folder, cases)
        print(f"{cases} cases are written", flush=True)
        told: list[tuple[float, float]] = []
        start = time.monotonic()
        with Watch(kill_every) as watch:
            made = combine(folder, "made", workers, told)
        seconds = time.monotonic() - start
        print(f"{len(made.done)} cases are done after {watch.kills} kills", flush=True)
        if any("set aside" not in one.reason for one in made.failed):
            raise RuntimeError(f"cases failed: {made.failed}")
        if made.failed:  # killed at both tries: the same command does what is left
            combine(folder, "made", None, [])
        combine(folder, "whole", None, [])
        if files(folder / "made") != files(folder / "whole"):
            raise RuntimeError("the files differ from those of one process")
        lines = read_journal(folder / "made" / FILE)
    done = [line.seconds or 0.0 for line in lines if line.state == "done"]
    begun = sum(line.state == "begun" for line in lines)
    (begin, used), (end, all_used) = told[0], told[-1]
    first = begin - start - done[0]
    busy = workers * (end - start - first)
    quarter = max(1, len(watch.own) // 4)
    return Soak(
        cases=cases,
        workers=workers,
        kills=watch.kills,
        repeated=begun - cases,
        aside=len(made.failed),
        seconds=seconds,
        starting=first,
        merging=start + seconds - end,
        case=sum(done) / len(done),
        dealing=(busy - sum(done)) / len(done),
        client=(all_used - used) / max(1, cases - 1),
        own_mb=(max(watch.own[:quarter]), max(watch.own[-quarter:])),
        worker_mb=(max(watch.largest[:quarter]), max(watch.largest[-quarter:])),
    )


def main() -> None:
    """Run a soak, and print and write what it found."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--cases", type=int, default=1000)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--kill-every", type=float, default=60.0, metavar="SECONDS")
    parser.add_argument("--out", type=Path, default=RESULTS / "soak.json")
    options = parser.parse_args()
    found = soak(options.cases, options.workers, options.kill_every)
    here = machine()
    print(headline(here))
    print(json.dumps(asdict(found), indent=2))
    atomic.write_json(options.out, {"machine": here, "soak": asdict(found)})


if __name__ == "__main__":
    main()
