"""Bad input of `fastcal recalibrate` and `fastcal merge`."""

from __future__ import annotations

import pytest

from .checks import check, kinds_of
from .session import Session


@pytest.mark.parametrize("name", kinds_of("recalibrate", "merge"))
def test_recalibrate_refuses_or_is_right(session: Session, name: str) -> None:
    check(session, name)
