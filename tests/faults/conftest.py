"""The marker of the kinds that only ``make test-all`` does, and the warm process."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .session import Session


def pytest_configure(config: pytest.Config) -> None:
    """Register ``slow``."""
    config.addinivalue_line("markers", "slow: done by `make test-all`, or -m 'slow or not slow'")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is slow, unless the expression of -m speaks of it."""
    if "slow" in config.getoption("markexpr", default=""):
        return
    left = [item for item in items if item.get_closest_marker("slow") is not None]
    if left:
        config.hook.pytest_deselected(items=left)
        items[:] = [item for item in items if item.get_closest_marker("slow") is None]


@pytest.fixture(scope="session")
def session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    """A warm process with a world of its own."""
    with Session(tmp_path_factory.mktemp("faults")) as opened:
        yield opened
