"""Plain arguments of public functions, checked by type and named in the message.

Without these a wrong type would surface deep inside an op, in a message about C++ casts.
"""

from __future__ import annotations

import operator
from numbers import Real


def whole_number(value: object, name: str) -> int:
    """``value`` as an int: any integer type (NumPy's too), but no bool.

    Raises:
        TypeError: It is something else.
    """
    if type(value) is int:
        return value
    if not isinstance(value, bool):
        try:
            return operator.index(value)  # type: ignore[arg-type]
        except TypeError:
            pass
    raise TypeError(f"{name} must be an integer, got {_described(value)}")


def real_number(value: object, name: str) -> float:
    """``value`` as a float: any real number, NumPy's and tensors of one element too, but no bool.

    Raises:
        TypeError: It is something else.
    """
    if type(value) is float:
        return value
    number = value.item() if getattr(value, "ndim", None) == 0 else value  # type: ignore[attr-defined]
    if not isinstance(number, bool) and isinstance(number, Real):
        return float(number)
    raise TypeError(f"{name} must be a number, got {_described(value)}")


def flag(value: object, name: str) -> bool:
    """``value``, which must be True or False.

    Raises:
        TypeError: It is something else (a string, say, which would count as True).
    """
    if isinstance(value, bool):
        return value
    raise TypeError(f"{name} must be True or False, got {_described(value)}")


def _described(value: object) -> str:
    if isinstance(value, str | bool | int | float | None):
        return repr(value)
    return type(value).__name__
