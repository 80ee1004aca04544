"""The warm process of the kinds."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .session import Session


@pytest.fixture(scope="session")
def session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    """A warm process with a world of its own."""
    with Session(tmp_path_factory.mktemp("faults")) as opened:
        yield opened
