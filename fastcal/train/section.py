"""What all sections of the settings have in common: no unknown names, and numbers in bounds."""

from __future__ import annotations

from typing import Annotated, Any, get_args

from pydantic import BaseModel, ConfigDict, Field, field_validator
from pydantic.fields import FieldInfo
from pydantic_core.core_schema import ValidationInfo

Count = Annotated[int, Field(ge=1, le=10**9)]
"""Steps or epochs, which cost time alone."""
BatchSize = Annotated[int, Field(ge=1, le=65_536)]
Extent = Annotated[int, Field(ge=1, le=65_536)]
Extents = Annotated[tuple[Extent, ...], Field(min_length=2, max_length=3)]
"""Of an item or a patch, one per axis."""
Millimetres = Annotated[float, Field(gt=0)]
Weight = Annotated[float, Field(ge=0)]
Decay = Annotated[float, Field(ge=0, lt=1)]


class Section(BaseModel):
    """Settings of one concern; frozen, finite, without unknown names."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False
    )

    @field_validator("*", mode="before")
    @classmethod
    def _no_number_is_a_truth(cls, value: Any, info: ValidationInfo) -> Any:
        """Refuse ``true`` where a number is meant, which Python would take for 1."""
        field = cls.model_fields[info.field_name or ""]
        if _holds_truth(value) and not _takes_truth(field):
            raise ValueError("a number or a word, not true or false")
        return value


def _holds_truth(value: object) -> bool:
    if isinstance(value, list | tuple):
        return any(isinstance(one, bool) for one in value)
    return isinstance(value, bool)


def _takes_truth(field: FieldInfo) -> bool:
    return field.annotation is bool or bool in get_args(field.annotation)
