"""Bad input of `fastcal ensemble`, and runs that go on or are mixed with others."""

from __future__ import annotations

import pytest

from .checks import check, kinds_of
from .session import Session


@pytest.mark.parametrize("name", kinds_of("ensemble", "joins"))
def test_ensemble_refuses_or_is_right(session: Session, name: str) -> None:
    check(session, name)
