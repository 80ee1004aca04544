"""Training: images a second with and without the data path, and ensembles by strategy.

    python -m benchmarks.bench_training --quick
    python -m benchmarks.bench_training --device cuda --graphs -o benchmarks/results/gpu

**Throughput.** Steps of one member, forward to optimiser, on batches that `BatchSource` draws and
augments (nnU-Net's augmentation, cases resident on the device), beside the same steps on one batch
that is there already ("no data loading"). On a GPU: slices of 192 x 160 in batches of 128, and
patches of 128^3 in batches of 4, in bf16; on a CPU small ones.

**Ensembles.** Members of the paper's size, the same batches for everybody: in turn, compiled in
turn on a GPU, together under vmap, in processes, and by a plain training script (MONAI's loss,
torch's default optimiser, no autocast changes, one member after another). Every way's losses are
compared with the first one's before a time is printed.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import torch

from benchmarks.harness import WrongResult
from fastcal.bench.machine import headline, machine
from fastcal.data.prepared import PreparedCases
from fastcal.train import TrainConfig
from fastcal.train.batches import Batch, BatchSource
from fastcal.train.engines import Alone, Engine, Together
from fastcal.train.learner import Learner
from fastcal.train.recipe import Recipe

CLASSES = 3


@dataclass(frozen=True)
class Workload:
    """A training step's size."""

    name: str
    size: tuple[int, ...]
    batch_size: int
    preset: str
    loss: str
    unit: str
    widths: tuple[int, ...] | None = None

    def recipe(self, device: torch.device, **changes: Any) -> Recipe:
        widths = {} if self.widths is None else {"network.widths": list(self.widths)}
        config = TrainConfig.preset(
            self.preset,  # type: ignore[arg-type]
            dims=len(self.size),
        ).with_values({"loss.name": self.loss, **widths, **changes})
        return Recipe(
            folder=Path("nowhere"),
            config=config,
            seed=0,
            in_channels=1,
            num_classes=CLASSES,
            ignore_label=None,
            patch=self.size,
            iterations=1000,
            class_counts=(90, 5, 5),
            device=device,
        )


GPU = (
    Workload("2-D 192x160, batch 128", (192, 160), 128, "paper", "dice-ce", "img/s"),
    Workload("2-D 192x160, batch 128", (192, 160), 128, "standard", "dice-ce", "img/s"),
    Workload("3-D 128^3, batch 4", (128, 128, 128), 4, "standard", "dice-ce", "vol/s"),
)
CPU = (
    Workload("2-D 192x160, batch 8", (192, 160), 8, "paper", "dice-ce", "img/s"),
    Workload("3-D 48^3, batch 2", (48,) * 3, 2, "paper", "dice-ce", "vol/s", (8, 16, 32, 64)),
)
QUICK = (
    Workload("2-D 48x40, batch 4", (48, 40), 4, "paper", "dice-ce", "img/s", (8, 16, 32)),
    Workload("3-D 16^3, batch 2", (16,) * 3, 2, "paper", "dice-ce", "vol/s", (4, 8, 16)),
)
ENSEMBLES = {
    "gpu": Workload("2-D 192x160, batch 16", (192, 160), 16, "paper", "dice-ce", "img/s"),
    "cpu": Workload("2-D 96x80, batch 8", (96, 80), 8, "paper", "dice-ce", "img/s"),
    "quick": Workload("2-D 32x32, batch 4", (32, 32), 4, "paper", "dice-ce", "img/s", (8, 16, 32)),
}


def synthetic_cases(workload: Workload, device: torch.device, count: int = 4) -> PreparedCases:
    """Noise with boxes of two classes, somewhat larger than a patch."""
    random = torch.Generator().manual_seed(0)
    extents = tuple(extent + extent // 4 for extent in workload.size)
    items = 1 if len(extents) == 3 else 4 * workload.batch_size // count + 1
    images, labels = [], []
    for _ in range(count):
        label = torch.zeros((items, *extents), dtype=torch.uint8)
        for value, share in ((1, 0.5), (2, 0.3)):
            box = tuple(
                slice(int(n * (0.5 - share / 2)), int(n * (0.5 + share / 2))) for n in extents
            )
            label[(slice(None), *box)] = value
        images.append(label[:, None] + torch.randn((items, 1, *extents), generator=random))
        labels.append(label)
    foreground = [[(label == k).flatten().nonzero()[:, 0] for k in (1, 2)] for label in labels]
    names = [f"case_{number}" for number in range(count)]
    cases = PreparedCases(names, images, labels, foreground, CLASSES, "synthetic", names)
    return cases.to(device)


def source(workload: Workload, recipe: Recipe, cases: PreparedCases, member: int) -> BatchSource:
    config = recipe.config
    return BatchSource(
        cases,
        batch_size=workload.batch_size,
        patch=workload.size,
        oversample=1 / 3,
        augmentation=config.augmentation,
        seed=0,
        member=member,
        device=recipe.device,
    )


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds_of(steps: Sequence[Callable[[], object]], device: torch.device) -> float:
    synchronise(device)
    start = time.perf_counter()
    for step in steps:
        step()
    synchronise(device)
    return (time.perf_counter() - start) / len(steps)


# --- throughput -----------------------------------------------------------------------------------


def throughput(
    workload: Workload, device: torch.device, *, rounds: int, steps: int, compiled: str
) -> dict[str, Any]:
    """Items a second with the data path and without, in interleaved rounds."""
    recipe = workload.recipe(
        device,
        **{
            "augmentation.preset": "nnunet",
            "loop.compile": compiled,
            "sampling.batch_size": workload.batch_size,
        },
    )
    recipe = replace(recipe, channels_last=device.type == "cuda")
    cases = synthetic_cases(workload, device)
    batches = source(workload, recipe, cases, 0)
    learner = Learner(recipe, 0, saved=False)
    engine = Alone([learner])
    ready = batches.batch(0)
    number = 0

    def with_data() -> None:
        nonlocal number
        engine.losses([batches.batch(number)])
        learner.update()
        number += 1

    def without() -> None:
        engine.losses([ready])
        learner.update()

    first = [float(engine.losses([ready])[0])]
    for _ in range(3):
        without()
    first.append(float(engine.losses([ready])[0]))
    if not (math.isfinite(first[0]) and first[1] < first[0]):
        raise WrongResult(
            f"{workload.name}: the loss goes from {first[0]} to {first[1]}; not timed"
        )
    with_data()
    found: dict[str, list[float]] = {"with": [], "without": []}
    for _ in range(rounds):
        found["with"].append(seconds_of([with_data] * steps, device))
        found["without"].append(seconds_of([without] * steps, device))
    share = statistics.median(b / a for a, b in zip(found["with"], found["without"], strict=True))
    per_second = {
        name: workload.batch_size / statistics.median(seconds) for name, seconds in found.items()
    }
    memory = torch.cuda.max_memory_allocated(device) / 2**30 if device.type == "cuda" else None
    return {
        "workload": f"{workload.name}, {workload.preset}",
        "unit": workload.unit,
        "precision": "bf16" if recipe.bf16 else "float32",
        "compile": compiled,
        "with_data_path": per_second["with"],
        "no_data_loading": per_second["without"],
        "share_of_no_data_loading": share,
        "peak_gib": memory,
        "seconds": found,
    }


# --- ensembles ------------------------------------------------------------------------------------


@dataclass
class Way:
    """Seconds of a step and member of every round, and the losses that came with the first."""

    name: str
    seconds: list[float]
    losses: list[list[float]]


def made_batches(workload: Workload, recipe: Recipe, members: int, steps: int) -> list[list[Batch]]:
    """Batches of every member, drawn before anything is timed."""
    cases = synthetic_cases(workload, recipe.device)
    return [
        [source(workload, recipe, cases, member).batch(step) for step in range(steps)]
        for member in range(members)
    ]


Round = tuple[float, list[list[float]]]
"""Seconds of a step and member, and every member's losses."""


def by_engine(
    recipe: Recipe,
    given: list[list[Batch]],
    make: Callable[[Sequence[Learner]], Engine],
    size: int,
) -> Round:
    """fastcal's engines: members in groups of a size."""
    spent, losses = 0.0, []
    members, steps = len(given), len(given[0])
    for start in range(0, members, size):
        numbers = range(start, min(start + size, members))
        learners = [Learner(recipe, number, saved=False) for number in numbers]
        engine = make(learners)
        found = []
        for step in range(steps):
            if step == 1:  # the first one warms up
                synchronise(recipe.device)
                before = time.perf_counter()
            found.append(engine.losses([given[number][step] for number in numbers]))
            for learner in learners:
                learner.update()
        synchronise(recipe.device)
        spent += time.perf_counter() - before
        losses += torch.stack(found).T.tolist()
    return spent / (steps - 1) / members, losses


def by_plain_script(recipe: Recipe, given: list[list[Batch]]) -> Round:
    """What a user of MONAI writes: the same network, MONAI's loss, torch's default optimiser."""
    from monai.losses import DiceCELoss

    spent, losses = 0.0, []
    for number, batches in enumerate(given):
        network = recipe.network(number).train()
        loss_function = DiceCELoss(softmax=True, to_onehot_y=True)
        rate = recipe.config.optimiser.learning_rate
        optimiser = torch.optim.Adam(network.parameters(), lr=rate)
        found = []
        for step, batch in enumerate(batches):
            if step == 1:
                synchronise(recipe.device)
                before = time.perf_counter()
            optimiser.zero_grad()
            with recipe.autocast():
                logits = network(batch.images)
            loss = loss_function(logits.float(), batch.labels[:, None])
            loss.backward()
            optimiser.step()
            found.append(loss.item())
        synchronise(recipe.device)
        spent += time.perf_counter() - before
        losses.append(found)
    return spent / (len(given[0]) - 1) / len(given), losses


def interleaved(ways: dict[str, Callable[[], Round]], rounds: int) -> list[Way]:
    """Every way once a round, the order rotated."""
    found = {name: Way(name, [], []) for name in ways}
    names = list(ways)
    for number in range(rounds):
        turn = number % len(names)
        for name in [*names[turn:], *names[:turn]]:
            seconds, losses = ways[name]()
            found[name].seconds.append(seconds)
            found[name].losses = losses
    return list(found.values())


def by_processes(recipe: Recipe, given: list[list[Batch]], jobs: int, rounds: int) -> Way:
    """Members dealt out to processes, on shares of the threads or on the one GPU."""
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(jobs), context.Queue()
    threads = max(1, torch.get_num_threads() // jobs)
    moved = [[_moved(batch, torch.device("cpu")) for batch in batches] for batches in given]
    workers = [
        context.Process(
            target=_work, args=(job, jobs, recipe, moved, threads, rounds, barrier, results)
        )
        for job in range(jobs)
    ]
    for worker in workers:
        worker.start()
    parts = [results.get(timeout=600) for _ in workers]
    for worker in workers:
        worker.join()
    losses = {number: found for _, part in parts for number, found in part.items()}
    # A round lasts as long as its slowest process.
    spans = [max(spent) for spent in zip(*(seconds for seconds, _ in parts), strict=True)]
    steps = len(given[0]) - 1
    return Way(
        f"processes x {jobs}",
        [span / steps / len(given) for span in spans],
        [losses[number] for number in range(len(given))],
    )


def _work(
    job: int,
    jobs: int,
    recipe: Recipe,
    given: list[list[Batch]],
    threads: int,
    rounds: int,
    barrier: Barrier,
    results: Any,
) -> None:
    torch.set_num_threads(threads)
    mine = list(range(job, len(given), jobs))
    batches = [[_moved(batch, recipe.device) for batch in given[number]] for number in mine]
    seconds, losses = [], {}
    for _ in range(rounds):
        learners = [Learner(recipe, number, saved=False) for number in mine]
        engines = [Alone([learner]) for learner in learners]
        spent = 0.0
        for place, (learner, engine) in enumerate(zip(learners, engines, strict=True)):
            found = []
            for step, batch in enumerate(batches[place]):
                if step == 1:
                    synchronise(recipe.device)
                    if place == 0:
                        barrier.wait(timeout=600)
                    before = time.perf_counter()
                found.append(engine.losses([batch]))
                learner.update()
            synchronise(recipe.device)
            spent += time.perf_counter() - before
            losses[learner.number] = torch.cat(found).tolist()
        seconds.append(spent)
    results.put((seconds, losses))


def _moved(batch: Batch, device: torch.device) -> Batch:
    return Batch(batch.images.to(device), batch.labels.to(device), batch.cases)


FIRST_STEP, LATER_STEPS = 1e-5, 3e-2
"""Relative differences of float32 losses that are rounding. Adam divides a gradient by its own
size, so that from the second step on the rounding of gradients that are nearly zero moves weights:
ways that differ in nothing but memory format part by up to a percent within four steps."""


def check_losses(ways: Sequence[Way], first: float) -> float:
    """The largest relative difference from the first way's losses.

    Args:
        first: allowed at the first step; later ones have `LATER_STEPS`.

    Raises:
        WrongResult: one above what is allowed; no time may be printed.
    """
    wanted = torch.tensor(ways[0].losses, dtype=torch.float64)
    allowed = torch.full_like(wanted, LATER_STEPS)
    allowed[:, 0] = first
    largest = 0.0
    for way in ways[1:]:
        found = torch.tensor(way.losses, dtype=torch.float64)
        error = (found - wanted).abs() / wanted.abs()
        if not bool((error <= allowed).all()):
            at_first, at_most = float(error[:, 0].max()), float(error.max())
            raise WrongResult(
                f"{way.name}: losses differ from {ways[0].name}'s by {at_first:.2g} at the first "
                f"step, by up to {at_most:.2g} later"
            )
        largest = max(largest, float(error.max()))
    return largest


def ensembles(
    workload: Workload,
    device: torch.device,
    *,
    members: int,
    steps: int,
    rounds: int,
    jobs: int,
    compiled: bool,
) -> dict[str, Any]:
    """Seconds of a step and member, by strategy."""
    recipe = workload.recipe(device, **{"loop.max_epochs": 1000})
    recipe = replace(recipe, channels_last=True)
    given = made_batches(workload, recipe, members, steps)
    ways: dict[str, Callable[[], Round]] = {
        "sequential": lambda: by_engine(recipe, given, Alone, 1),
        "vectorised": lambda: by_engine(recipe, given, Together, members),
        "plain MONAI script": lambda: by_plain_script(recipe, given),
    }
    if compiled:
        graphs = workload.recipe(device, **{"loop.compile": "reduce-overhead"})
        graphs = replace(graphs, channels_last=True)
        ways["sequential, CUDA graphs"] = lambda: by_engine(graphs, given, Alone, 1)
        ways["vectorised, CUDA graphs"] = lambda: by_engine(graphs, given, Together, members)
    found = interleaved(ways, rounds)
    if jobs > 1:
        found.append(by_processes(recipe, given, jobs, rounds))
    largest = check_losses(found, LATER_STEPS if recipe.bf16 else FIRST_STEP)
    base = statistics.median(found[0].seconds)
    return {
        "workload": f"{members} members, {workload.name}, {workload.preset}",
        "precision": "bf16" if recipe.bf16 else "float32",
        "largest_difference_of_losses": largest,
        "ways": [
            {
                "name": way.name,
                "milliseconds_per_step_and_member": 1e3 * statistics.median(way.seconds),
                "times_sequential": base / statistics.median(way.seconds),
                "seconds": way.seconds,
            }
            for way in found
        ],
    }


# --- the record -----------------------------------------------------------------------------------


def markdown(about: dict[str, Any], rows: list[dict[str, Any]], ensemble: dict[str, Any]) -> str:
    lines = [
        "# Training",
        "",
        headline(about),
        "",
        "Medians of interleaved rounds, processes after the others; losses were checked first.",
        "",
        "| workload | precision | with data path | no data loading | share | peak GiB |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        peak = "" if row["peak_gib"] is None else f"{row['peak_gib']:.1f}"
        lines.append(
            f"| {row['workload']} | {row['precision']}, compile {row['compile']} "
            f"| {row['with_data_path']:.1f} {row['unit']} "
            f"| {row['no_data_loading']:.1f} {row['unit']} "
            f"| {row['share_of_no_data_loading']:.2f} | {peak} |"
        )
    lines += [
        "",
        f"{ensemble['workload']}, {ensemble['precision']}; losses of all ways differ by at most "
        f"{ensemble['largest_difference_of_losses']:.1g} of their value.",
        "",
        "| strategy | ms a step and member | times sequential |",
        "|---|---|---|",
        *(
            f"| {way['name']} | {way['milliseconds_per_step_and_member']:.2f} "
            f"| {way['times_sequential']:.2f} |"
            for way in ensemble["ways"]
        ),
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="tiny sizes: does it run")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--members", type=int, help="of the ensemble")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--jobs", type=int, help="processes; 1 leaves them out")
    parser.add_argument("--compile", default="off", help="of the throughput rows")
    parser.add_argument(
        "--graphs", action="store_true", help="ensembles by CUDA graphs too: minutes of compiling"
    )
    parser.add_argument("-o", "--out", type=Path, help="folder for training.json and .md")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    gpu = device.type == "cuda"
    workloads = QUICK if options.quick else GPU if gpu else CPU
    rounds = options.rounds or (2 if options.quick else 5)
    rows = [
        throughput(workload, device, rounds=rounds, steps=5 if gpu else 2, compiled=options.compile)
        for workload in workloads
    ]
    found = ensembles(
        ENSEMBLES["quick" if options.quick else "gpu" if gpu else "cpu"],
        device,
        members=options.members or (3 if options.quick else 10 if gpu else 5),
        steps=3 if options.quick else 11 if gpu else 4,
        rounds=rounds,
        jobs=options.jobs or (1 if options.quick or gpu else 2),
        compiled=options.graphs,
    )
    about = machine(gpu=gpu)
    text = markdown(about, rows, found)
    print(text)
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
        record = {
            "title": "Training",
            "machine": about,
            "settings": {key: str(value) for key, value in vars(options).items() if key != "out"},
            "workloads": [asdict(workload) for workload in workloads],
            "throughput": rows,
            "ensembles": found,
        }
        (options.out / "training.json").write_text(json.dumps(record, indent=1) + "\n")
        (options.out / "training.md").write_text(text)


if __name__ == "__main__":
    main()
