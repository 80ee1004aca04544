"""Bad input of `fastcal predict` and `fastcal export`: run folders, images, options."""

from __future__ import annotations

import pytest

from .checks import check, kinds_of
from .session import Session


@pytest.mark.parametrize("name", kinds_of("predict", "predict_keys", "export"))
def test_predict_refuses_or_is_right(session: Session, name: str) -> None:
    check(session, name)
