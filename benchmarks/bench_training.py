"""Training: images per second with and without the data path, and ensembles by strategy.

    python -m benchmarks.bench_training --quick
    python -m benchmarks.bench_training --device cuda --graphs -o benchmarks/results/gpu

**Throughput.** Whole steps of one member, on batches that `BatchSource` draws and augments (with
nnU-Net's augmentation, and cases on the device), are compared with the same steps on one batch that
exists already ("no data loading"). A GPU trains on slices of 192 x 160 in batches of 128, and on
patches of 128^3 in batches of 4, in bf16. A CPU trains on small ones.

**Ensembles.** Members of the paper's size are trained on the same batches in turn, in turn with
CUDA graphs on a GPU, together under vmap, in processes, and by a plain training script (MONAI's
loss, torch's default optimiser, one member after another). The losses of all ways are compared
before a time is printed.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.harness import WrongResult
from benchmarks.training_ensembles import ensembles
from benchmarks.training_workloads import (
    CPU,
    ENSEMBLES,
    GPU,
    QUICK,
    Workload,
    source,
    synchronise,
    synthetic_cases,
)
from fastcal.bench.machine import headline, machine
from fastcal.train.engines import Alone
from fastcal.train.learner import Learner


def seconds_of(steps: Sequence[Callable[[], object]], device: torch.device) -> float:
    synchronise(device)
    start = time.perf_counter()
    for step in steps:
        step()
    synchronise(device)
    return (time.perf_counter() - start) / len(steps)


def throughput(
    workload: Workload, device: torch.device, *, rounds: int, steps: int, compiled: str
) -> dict[str, Any]:
    """Measure items per second with the data path and without, in interleaved rounds."""
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
            f"{workload.name}: the loss goes from {first[0]} to {first[1]}, so it is not timed"
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


# --- the record -----------------------------------------------------------------------------------


def markdown(about: dict[str, Any], rows: list[dict[str, Any]], ensemble: dict[str, Any]) -> str:
    lines = [
        "# Training",
        "",
        headline(about),
        "",
        "Medians of interleaved rounds; processes run after the others. Losses were checked first.",
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
        f"{ensemble['workload']}, {ensemble['precision']}; the losses of all ways differ by at "
        f"most a relative {ensemble['largest_difference_of_losses']:.1g}.",
        "",
        "| strategy | ms per step and member | speed relative to sequential |",
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
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to see whether it runs")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--members", type=int, help="members of the ensemble")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--jobs", type=int, help="number of processes; 1 leaves them out")
    parser.add_argument("--compile", default="off", help="mode of torch.compile for throughput")
    parser.add_argument(
        "--graphs",
        action="store_true",
        help="also train ensembles with CUDA graphs, which compile for minutes",
    )
    parser.add_argument("-o", "--out", type=Path, help="folder for training.json and training.md")
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
