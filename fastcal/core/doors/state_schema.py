"""The header of a state file; imported when such a file is read."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict


class Header(BaseModel):
    """What the file says of itself."""

    model_config = ConfigDict(strict=True, extra="forbid")

    format: str
    version: int
    settings: dict[str, Any]
