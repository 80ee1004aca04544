"""Errors that fastcal raises besides ``TypeError`` and ``ValueError``."""

from __future__ import annotations

import re
from pathlib import Path

_QUOTED = re.compile(r"(['\"])((?:(?!\1).){160,})\1")
"""A quoted value that is too long for a line."""


class DataError(ValueError):
    """A file or folder does not hold what was expected of it.

    ``str(error)`` is one line that begins with the path, so a command can print it as it is.

    Args:
        path: The file or folder.
        problem: What is wrong with it, one sentence. It may quote what the file holds: line breaks
            become spaces, other control characters question marks, and long values are cut.

    Example:
        >>> str(DataError("labels/case_1.nii.gz", "truncated gzip stream"))
        'labels/case_1.nii.gz: truncated gzip stream'
    """

    def __init__(self, path: str | Path, problem: str) -> None:
        self.path = Path(path)
        self.problem = _one_line(problem)
        super().__init__(f"{path}: {self.problem}")

    def __reduce__(self) -> tuple[type[DataError], tuple[Path, str]]:
        return type(self), (self.path, self.problem)


class DataWarning(UserWarning):
    """A file is read, but not as its writer may have meant it; the message begins with the path.

    Commands print each as one line. `warnings.filterwarnings` can turn them into errors.

    Args:
        path: The file.
        problem: What is odd about it and what was made of it, one sentence.

    Example:
        >>> str(DataWarning("labels/case_1.nii.gz", "the sform is singular; the qform counts"))
        'labels/case_1.nii.gz: the sform is singular; the qform counts'
    """

    def __init__(self, path: str | Path, problem: str) -> None:
        self.path = Path(path)
        super().__init__(f"{path}: {_one_line(problem)}")

    def __reduce__(self) -> tuple[type[DataWarning], tuple[Path, str]]:
        return type(self), (self.path, str(self).removeprefix(f"{self.path}: "))


def _one_line(problem: str) -> str:
    line = " ".join(problem.split())
    line = "".join(character if character.isprintable() else "?" for character in line)
    return _QUOTED.sub(
        lambda found: f"{found[1]}{found[2][:80]}...{found[2][-40:]}{found[1]}", line
    )
