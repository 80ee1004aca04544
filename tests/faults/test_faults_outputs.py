"""Outputs where inputs are, things that are there twice, and bad input of `fastcal demo`."""

from __future__ import annotations

import pytest

from .checks import check, kinds_of
from .session import Session


@pytest.mark.parametrize("name", kinds_of("outputs", "demo"))
def test_nothing_of_the_users_is_lost(session: Session, name: str) -> None:
    check(session, name)
