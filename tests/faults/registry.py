"""All kinds, by name."""

from __future__ import annotations

from functools import cache

from . import (
    table_arguments,
    table_contents,
    table_converted,
    table_files,
    table_geometry,
    table_joins,
    table_keys,
    table_outputs,
    table_scored,
    table_scores,
    table_shown,
)
from .kinds import Kind, Table


@cache
def all_kinds() -> dict[str, Kind]:
    """Every kind in order of the tables."""
    table = Table()
    for module in (
        *(table_files, table_keys, table_contents, table_arguments),
        *(table_joins, table_outputs, table_geometry, table_scores),
        *(table_scored, table_converted, table_shown),
    ):
        table.add(module.kinds())
    return table.kinds


def group(name: str) -> list[str]:
    """Names of the kinds of a group, in order."""
    return [kind.name for kind in all_kinds().values() if kind.group == name]
