"""``fastcal bench``."""

from __future__ import annotations

from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from fastcal.bench import Results

from fastcal.cli.outcome import SOME_CASES_FAILED


class Dtype(StrEnum):
    """Types of the members."""

    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"
    float64 = "float64"


class Layout(StrEnum):
    """Memory layouts of a member."""

    ncdhw = "ncdhw"
    channels_last = "channels-last"
    cropped = "cropped"


class OutputsName(StrEnum):
    """What a pass computes."""

    entropy = "entropy"
    six_maps = "six-maps"
    all_maps = "all-maps"
    calibration = "calibration"
    six_maps_calibration = "six-maps+calibration"


class PeerName(StrEnum):
    """What fastcal is compared with."""

    eager = "eager"
    compile = "compile"
    monai = "monai"
    torchmetrics = "torchmetrics"
    exacta = "exacta"
    plain = "plain"
    triton = "triton"


class Sweep(StrEnum):
    """How axes are combined."""

    star = "star"
    product = "product"


def bench(
    dtypes: Annotated[
        list[Dtype] | None, typer.Option("--dtypes", help="Types of the members.")
    ] = None,
    classes: Annotated[
        list[int] | None, typer.Option("--classes", metavar="C", help="Numbers of classes.")
    ] = None,
    members: Annotated[
        list[int] | None, typer.Option("--members", metavar="M", help="Numbers of members.")
    ] = None,
    volumes: Annotated[
        list[str] | None,
        typer.Option("--volumes", metavar="N|NxNxN", help="Sizes of the volume in voxels."),
    ] = None,
    outputs: Annotated[
        list[OutputsName] | None, typer.Option("--outputs", help="What a pass computes.")
    ] = None,
    backgrounds: Annotated[
        list[float] | None,
        typer.Option("--backgrounds", metavar="SHARE", help="Shares of background voxels."),
    ] = None,
    layouts: Annotated[
        list[Layout] | None, typer.Option("--layouts", help="Memory layouts of a member.")
    ] = None,
    sweep: Annotated[
        Sweep,
        typer.Option(
            "--sweep",
            help="star: vary one axis, others at their first value; product: all combinations.",
        ),
    ] = Sweep.star,
    peers: Annotated[
        list[PeerName] | None,
        typer.Option(
            "--peers",
            help="Measured at every point. By default all peers, torch.compile only once.",
        ),
    ] = None,
    no_peers: Annotated[bool, typer.Option("--no-peers", help="Measure fastcal alone.")] = False,
    quick: Annotated[
        bool, typer.Option("--quick", help="A small volume, which takes a minute.")
    ] = False,
    device: Annotated[
        str | None,
        typer.Option(
            "--device",
            metavar="DEVICE",
            help="cpu, cuda or cuda:1. By default a GPU where there is one.",
        ),
    ] = None,
    threads: Annotated[
        int | None, typer.Option("--threads", metavar="N", help="Threads on the CPU.")
    ] = None,
    seconds: Annotated[
        float | None,
        typer.Option("--seconds", metavar="S", help="Time for the timed calls of a row."),
    ] = None,
    budget: Annotated[
        float | None,
        typer.Option("--budget", metavar="S", help="Begin no further volume after this time."),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", metavar="N", help="Seed of the data.")] = 0,
    out: Annotated[
        Path | None,
        typer.Option(
            "-o", "--out", metavar="FOLDER", help="Write kernels.json, kernels.md, roofline.png."
        ),
    ] = None,
    beside: Annotated[
        list[Path] | None,
        typer.Option(
            "--beside",
            metavar="FILE",
            help="kernels.json of another device, whose shares are shown beside these.",
        ),
    ] = None,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Show no progress.")] = False,
) -> None:
    """Time the fused pass beside its peers on this CPU or GPU. Results are checked first."""
    from rich.console import Console

    from fastcal.bench import Settings, record, run
    from fastcal.bench.beside import read_run, run_of, table
    from fastcal.bench.device import open_device
    from fastcal.bench.points import read_volume
    from fastcal.core.places import check_own

    others = [read_run(file) for file in beside or ()]
    gpu = open_device(device).torch.type == "cuda"
    settings = Settings.quick(gpu=gpu) if quick else Settings.default(gpu=gpu)
    axes: dict[str, list[Any] | None] = {
        "dtype": dtypes,
        "classes": classes,
        "members": members,
        "volume": None if volumes is None else [read_volume(text) for text in volumes],
        "background": backgrounds,
        "layout": layouts,
        "outputs": outputs,
    }
    given = {
        name: tuple(str(v) if isinstance(v, StrEnum) else v for v in values)
        for name, values in axes.items()
        if values
    }
    chosen = () if no_peers else None if peers is None else tuple(str(peer) for peer in peers)
    settings = replace(
        settings,
        axes={**settings.axes, **given},
        sweep=sweep.value,
        peers=chosen,
        device=device,
        threads=threads,
        seconds=settings.seconds if seconds is None else seconds,
        budget=settings.budget if budget is None else budget,
        seed=seed,
    )
    if out is not None:
        check_own(out)
    console, progress = Console(), Console(stderr=True)
    if not console.is_terminal:
        console.width = max(console.width, 120)
    results = run(
        settings,
        say=_silent if quiet else lambda line: progress.print(line, style="dim"),
        keep=lambda results: None if out is None else _keep(results, out),
    )
    written = [] if out is None else record.write(results, out)
    record.show(results, console)
    if others:
        typer.echo(table([run_of(record.to_json(results)), *others]))
    for path in written:
        typer.echo(f"written: {path}")
    if results.refused:
        raise typer.Exit(SOME_CASES_FAILED)


def _keep(results: Results, out: Path) -> None:
    from fastcal.bench.record import write_tables

    write_tables(results, out)


def _silent(_: str) -> None:
    """Say nothing."""
