"""What a command does before its function: reads its words, and writes its help."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from fastcal.cli.coercion import check_paths, read_plainly
from fastcal.cli.values import read_arguments, spreads

_COLUMN = 26
"""Width of the options; 50 characters of a terminal of 80 columns remain for what they mean."""
_HELD = "fastcal.cli.command.held"
_GENERAL = "Options"
_EXAMPLES = ("Example:", "Examples:")
_HYPHEN, _SPACE = "\N{NON-BREAKING HYPHEN}", "\N{NO-BREAK SPACE}"
_LAST_WORDS = re.compile(r"\[[^][]{1,40}\]$")
"""What is said of the default, or that there is none."""


class SpreadCommand(TyperCommand):
    """A command whose repeatable options also take their values one after another.

    Its help shows the required options in the first line, the others in groups, and the examples of
    its docstring as they are written. It is laid out by click and not by rich, whose import alone
    takes as long as everything else together.
    """

    def get_params(self, ctx: Any) -> list[Any]:
        """Return the parameters, with that of the help."""
        return _light(super().get_params(ctx))

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Give each value its flag and each option its name, then parse as usual."""
        return super().parse_args(ctx, read_arguments(args, self.params))

    def invoke(self, ctx: Any) -> Any:
        """Run the function within what options asked for, see `held_while_it_runs`.

        Raises:
            DataError: An input is not there, which is known before anything is imported for it.
        """
        check_paths(self.params, ctx.params)
        for enter in ctx.meta.pop(_HELD, ()):
            ctx.with_resource(enter())
        return super().invoke(ctx)

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Return the required options and the arguments of the first line."""
        del ctx
        required = [p for p in self.params if p.required and p.param_type_name == "option"]
        options = [f"{p.opts[0]} {_metavar(p, several=p.multiple)}" for p in required]
        return [*options, "[OPTIONS]", *(_metavar(p) for p in self.params if _is_argument(p))]

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help: what the command does, its options, examples."""
        text, examples = _description(self.help or "")
        self.format_usage(ctx, formatter)
        formatter.write_paragraph()
        formatter.write_text(_unbroken(text))
        _write_sections(formatter, dict(_sections(self, ctx)))
        _as_typed(formatter)
        if examples:
            with formatter.section("Examples" if len(examples) > 1 else "Example"):
                for line in examples:
                    formatter.write(f"  {line}\n")


def held_while_it_runs(ctx: Any, enter: Callable[[], AbstractContextManager[Any]]) -> None:
    """Enter a context when the function of a command begins, and leave it at its end.

    Until all arguments are known to be right nothing is entered, nor imported for it.

    Args:
        ctx: The context of the command.
        enter: Makes the context manager.
    """
    ctx.meta.setdefault(_HELD, []).append(enter)


class CommandGroup(TyperGroup):
    """A command that has commands, with help of the same layout."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Return the parameters, with that of the help."""
        return _light(super().get_params(ctx))

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the words before the inner command; without any, print the help."""
        if not args and self.no_args_is_help and not ctx.resilient_parsing:
            typer.echo(ctx.get_help())
            raise typer.Exit
        return super().parse_args(ctx, args)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help: what the commands are for, their names, options."""
        self.format_usage(ctx, formatter)
        formatter.write_paragraph()
        formatter.write_text(_unbroken(self.help or ""))
        sections: dict[str, list[tuple[str, str]]] = {}
        for name in self.list_commands(ctx):
            panel, summary = self.described(ctx, name)
            sections.setdefault(panel, []).append((name, summary))
        _write_sections(formatter, sections | dict(_sections(self, ctx)))
        _as_typed(formatter)
        self.format_epilog(ctx, formatter)

    def described(self, ctx: Any, name: str) -> tuple[str, str]:
        """Return the group of a command and its sentence."""
        command = self.get_command(ctx, name)
        return "Commands", summary_of(command)


def _light(params: list[Any]) -> list[Any]:
    """Keep pydantic out: typer imports it for each value, and for flags without a default.

    Those are the flags of help and completion.
    """
    for param in params:
        read_plainly(param)
        if not param.expose_value and getattr(param, "is_flag", False) and param.default is None:
            param.default = False
    return params


def summary_of(command: Any) -> str:
    """Return the first sentence of a command's help, as the lists of commands show it."""
    return str(command.help or "").partition("\n")[0]


def _description(text: str) -> tuple[str, list[str]]:
    """Split a help text into what the command does, and the lines of its examples."""
    lines = text.split("\n")
    starts = [number for number, line in enumerate(lines) if line in _EXAMPLES]
    if not starts:
        return text, []
    examples = [line.strip() for line in lines[starts[0] + 1 :] if line.strip()]
    return "\n".join(lines[: starts[0]]).strip(), examples


def _sections(command: Any, ctx: Any) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """Yield each group of options, in the order of the command, and the general ones last."""
    found: dict[str, list[tuple[str, str]]] = {}
    several = spreads(command.params)
    for param in command.get_params(ctx):
        record = param.get_help_record(ctx)
        if record is None:
            continue
        if _is_argument(param):
            found.setdefault("Arguments", []).append((_metavar(param), record[1]))
        else:
            panel = getattr(param, "rich_help_panel", None) or _GENERAL
            multiple = getattr(param, "multiple", False)
            more = "..." if several and multiple else ""
            text = record[1] if not multiple or several else f"{record[1]}  [may be repeated]"
            found.setdefault(panel, []).append((record[0] + more, text))
    general = found.pop(_GENERAL, [])
    yield from found.items()
    if general:
        yield _GENERAL, general


def _write_sections(formatter: Any, sections: dict[str, list[tuple[str, str]]]) -> None:
    widest = max((len(name) for rows in sections.values() for name, _ in rows), default=0)
    column = min(widest, _COLUMN)
    for title, rows in sections.items():
        with formatter.section(title):
            formatter.write_dl(
                [(name.ljust(column), _unbroken(text)) for name, text in rows], col_max=column
            )


def _unbroken(text: str) -> str:
    """Keep ``nnU-Net``, options and ``[default: 1]`` in one line where text is wrapped."""
    text = _LAST_WORDS.sub(lambda last: last[0].replace(" ", _SPACE), text)
    return text.replace("-", _HYPHEN)


def _as_typed(formatter: Any) -> None:
    for position, part in enumerate(formatter.buffer):
        formatter.buffer[position] = part.replace(_HYPHEN, "-").replace(_SPACE, " ")


def _is_argument(param: Any) -> bool:
    return bool(param.param_type_name == "argument")


def _metavar(param: Any, *, several: bool = False) -> str:
    return str(param.metavar or param.name.upper()) + "..." * several
