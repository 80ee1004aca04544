"""Bad input of `fastcal evaluate`, and scores that must not be silently wrong."""

from __future__ import annotations

import pytest

from .checks import check, kinds_of
from .session import Session


@pytest.mark.parametrize("name", kinds_of("evaluate", "scores"))
def test_evaluate_refuses_or_is_right(session: Session, name: str) -> None:
    check(session, name)
