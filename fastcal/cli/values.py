"""Options that take several values after one flag, and the former names of options."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

FORMER = {
    "--backgrounds": "--background",
    "--cases": "--case",
    "--closed": "--bin-edge",
    "--dtypes": "--dtype",
    "--inputs": "--input",
    "--layouts": "--layout",
    "--maps": "--map",
    "--members": "--member",
    "--outputs": "--output",
    "--peers": "--peer",
    "--scores": "--score",
    "--structures": "--structure",
    "--volumes": "--volume",
    "--weights": "--weight",
}
"""Names that scripts may still use; a command that has an option of such a name means its own."""

NNUNET = {
    "--save_probabilities": "--save-probabilities",
    "-num_parts": "--num-parts",
    "-part_id": "--part-id",
}
"""nnU-Net's spelling of the options that mean the same."""


def one_of(words: Iterable[str]) -> str:
    """Return alternatives as a reader expects them.

    Example:
        >>> one_of(["sform", "qform", "auto"])
        'sform, qform or auto'
    """
    *first, last = words
    return f"{', '.join(first)} or {last}" if first else last


def read_arguments(args: Sequence[str], params: Iterable[Any]) -> list[str]:
    """Return the words of a command with one flag per value and today's names of options.

    ``-i A B -o OUT`` becomes ``-i A -i B -o OUT``. Only commands without positional arguments are
    rewritten in this way: elsewhere the words after an option's value are theirs.

    Args:
        args: The words after the command.
        params: The parameters of the command.
    """
    params = list(params)
    flags = {flag for p in params for flag in (*p.opts, *p.secondary_opts)}
    names = {old: new for old, new in {**FORMER, **NNUNET}.items() if old not in flags}
    args = renamed(args, {old: new for old, new in names.items() if new in flags})
    return spread(args, repeatable(params)) if spreads(params) else args


def spreads(params: Iterable[Any]) -> bool:
    """Return whether several values may follow one flag of a command."""
    return not any(p.param_type_name == "argument" for p in params)


def repeatable(params: Iterable[Any]) -> set[str]:
    """Return the flags of a command that may be given several times."""
    return {flag for p in params if getattr(p, "multiple", False) for flag in p.opts}


def renamed(args: Sequence[str], names: Mapping[str, str]) -> list[str]:
    """Replace the names of options, before a ``=`` too; nothing behind ``--`` is an option.

    Example:
        >>> renamed(["--maps", "entropy", "--closed=left"], FORMER)
        ['--map', 'entropy', '--bin-edge=left']
    """
    found: list[str] = []
    for position, word in enumerate(args):
        if word == "--":
            return [*found, *args[position:]]
        name, equals, value = word.partition("=")
        found.append(f"{names.get(name, name)}{equals}{value}")
    return found


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
