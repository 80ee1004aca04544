"""``fastcal view``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fastcal.cli import mapping

if TYPE_CHECKING:
    from fastcal.viewer import ViewedFolder

PROGRAMS = "Where it is shown"


def view(
    out: Annotated[
        Path,
        typer.Argument(metavar="PREDICTIONS", help="Folder of predictions.", show_default=False),
    ],
    case: Annotated[
        str | None,
        typer.Argument(
            metavar="[CASE]", help="Case to begin with; without it the one to look at first."
        ),
    ] = None,
    *,
    images: Annotated[
        Path,
        typer.Option(
            "-i",
            "--images",
            metavar="FOLDER",
            help="Folder of the images.",
            rich_help_panel=mapping.FILES,
        ),
    ],
    labels: Annotated[
        Path | None,
        typer.Option(
            "-g",
            "--labels",
            metavar="FOLDER",
            help="Folder of reference label maps: adds reference, errors and Dice.",
            rich_help_panel=mapping.FILES,
        ),
    ] = None,
    quality: Annotated[
        Path | None,
        typer.Option(
            "--quality",
            metavar="FILE",
            help="quality.json of quality predict: lists the cases by predicted Dice.",
            rich_help_panel=mapping.FILES,
        ),
    ] = None,
    dataset_json: mapping.DatasetJson = None,
    png: Annotated[
        Path | None,
        typer.Option(
            "--png",
            metavar="FILE",
            help="Write a picture of the case instead, without a browser.",
            rich_help_panel=mapping.WRITTEN,
        ),
    ] = None,
    slicer: Annotated[
        bool,
        typer.Option(
            "--slicer",
            help="Open the case in 3D Slicer; print the command where it is missing.",
            rich_help_panel=PROGRAMS,
        ),
    ] = False,
    napari: Annotated[
        bool,
        typer.Option(
            "--napari",
            help="Open the case in napari; print the command where it is missing.",
            rich_help_panel=PROGRAMS,
        ),
    ] = False,
    port: Annotated[
        int | None,
        typer.Option(
            "--port",
            metavar="N",
            help="Port of the page; a free one without it, or with 0.",
            rich_help_panel=PROGRAMS,
        ),
    ] = None,
    browser: Annotated[
        bool | None,
        typer.Option(
            "--browser/--no-browser",
            help="Open the page in the web browser, as is done without either.",
            rich_help_panel=PROGRAMS,
        ),
    ] = None,
    affine: mapping.Affine = mapping.AffineForm.auto,
) -> None:
    """Look at predicted cases, in a page that only this machine can open.

    The page lies on 127.0.0.1 behind a token in its address, and shows nothing but files of the
    folders given. Ctrl-C ends it.

    Example:
        fastcal view predicted -i imagesTs -g labelsTs
    """
    del affine  # its callback has chosen the form
    from fastcal.core.places import check_out_file
    from fastcal.viewer import ViewedFolder, write_png

    if port is not None and not 0 <= port <= 65535:
        raise ValueError(f"port must be from 0 to 65535, got {port}")
    others = {"--png": png is not None, "--slicer": slicer, "--napari": napari}
    instead = next((name for name, given in others.items() if given), None)
    if instead is not None:
        _refuse_options_of_the_page(instead, port, browser)
    folder = ViewedFolder(out, images, labels, dataset_json=dataset_json, quality=quality)
    chosen = folder.rows[0].case if case is None else case
    folder.check_case(chosen)
    if png is not None:
        check_out_file(png, folder.inputs)
        typer.echo(f"{write_png(png, folder.open(chosen))}: {chosen}")
    if slicer or napari:
        _open_elsewhere(folder.paths(chosen), slicer=slicer, napari=napari)
    if instead is None:
        _serve(folder, chosen, port=port or 0, browser=browser is not False)


def _refuse_options_of_the_page(instead: str, port: int | None, browser: bool | None) -> None:
    if port is not None:
        raise ValueError(f"--port must be left out with {instead}, got {port}")
    if browser is not None:
        given = "--browser" if browser else "--no-browser"
        raise ValueError(f"--browser and --no-browser must be left out with {instead}, got {given}")


def _open_elsewhere(files: dict[str, list[Path]], *, slicer: bool, napari: bool) -> None:
    import shlex

    from fastcal.viewer.programs import is_installed, napari_command, slicer_command, start

    wanted = [*([slicer_command] if slicer else []), *([napari_command] if napari else [])]
    for make in wanted:
        command = make(files)
        if is_installed(command):
            start(command)
            typer.echo(f"{Path(command[0]).name} opens")
        else:
            typer.echo(shlex.join(command))


def _serve(folder: ViewedFolder, case: str, *, port: int, browser: bool) -> None:
    import contextlib
    import webbrowser

    from fastcal.viewer import ViewServer

    # Ctrl-C is how a server ends, and nothing is left undone by it.
    with contextlib.suppress(KeyboardInterrupt), ViewServer(folder, case, port=port) as server:
        typer.echo(f"{server.url} (Ctrl-C ends it)")
        if browser:
            webbrowser.open(server.url)
        server.serve_forever()
