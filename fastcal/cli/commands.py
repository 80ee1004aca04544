"""The list of commands: none is imported before it is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any

import typer

from fastcal.cli.command import CommandGroup, SpreadCommand

_MODELS, _CASES, _UNCERTAINTY, _STUDIES, _TOOLS = (
    "Networks",
    "Predictions",
    "Uncertainty",
    "Data and studies",
    "This installation",
)


@dataclass(frozen=True, slots=True)
class Row:
    """A command: where its help lists it, what it does, and where it is."""

    panel: str
    summary: str
    """The first line of its help: a test compares them."""
    module: str = ""
    """Module of `fastcal.cli` with a function or a `typer.Typer` of the command's name; by default
    the one of that name."""

    def load(self, name: str) -> Any:
        """Import the command.

        Args:
            name: Its name on the command line.
        """
        found = getattr(import_module(f"fastcal.cli.{self.module or name}"), name)
        if isinstance(found, typer.Typer):
            return typer.main.get_command(found)
        alone = typer.Typer(add_completion=False)
        alone.command(name, cls=SpreadCommand)(found)
        return typer.main.get_command(alone)


COMMANDS = {
    "train": Row(
        _MODELS,
        "Train the members of an ensemble, each from its own initialisation and data order.",
    ),
    "export": Row(
        _MODELS,
        "Export an ensemble with its uncertainty, or one member, to TorchScript or ONNX.",
    ),
    "predict": Row(
        _CASES,
        "Predict cases with a trained ensemble: labels, uncertainty maps, calibration.",
    ),
    "ensemble": Row(
        _CASES,
        "Combine folders of saved probabilities, such as nnU-Net's: labels, maps, calibration.",
    ),
    "evaluate": Row(
        _CASES,
        "Score predictions: Dice, HD95, surface Dice, volumes, calibration.",
    ),
    "report": Row(
        _CASES,
        "Compare prediction folders in one HTML page: verdict, numbers, calibration, cases.",
    ),
    "merge": Row(
        _CASES,
        "Merge the calibration and the scores of the parts of a run with --num-parts.",
    ),
    "status": Row(
        _CASES,
        "Show what a folder of predictions was made with, and which of its cases are finished.",
    ),
    "view": Row(
        _CASES,
        "Look at predicted cases, in a page that only this machine can open.",
    ),
    "recalibrate": Row(
        _UNCERTAINTY,
        "Fit a calibrator to saved probabilities with labels, and apply it to others.",
    ),
    "quality": Row(
        _UNCERTAINTY,
        "Predict the Dice of structures from their uncertainty, and list the cases to look at.",
    ),
    "ood": Row(
        _UNCERTAINTY,
        "Detect cases that are unlike those that the networks were made for.",
    ),
    "convert": Row(
        _STUDIES,
        "Convert a public dataset (BraTS, ACDC, M&Ms, prostate sets, MSD) to nnU-Net's raw layout.",
    ),
    "demo": Row(
        _STUDIES,
        "Compare losses, and single models with ensembles: the whole job, with a report.",
    ),
    "study": Row(
        _STUDIES,
        "Run a study of the paper: losses, ensembles, MC dropout, calibration, quality, detection.",
    ),
    "bench": Row(
        _TOOLS,
        "Time the fused pass beside its peers on this CPU or GPU. Results are checked first.",
    ),
    "info": Row(
        _TOOLS,
        "Show what this installation can do here: versions, processor, GPU, backends.",
    ),
}


class _Loaded(dict[str, Any]):
    """The commands by name, each of which is imported when it is looked up."""

    def __init__(self) -> None:
        super().__init__(dict.fromkeys(COMMANDS))

    def __getitem__(self, name: str) -> Any:
        found = super().__getitem__(name)
        if found is None:
            found = self[name] = COMMANDS[name].load(name)
        return found

    def get(self, name: str, default: Any = None) -> Any:
        """Return the command of a name."""
        return self[name] if name in COMMANDS else default

    def items(self) -> Any:
        """Return all names with their commands, which imports them all."""
        return [(name, self[name]) for name in self]

    def values(self) -> Any:
        """Return all commands, which imports them all."""
        return [self[name] for name in self]


class Commands(CommandGroup):
    """The command ``fastcal``, which knows its commands by the list alone."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**{**settings, "commands": {}})
        self.commands = _Loaded()

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names of the commands."""
        del ctx
        return list(COMMANDS)

    def described(self, ctx: Any, name: str) -> tuple[str, str]:
        """Return the group of a command and its sentence."""
        del ctx
        return COMMANDS[name].panel, COMMANDS[name].summary

    def shell_complete(self, ctx: Any, incomplete: str) -> list[Any]:
        """Return the commands, or the options, that begin with what was typed."""
        if incomplete.startswith("-"):
            return super().shell_complete(ctx, incomplete)
        return [
            _completion(name, help=row.summary)
            for name, row in COMMANDS.items()
            if name.startswith(incomplete)
        ]


def _completion(name: str, *, help: str) -> Any:
    try:
        from typer._click.shell_completion import CompletionItem
    except ImportError:  # before typer took click in
        from click.shell_completion import CompletionItem  # type: ignore[assignment]
    return CompletionItem(name, help=help)
