"""The fused ensemble pass against torch eager, torch.compile and the plain pipeline.

    python -m benchmarks.bench_ensemble --quick
    python -m benchmarks.bench_ensemble --members 5 --classes 4 --shape 240x240x155 --threads 2

Every result is checked against float64 before it is timed. There are rows for entropy alone, for
six maps into given outputs, and for six maps with both calibrations, NLL, Brier score and Dice, on
a volume with the given share of background and on a diffuse volume. Half precision and AVX2 are
compared with the first rows. Memory beyond the outputs is measured in a process of its own.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace

import torch
from torch import Tensor

import fastcal
from benchmarks import harness, memory
from benchmarks.harness import Candidate, Row, Timing
from fastcal.bench import plain
from fastcal.bench.points import DTYPES, SIX
from fastcal.bench.reference import map_error, maps_64, scores_64
from fastcal.bench.volumes import SyntheticCase, make_case


@dataclass(frozen=True)
class Settings:
    """The axes of one run."""

    members: int = 5
    classes: int = 4
    shape: tuple[int, ...] = (240, 240, 155)
    dtype: str = "float32"
    threads: int = 2
    background: float = 0.95
    isa: str | None = None
    rounds: int = 11
    compile: bool = True
    seed: int = 0


class Workloads:
    """One case with its float64 reference, its output buffers, and the candidates on it."""

    def __init__(self, case: SyntheticCase) -> None:
        self.case = case
        first = case.members[0]
        real = torch.promote_types(first.dtype, torch.float32)
        voxels = (1, *first.shape[2:])
        self.out = {name: torch.zeros(voxels, dtype=real) for name in SIX}
        self.out["mean"] = torch.zeros(first.shape, dtype=real)
        self.out["label"] = torch.zeros(voxels, dtype=torch.int64)
        self.want = maps_64(case.members, SIX)
        yardstick = map_error(plain.six_maps(case.members), self.want)
        self.tolerance = max(1e-6, 2 * yardstick)

    @property
    def readers(self) -> list[Candidate]:
        return harness.readers(self.case.members)

    def entropy(self, name: str, run: Callable[[], Tensor]) -> Candidate:
        def error(result: object) -> float:
            assert isinstance(result, Tensor)
            return map_error({"entropy": result}, self.want)

        return Candidate(name, run, error, self.tolerance, self.wipe)

    def maps(self, name: str, run: Callable[[], object]) -> Candidate:
        """A candidate that fills ``self.out``."""

        def error(_: object) -> float:
            return map_error(self.out, self.want)

        return Candidate(name, run, error, self.tolerance, self.wipe)

    def wipe(self) -> None:
        for values in self.out.values():
            values.fill_(-1)

    def ours_entropy(self) -> Candidate:
        members, out = self.case.members, self.out["entropy"]
        return self.entropy("fastcal", lambda: fastcal.ensemble_entropy(members, out=out))

    def ours_maps(self) -> Candidate:
        members, out = self.case.members, self.out
        return self.maps("fastcal", lambda: fastcal.ensemble_statistics(members, maps=SIX, out=out))

    def ours_everything(self, name: str = "fastcal") -> Candidate:
        """Six maps, both calibrations, NLL, Brier and Dice."""
        members, target, out = self.case.members, self.case.target, self.out

        def run() -> tuple[dict[str, Tensor], plain.PlainScores]:
            got = fastcal.ensemble_statistics(members, target, maps=SIX, out=out)
            c = got.calibration
            assert c is not None
            values = (c.ece(), c.classwise_ece(), c.nll(), c.brier(), c.per_class("dice", "pooled"))
            return out, plain.PlainScores(
                *(torch.as_tensor(v, dtype=torch.float64) for v in values)
            )

        def error(result: object) -> float:
            return self.everything_error(result, calibration=True)

        return Candidate(name, run, error, self.tolerance, self.wipe)

    def plain_everything(self) -> Candidate:
        """The plain pipeline. Its ECEs are not judged, because float32 sums are off by 46 %."""
        case = self.case

        def error(result: object) -> float:
            return self.everything_error(result, calibration=False)

        return Candidate("plain", lambda: plain.pipeline(case.members, case.target), error, 1e-4)

    def everything_error(self, result: object, *, calibration: bool) -> float:
        """Find the largest error of the maps, and of the scores of the candidate's own mean.

        Calibration errors are judged a million times more strictly than maps, with 1e-12.
        """
        assert isinstance(result, tuple)
        maps, scores = result
        worst = map_error(maps, self.want)
        want = scores_64(maps["mean"], self.case.target, plain.N_BINS)
        errors = [
            abs(scores.nll.item() - want.nll),
            abs(scores.brier.item() - want.brier),
            (scores.dice - torch.from_numpy(want.dice)).abs().max().item(),
        ]
        if calibration:
            classwise = scores.classwise_ece.double() - torch.from_numpy(want.classwise_ece)
            exact = max(abs(scores.ece.item() - want.ece), classwise.abs().max().item())
            errors.append(0.0 if exact <= 1e-12 else math.inf)
        return float(max(worst, *errors))


def compare(
    workload: str,
    ours: Candidate,
    others: Sequence[Candidate],
    rounds: int,
    readers: Sequence[Candidate] = (),
) -> Row:
    """One row; where several candidates share a column (``eager: ...``) the fastest counts."""
    timings = harness.measure([ours, *others, *readers], rounds=rounds)
    columns: dict[str, Timing] = {}
    for candidate in others:
        column, timing = candidate.name.partition(":")[0], timings[candidate.name]
        if column not in columns or timing.median < columns[column].median:
            columns[column] = timing
    read = harness.floor(timings) if readers else None
    return Row(workload, timings[ours.name], read, columns)


def entropy_row(work: Workloads, settings: Settings) -> Row:
    members = work.case.members
    others = [work.entropy("eager", lambda: plain.ensemble_entropy(members))]
    if settings.compile:
        compiled = torch.compile(plain.ensemble_entropy)
        others.append(work.entropy("compile", lambda: compiled(members)))
    return compare("entropy", work.ours_entropy(), others, settings.rounds, work.readers)


def maps_row(work: Workloads, settings: Settings) -> Row:
    members, out = work.case.members, work.out

    def copied(six_maps: Callable[..., dict[str, Tensor]]) -> None:
        for name, values in six_maps(members).items():
            out[name].copy_(values)

    others = [
        work.maps("eager: in place", lambda: plain.six_maps_into(members, out)),
        work.maps("eager: copied", lambda: copied(plain.six_maps)),
    ]
    if settings.compile:
        in_place, fresh = torch.compile(plain.six_maps_into), torch.compile(plain.six_maps)
        others += [
            work.maps("compile: in place", lambda: in_place(members, out)),
            work.maps("compile: copied", lambda: copied(fresh)),
        ]
    return compare(
        "six maps, given outputs", work.ours_maps(), others, settings.rounds, work.readers
    )


def everything_row(work: Workloads, settings: Settings, name: str) -> Row:
    return compare(
        f"six maps + calibration, {name}",
        work.ours_everything(),
        [work.plain_everything()],
        settings.rounds,
        work.readers,
    )


def case_of(settings: Settings, background: float, dtype: str) -> SyntheticCase:
    return make_case(
        settings.members,
        settings.classes,
        settings.shape,
        background=background,
        dtype=DTYPES[dtype],
        seed=settings.seed,
    )


def half_precision_rows(settings: Settings) -> list[Row]:
    """Time float16 and bfloat16 beside their own read floor. They should not be slower."""
    rows = []
    for dtype in ("float16", "bfloat16"):
        work = Workloads(case_of(settings, settings.background, dtype))
        for label, ours in (
            ("entropy", work.ours_entropy()),
            ("six maps + calibration", work.ours_everything()),
        ):
            rows.append(compare(f"{label}, {dtype}", ours, [], settings.rounds, work.readers))
    return rows


def isa_rows(work: Workloads, settings: Settings) -> tuple[list[Row], list[str]]:
    """Time the same workloads with AVX2, paired with the best instruction set in one process."""
    try:
        from fastcal import _cpu
    except ImportError:
        return [], ["no native module: no instruction sets to compare"]
    used = _cpu.isa()
    if "avx2" not in _cpu.isa_levels() or used == "avx2":
        return [], [f"AVX2 not compared: in use {used}, available {_cpu.isa_levels()}"]

    def under(isa: str, candidate: Candidate, name: str) -> Candidate:
        def run() -> object:
            _cpu.set_isa(isa)
            return candidate.run()

        return replace(candidate, name=name, run=run)

    rows, notes = [], []
    for label, ours in (
        ("entropy", work.ours_entropy()),
        ("six maps + calibration", work.ours_everything()),
    ):
        pair = [under("avx2", ours, "fastcal"), under(used, ours, used)]
        try:
            timings = harness.measure(pair, rounds=settings.rounds)
        finally:
            _cpu.set_isa(used)
        slower = timings[used].times_faster_than(timings["fastcal"])
        rows.append(Row(f"{label}, avx2", timings["fastcal"]))
        notes.append(f"{label}: AVX2 takes {slower:.2f} x the time of {used}")
    return rows, notes


def dtype_notes(rows: Sequence[Row]) -> list[str]:
    """Compare half precision with the float32 rows of the same run, by medians."""
    by_name = {row.workload: row.fastcal.median for row in rows}
    full = {
        "entropy": by_name["entropy"],
        "six maps + calibration": next(
            seconds for name, seconds in by_name.items() if "calibration, " in name
        ),
    }
    return [
        f"{name}: {seconds / full[name.partition(',')[0]]:.2f} x the time of the first rows' type"
        for name, seconds in by_name.items()
        if name.endswith("float16")
    ]


def run(settings: Settings) -> tuple[list[Row], list[str], list[memory.Extra]]:
    """Measure all rows, notes and memory figures of one setting."""
    torch.set_num_threads(settings.threads)
    if settings.isa is not None:
        from fastcal import _cpu

        _cpu.set_isa(settings.isa)
    work = Workloads(case_of(settings, settings.background, settings.dtype))
    skewed = f"{settings.background:.0%} background"
    rows = [
        entropy_row(work, settings),
        maps_row(work, settings),
        everything_row(work, settings, skewed),
    ]
    slower_rows, notes = isa_rows(work, settings)
    rows.append(
        everything_row(Workloads(case_of(settings, 0.0, settings.dtype)), settings, "diffuse")
    )
    diffuse = rows[-1].fastcal.median / rows[-2].fastcal.median
    notes.append(f"diffuse probabilities take {diffuse:.2f} x the time of {skewed}")
    rows += half_precision_rows(settings)
    notes += dtype_notes(rows)
    rows += slower_rows

    floors = {row.floor.name for row in rows if row.floor is not None}
    notes.append(f"read floor by {', '.join(sorted(floors))}: the members' bytes, nothing else")
    notes.append("the plain pipeline's own ECEs are not checked: they count in float32")
    extras = []
    for n_members in sorted({2, settings.members}):
        extras += memory.extra(
            n_members, settings.classes, settings.shape, settings.dtype, settings.threads
        )
    notes += [str(extra) for extra in extras]
    return rows, notes, extras


def parse(arguments: Sequence[str] | None) -> tuple[Settings, str | None]:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.bench_ensemble",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    default = Settings()
    parser.add_argument("--members", type=int, default=default.members)
    parser.add_argument("--classes", type=int, default=default.classes)
    parser.add_argument("--shape", default="x".join(map(str, default.shape)), help="240x240x155")
    parser.add_argument("--dtype", choices=list(DTYPES), default=default.dtype)
    parser.add_argument("--threads", type=int, default=default.threads)
    parser.add_argument("--background", type=float, default=default.background)
    parser.add_argument("--isa", choices=["avx512", "avx2", "neon", "baseline"])
    parser.add_argument("--rounds", type=int, default=default.rounds)
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out")
    parser.add_argument("--quick", action="store_true", help="small volume, three rounds")
    parser.add_argument("--name", help="file name in benchmarks/results; --quick alone writes none")
    given = parser.parse_args(arguments)
    settings = Settings(
        members=given.members,
        classes=given.classes,
        shape=tuple(int(n) for n in given.shape.split("x")),
        dtype=given.dtype,
        threads=given.threads,
        background=given.background,
        isa=given.isa,
        rounds=given.rounds,
        compile=not given.no_compile,
    )
    if given.quick:
        settings = replace(settings, shape=(48, 48, 40), rounds=3)
        return settings, given.name
    return settings, given.name or "ensemble"


def main(arguments: Sequence[str] | None = None) -> None:
    settings, name = parse(arguments)
    rows, notes, extras = run(settings)
    shape = " x ".join(map(str, settings.shape))
    title = (
        f"Ensemble pass: M = {settings.members}, C = {settings.classes}, {shape}, {settings.dtype}"
    )
    harness.show(title, rows, notes)
    if name is None:
        return
    path = harness.write(
        name, title, asdict(settings), rows, notes, {"memory": [asdict(e) for e in extras]}
    )
    print(f"written: {path} and .md")


if __name__ == "__main__":
    main()
