"""Bad input of `fastcal report` and `view`, of Zarr folders, and of what is read slab by slab."""

from __future__ import annotations

import pytest

from .checks import check, kinds_of
from .session import Session


@pytest.mark.parametrize("name", kinds_of("shown"))
def test_bad_input_of_what_is_shown_is_refused_or_handled(session: Session, name: str) -> None:
    check(session, name)
