"""What a kind is, what is expected of it, and the words for what comes of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TypeAlias


class Expected(StrEnum):
    """What a command must do with a kind of input."""

    REFUSED = "refused"
    """Exit code 2 and one line that names the file or the argument."""
    TOLD = "told"
    """Refused, or done with one line on stderr that names the file or the argument."""
    SAME = "same"
    """Refused, or done with the results of the undamaged input."""
    RIGHT = "right"
    """Done, with the results of the undamaged input (or those that a check demands)."""
    HANDLED = "handled"
    """Refused, or done: legal, but nobody says which numbers are right."""
    LISTED = "listed"
    """Exit code 1, and a line for each case that failed under --keep-going."""


class Verdict(StrEnum):
    """What came of a kind."""

    PASS = "PASS"
    EXECUTED = "EXECUTED"
    """Code that came with the input was run."""
    TRACEBACK = "TRACEBACK"
    """An exception reached the user."""
    CRASH = "CRASH"
    """The process was killed by a signal."""
    HANG = "HANG"
    """No answer within the time limit."""
    GREEDY = "GREEDY"
    """Refused or done, but only after taking far more memory than the input is worth."""
    DESTROYED = "DESTROYED"
    """A file of the user's was overwritten or removed."""
    HALF = "HALF"
    """Half-written outputs or temporary files were left behind."""
    UNNAMED = "UNNAMED"
    """Refused, but the message names neither file nor argument."""
    NOISY = "NOISY"
    """Refused by name, but not in one line or not with the documented exit code."""
    SILENT = "SILENT"
    """Accepted without a word."""
    SILENTLY_WRONG = "SILENTLY WRONG"
    """Accepted without a word, and the numbers are wrong."""
    STALE = "STALE"
    """Outputs of earlier inputs or settings were kept without a word."""
    WRONG = "WRONG"
    """Legal input was refused, or led to wrong numbers."""


Prepare: TypeAlias = Callable[[Path], None]
Check: TypeAlias = "Callable[[Path], str | None]"
"""Says of a working folder what is wrong with the results in it; None: nothing."""
Script: TypeAlias = "Callable[[Path], str | None]"
"""Does the whole of a kind in its working folder; says what was wrong, None: nothing.

What begins with "refused" is legal input that was refused."""


@dataclass(frozen=True, slots=True)
class Command:
    """A command line over the world's files that works, and what it reads and writes.

    Args:
        name: of the command as the table has it.
        argv: the words after ``fastcal``; paths are relative to the working folder.
        needs: files and folders of the world that are copied into the working folder.
        out: what it writes.
        arrange: makes the variant of the inputs that the command line is about.
        resumes: the outputs are there before: they may be rewritten.
    """

    name: str
    argv: tuple[str, ...]
    needs: tuple[str, ...]
    out: str
    arrange: Prepare | None = None
    resumes: bool = False

    @property
    def key(self) -> str:
        """Tells commands with one result from each other."""
        made = "" if self.arrange is None else self.arrange.__qualname__
        return f"{self.name}|{' '.join(self.argv)}|{made}"

    def with_options(self, *words: str) -> Command:
        """The same command line with further words."""
        return Command(
            self.name, (*self.argv, *words), self.needs, self.out, self.arrange, self.resumes
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A kind of bad input.

    Args:
        name: ``"command: what, damage"``; unique.
        command: what is run last; None where `script` does it all.
        damage: done to the working folder first.
        steps: command lines that come before, each with what is done to the folder after it.
        expected: of the last command.
        names: the message must hold one of these words.
        check: of the results, where they are not compared with those of the undamaged input.
        stale: wrong results are what an earlier run left.
        stops: a step may be refused already, which is then what is judged.
        script: in place of a command.
        group: file of tests that runs it.
    """

    name: str
    group: str
    command: Command | None = None
    damage: Prepare | None = None
    steps: tuple[tuple[tuple[str, ...], Prepare | None], ...] = ()
    expected: Expected = Expected.REFUSED
    names: tuple[str, ...] = ()
    check: Check | None = None
    stale: bool = False
    stops: bool = False
    script: Script | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """The verdict on a kind, and the line it rests on."""

    kind: str
    verdict: Verdict
    message: str = ""
    seconds: float = 0.0


@dataclass(slots=True)
class Table:
    """Kinds in order, each name once."""

    kinds: dict[str, Kind] = field(default_factory=dict)

    def add(self, kinds: Iterable[Kind]) -> None:
        """Add kinds.

        Raises:
            ValueError: a name is there already.
        """
        for kind in kinds:
            if kind.name in self.kinds:
                raise ValueError(f"two kinds are named {kind.name!r}")
            self.kinds[kind.name] = kind
