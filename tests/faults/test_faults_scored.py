"""Bad input of `fastcal quality`, `ood` and `status`."""

from __future__ import annotations

import pytest

from .checks import check, kinds_of
from .session import Session


@pytest.mark.parametrize("name", kinds_of("scored"))
def test_bad_scores_are_refused_or_handled(session: Session, name: str) -> None:
    check(session, name)
