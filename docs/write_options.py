"""Writes the tables of options in docs/cli.md from the commands themselves.

    python docs/write_options.py

Run it after an option or its help has changed; a test compares the page with the commands.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any, get_args, get_type_hints

import typer

from fastcal.cli.app import app

PAGE = Path(__file__).with_name("cli.md")
HEADING = re.compile(r"^##+ .*$", re.MULTILINE)
TABLE = re.compile(r"^\| option \|.*\n(?:\|.*\n)+", re.MULTILINE)
DEFAULT_IN_HELP = re.compile(r"\s*\[default: (.*)\]$")


def commands() -> Iterator[tuple[str, Any]]:
    """The heading of each command's section, and the command."""
    for name, command in typer.main.get_command(app).commands.items():  # type: ignore[attr-defined]
        if hasattr(command, "commands"):
            for inner, each in command.commands.items():
                yield f"### fastcal {name} {inner}", each
        else:
            yield f"## fastcal {name}", command


def shown(value: Any) -> str:
    if value is None or callable(value):
        return ""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, (list, tuple)):
        return " ".join(map(shown, value))
    return str(value.value if isinstance(value, Enum) else value)


def choices(annotation: Any) -> list[str]:
    """The values of the enumeration in an annotation, if there is one."""
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return [str(each.value) for each in annotation]
    return [value for inner in get_args(annotation) for value in choices(inner)]


def row(option: Any, values: list[str]) -> str:
    """One option: its flags, its default, and its help with the values it may take."""
    help_text, *stated = DEFAULT_IN_HELP.split(option.help or "")
    default = "required" if option.required else stated[0] if stated else shown(option.default)
    names = (*option.opts, *option.secondary_opts)
    if option.param_type_name == "argument":
        names = (option.metavar,)
    flags = ", ".join(f"`{flag}`" for flag in names)
    if any(value not in help_text for value in values):
        names = [f"`{value}`" for value in values]
        number = "Any" if option.multiple else "One"
        help_text += f" {number} of {', '.join(names[:-1])} or {names[-1]}."
    cells = (flags, default, help_text.replace("|", "\\|"))
    return "| " + " | ".join(cells) + " |\n"


def table(command: Any) -> str:
    hints = get_type_hints(command.callback)
    rows = (
        row(option, choices(hints.get(option.name)))
        for option in command.params
        if option.name != "help"
    )
    return "| option | default | meaning |\n|---|---|---|\n" + "".join(rows)


def written(page: str) -> str:
    """The page with the table of every command as it is now."""
    for heading, command in commands():
        start = page.index(f"\n{heading}\n") + 1
        following = HEADING.search(page, start + len(heading))
        end = following.start() if following else len(page)
        section, count = TABLE.subn(lambda _, c=command: table(c), page[start:end], count=1)
        if count != 1:
            raise SystemExit(f"{PAGE}: no table of options under {heading!r}")
        page = page[:start] + section + page[end:]
    return page


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
