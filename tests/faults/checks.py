"""What the files of tests have in common: the kinds of a group, and the assertion on one."""

from __future__ import annotations

import zlib
from typing import Any

import pytest

from .kinds import Verdict
from .registry import group
from .session import Session, known_failures

SAMPLE = 12
"""`make test` does every twelfth kind that passes, chosen by its name; `make test-all` does all."""


def kinds_of(*groups: str) -> list[Any]:
    """Parameters of a test: the names of kinds, most of them marked slow."""
    known = known_failures()
    found = []
    for name in (name for one in groups for name in group(one)):
        quick = zlib.crc32(name.encode()) % SAMPLE == 0 and name not in known
        found.append(pytest.param(name, marks=[] if quick else [pytest.mark.slow]))
    return found


def check(session: Session, name: str) -> None:
    """A kind passes, or fails as ``known.txt`` says: a mend removes its line there."""
    result = session.judge(name)
    wanted = known_failures().get(name, Verdict.PASS)
    assert result.verdict is wanted, f"{result.verdict}, known as {wanted}: {result.message}"
