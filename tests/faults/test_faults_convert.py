"""Bad input of `fastcal convert`."""

from __future__ import annotations

import pytest

from .checks import check, kinds_of
from .session import Session


@pytest.mark.parametrize("name", kinds_of("convert"))
def test_convert_refuses_or_is_right(session: Session, name: str) -> None:
    check(session, name)
