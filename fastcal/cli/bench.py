"""``fastcal bench``."""

from __future__ import annotations

from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fastcal.cli.mapping import RUN, one_device
from fastcal.cli.outcome import SOME_CASES_FAILED
from fastcal.cli.values import one_of

if TYPE_CHECKING:
    from fastcal.bench import Results

POINTS = "What is measured"
PEERS = "What it is compared with"


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
        list[Dtype] | None,
        typer.Option(
            "--dtype",
            metavar="TYPE",
            help=f"Types of the members: {one_of(Dtype)}.",
            rich_help_panel=POINTS,
        ),
    ] = None,
    classes: Annotated[
        list[int] | None,
        typer.Option(
            "--classes",
            metavar="N",
            min=2,
            max=65535,
            help="Numbers of classes.",
            rich_help_panel=POINTS,
        ),
    ] = None,
    members: Annotated[
        list[int] | None,
        typer.Option(
            "--members", metavar="N", min=1, help="Numbers of members.", rich_help_panel=POINTS
        ),
    ] = None,
    volumes: Annotated[
        list[str] | None,
        typer.Option(
            "--volume",
            metavar="SIZE",
            help="Sizes of the volume in voxels: 128, or 160x160x32.",
            rich_help_panel=POINTS,
        ),
    ] = None,
    outputs: Annotated[
        list[OutputsName] | None,
        typer.Option(
            "--output",
            metavar="OUTPUT",
            help=f"What a pass computes: {one_of(OutputsName)}.",
            rich_help_panel=POINTS,
        ),
    ] = None,
    backgrounds: Annotated[
        list[float] | None,
        typer.Option(
            "--background",
            metavar="SHARE",
            min=0,
            max=1,
            help="Shares of background voxels.",
            rich_help_panel=POINTS,
        ),
    ] = None,
    layouts: Annotated[
        list[Layout] | None,
        typer.Option(
            "--layout",
            metavar="LAYOUT",
            help=f"Memory layouts of a member: {one_of(Layout)}.",
            rich_help_panel=POINTS,
        ),
    ] = None,
    sweep: Annotated[
        Sweep,
        typer.Option(
            "--sweep",
            metavar="NAME",
            help="star: vary one axis, others at their first value; product: all combinations.",
            rich_help_panel=POINTS,
        ),
    ] = Sweep.star,
    peers: Annotated[
        list[PeerName] | None,
        typer.Option(
            "--peer",
            metavar="PEER",
            help=f"Measured at every point: {one_of(PeerName)}. By default all, torch.compile only "
            "once.",
            rich_help_panel=PEERS,
        ),
    ] = None,
    no_peers: Annotated[
        bool, typer.Option("--no-peers", help="Measure fastcal alone.", rich_help_panel=PEERS)
    ] = False,
    variants: Annotated[
        bool,
        typer.Option(
            "--variants",
            help="Also measure the competing designs of the CUDA kernels.",
            rich_help_panel=PEERS,
        ),
    ] = False,
    quick: Annotated[
        bool,
        typer.Option(
            "--quick", help="A small volume, which takes a minute.", rich_help_panel=POINTS
        ),
    ] = False,
    device: Annotated[
        str | None,
        typer.Option(
            "--device",
            metavar="DEVICE",
            callback=one_device,
            help="cpu, cuda or cuda:1. By default a GPU where there is one.",
            rich_help_panel=RUN,
        ),
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option(
            "--threads",
            metavar="N",
            min=1,
            max=4096,
            help="Threads on the CPU.",
            rich_help_panel=RUN,
        ),
    ] = None,
    seconds: Annotated[
        float | None,
        typer.Option(
            "--seconds",
            metavar="SECONDS",
            min=0,
            help="Time for the timed calls of a row.",
            rich_help_panel=RUN,
        ),
    ] = None,
    budget: Annotated[
        float | None,
        typer.Option(
            "--budget",
            metavar="SECONDS",
            min=0,
            help="Begin no further volume after this time.",
            rich_help_panel=RUN,
        ),
    ] = None,
    seed: Annotated[
        int,
        typer.Option("--seed", metavar="N", help="Seed of the data.", rich_help_panel=RUN),
    ] = 0,
    out: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--out",
            metavar="FOLDER",
            help="Folder for kernels.json, kernels.md and roofline.png.",
            rich_help_panel=RUN,
        ),
    ] = None,
    beside: Annotated[
        list[Path] | None,
        typer.Option(
            "--beside",
            metavar="FILE",
            exists=True,
            help="kernels.json of another device, whose shares are shown beside these.",
            rich_help_panel=RUN,
        ),
    ] = None,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Show no progress.")] = False,
) -> None:
    """Time the fused pass beside its peers on this CPU or GPU. Results are checked first.

    Examples:
        fastcal bench --quick
        fastcal bench -o bench --device cuda --classes 4 --members 5 --volume 128
    """
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
        variants=variants,
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
