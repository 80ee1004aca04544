"""Structs that an op takes as one argument per field: schema, and the way there and back.

The schema of an op lists scalars and tensors, no structs. Its order is that of the fields here, so
a struct's definition is the one place that knows it.
"""

from __future__ import annotations

from typing import Any, ClassVar, Self

_SCHEMA_TYPES = {
    "bool": "bool",
    "int": "int",
    "float": "float",
    "str": "str",
    "Tensor": "Tensor",
    "int | None": "int?",
    "Tensor | None": "Tensor?",
}
"""Annotation of a field to its type in a schema."""


def schema_of(struct: type) -> str:
    """Write the fields of a dataclass or NamedTuple as ``torch.library`` reads them."""
    found = struct.__annotations__
    types = {name: getattr(it, "__forward_arg__", it) for name, it in found.items()}
    return ", ".join(f"{_SCHEMA_TYPES[str(types[name])]} {name}" for name in types)


class OpArguments:
    """Base of a frozen dataclass whose fields are consecutive arguments of an op.

    Fields are annotated with the types of `_SCHEMA_TYPES`.

    Example:
        >>> from fastcal.core.problem import GapBins
        >>> GapBins.schema()
        'int count, bool soft'
        >>> GapBins.unflatten(GapBins(20, soft=True).flatten())
        GapBins(count=20, soft=True)
    """

    __slots__ = ()
    # Names of the fields in order, which @dataclass adds to a subclass.
    __match_args__: ClassVar[tuple[str, ...]]

    @classmethod
    def schema(cls) -> str:
        """The arguments as ``torch.library`` reads them."""
        return schema_of(cls)

    @classmethod
    def width(cls) -> int:
        """How many arguments there are."""
        return len(cls.__match_args__)

    def flatten(self) -> tuple[Any, ...]:
        """The arguments, in the order of the schema."""
        return tuple([getattr(self, name) for name in self.__match_args__])

    @classmethod
    def unflatten(cls, flat: tuple[Any, ...]) -> Self:
        """The struct of these arguments."""
        return cls(*flat)
