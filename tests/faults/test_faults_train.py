"""Bad input of `fastcal train`: datasets, settings, options, runs that go on."""

from __future__ import annotations

import pytest

from .checks import check, kinds_of
from .session import Session


@pytest.mark.parametrize("name", kinds_of("train", "train_options", "train_again"))
def test_train_refuses_or_is_right(session: Session, name: str) -> None:
    check(session, name)
