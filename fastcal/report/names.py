"""Short names of folders: the parts of their paths in which they differ."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


def distinct_names(folders: Sequence[Path]) -> tuple[str, ...]:
    """Return a name per folder: its path without the parts that all of them share.

    The folders are different ones, and so are the names.

    Example:
        >>> distinct_names([Path("out/ce/ensemble"), Path("out/dice/ensemble")])
        ('ce', 'dice')
        >>> distinct_names([Path("runs/fold_0")])
        ('fold_0',)
    """
    parts = [list(folder.absolute().parts) for folder in folders]
    if len(folders) == 1:
        return (parts[0][-1],)
    while all(len(one) > 1 for one in parts) and len({one[0] for one in parts}) == 1:
        parts = [one[1:] for one in parts]
    while all(len(one) > 1 for one in parts) and len({one[-1] for one in parts}) == 1:
        parts = [one[:-1] for one in parts]
    return tuple("/".join(one) for one in parts)
