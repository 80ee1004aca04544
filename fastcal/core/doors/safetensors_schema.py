"""One entry of the header of a safetensors file; imported when such a file is read."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Extent = Annotated[int, Field(ge=0, lt=2**63)]


class Entry(BaseModel):
    """Type, shape and place of a tensor."""

    model_config = ConfigDict(strict=True, extra="forbid")

    dtype: str
    shape: Annotated[list[Extent], Field(max_length=32)]
    data_offsets: Annotated[list[Extent], Field(min_length=2, max_length=2)]
