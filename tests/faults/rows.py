"""Rows of the tables of contents: a name, a damage of a file, and what is expected."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from .damage import Damage
from .kinds import Command, Expected, Kind

REFUSED, SAME, TOLD = Expected.REFUSED, Expected.SAME, Expected.TOLD
RIGHT, HANDLED, LISTED = Expected.RIGHT, Expected.HANDLED, Expected.LISTED

Row = tuple[str, Damage] | tuple[str, Damage, Expected]


def table(
    group: str,
    command: Command,
    label: str,
    path: str,
    rows: list[Row],
    names: tuple[str, ...] = (),
) -> Iterator[Kind]:
    """A kind for each row: a name, a damage of the file, and what is expected if not refusal."""
    for name, damage, *expected in rows:
        yield Kind(
            name=f"{command.name}: {label} {name}",
            group=group,
            command=command,
            damage=_at(path, damage),
            expected=expected[0] if expected else REFUSED,
            names=(*names, Path(path).name),
        )


def _at(path: str, damage: Damage) -> Damage:
    def do(folder: Path) -> None:
        found = sorted(folder.glob(path))
        damage(found[0] if found else folder / path)

    return do


def _some(rows: list[Row], *words: str) -> list[Row]:
    """The rows whose names hold one of these words."""
    return [row for row in rows if any(word in row[0] for word in words)]
