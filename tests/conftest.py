"""Options, the skips of markers, and the fixture that runs a test on every implementation."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from browser import browser as browser
from engines import ENGINES, Engine, using
from hypothesis import HealthCheck, settings

settings.register_profile(
    "fastcal",
    max_examples=25,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
settings.load_profile("fastcal")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--data-dir",
        type=Path,
        default=None,
        help="folder of the hippocampus cases (nnU-Net raw layout) for tests marked `data`",
    )
    parser.addoption("--slow", action="store_true", help="run tests marked `slow`, of minutes each")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    reasons = {}
    if not torch.cuda.is_available():
        reasons["gpu"] = "gpu: torch.cuda.is_available() is False"
    if not config.getoption("--slow"):
        reasons["slow"] = "slow: no --slow given"
    folder = config.getoption("--data-dir")
    if folder is None:
        reasons["data"] = "data: no --data-dir given"
    elif not folder.is_dir():
        reasons["data"] = f"data: --data-dir {folder} is not a folder"
    for item in items:
        for marker, reason in reasons.items():
            if item.get_closest_marker(marker) is not None:
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def data_dir(request: pytest.FixtureRequest) -> Path:
    """The folder given by ``--data-dir``; for tests marked `data`."""
    folder = request.config.getoption("--data-dir")
    assert isinstance(folder, Path)
    return folder


@pytest.fixture(params=ENGINES, ids=str)
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    """Every backend and every instruction set this machine runs; the test's calls go to it."""
    chosen: Engine = request.param
    with using(chosen):
        yield chosen


@pytest.fixture
def two_threads() -> Iterator[None]:
    """Two threads for torch and for the kernels, whatever the machine's default."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)
