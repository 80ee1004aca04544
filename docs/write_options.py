"""Writes the tables of options in docs/cli.md from the commands themselves.

    python docs/write_options.py

Run it after an option or its help has changed; a test compares the page with the commands.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any

import typer

from fastcal.cli.app import app

PAGE = Path(__file__).with_name("cli.md")
HEADING = re.compile(r"^##+ .*$", re.MULTILINE)
TABLE = re.compile(r"^\| option \|.*\n(?:\|.*\n)+", re.MULTILINE)
GENERAL = "Options"
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


def row(option: Any) -> str:
    """One option: its flags, its default, and its help."""
    help_text, *stated = DEFAULT_IN_HELP.split(option.help or "")
    default = "required" if option.required else stated[0] if stated else shown(option.default)
    names = (*option.opts, *option.secondary_opts)
    if option.param_type_name == "argument":
        names = (option.metavar,)
    flags = ", ".join(f"`{flag}`" for flag in names)
    cells = (flags, default, help_text.replace("|", "\\|"))
    return "| " + " | ".join(cells) + " |\n"


def table(command: Any) -> str:
    """Its options, in the groups of the help."""
    groups: dict[str | None, list[str]] = {}
    for option in command.params:
        if option.name != "help":
            panel = getattr(option, "rich_help_panel", None)
            groups.setdefault(panel or GENERAL, []).append(row(option))
    general = groups.pop(GENERAL, [])
    text = "| option | default | meaning |\n|---|---|---|\n"
    for panel, rows in groups.items():
        text += f"| **{panel}** | | |\n" + "".join(rows)
    if general:
        text += (f"| **{GENERAL}** | | |\n" if groups else "") + "".join(general)
    return text


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
