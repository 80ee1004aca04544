"""Options that take several values after one flag, as nnU-Net's do: ``-i FOLD_0 FOLD_1``."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from typer.core import TyperCommand


class SpreadCommand(TyperCommand):
    """A command whose repeatable options also take their values one after another.

    ``-i A B -o OUT`` is read as ``-i A -i B -o OUT``. Only commands without positional arguments
    are rewritten: elsewhere the words after an option's value are theirs.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Repeat the flag before each of its values, then parse as usual."""
        positional = any(p.param_type_name == "argument" for p in self.params)
        if not positional:
            args = spread(args, _repeatable(self.params))
        return super().parse_args(ctx, args)


def _repeatable(params: Sequence[Any]) -> set[str]:
    return {flag for p in params if getattr(p, "multiple", False) for flag in p.opts}


def spread(args: Sequence[str], flags: Collection[str]) -> list[str]:
    """Repeat a flag before each further value that follows it.

    A word that begins with ``-`` ends the values, unless it is a number: a folder of such a name
    is written ``./-name``.

    Example:
        >>> spread(["-i", "a", "b", "-o", "c"], {"-i"})
        ['-i', 'a', '-i', 'b', '-o', 'c']
        >>> spread(["--in=a", "b", "-v"], {"--in"})
        ['--in=a', '--in', 'b', '-v']
    """
    spread_args: list[str] = []
    flag, values = None, 0
    for word in args:
        if word.startswith("-") and word != "-" and not _is_number(word):
            name, equals, _ = word.partition("=")
            flag, values = (name, int(bool(equals))) if name in flags else (None, 0)
        elif flag is not None:
            if values:
                spread_args.append(flag)
            values += 1
        spread_args.append(word)
    return spread_args


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True
