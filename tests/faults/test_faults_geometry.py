"""Where arrays lie, what a millimetre is, and axes of extent 1."""

from __future__ import annotations

import pytest

from .checks import check, kinds_of
from .session import Session


@pytest.mark.parametrize("name", kinds_of("orientations", "shapes", "units"))
def test_geometry_is_right(session: Session, name: str) -> None:
    check(session, name)
