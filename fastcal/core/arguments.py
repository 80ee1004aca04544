"""Checks of plain arguments of public functions, with messages that name the argument.

Without them a wrong type would surface deep inside an op, in a message about C++ casts.
"""

from __future__ import annotations

import operator
from collections.abc import Collection
from numbers import Real


def whole_number(value: object, name: str) -> int:
    """Read an integer of any type, NumPy's among them, but no bool.

    Raises:
        TypeError: ``value`` is something else.

    Example:
        >>> whole_number(3.0, "n_bins")
        Traceback (most recent call last):
        TypeError: n_bins must be an integer, got 3.0
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
    """Read a real number of any type, but no bool.

    NumPy's numbers and tensors without axes are numbers too.

    Raises:
        TypeError: ``value`` is something else.
    """
    if type(value) is float:
        return value
    number = value.item() if getattr(value, "ndim", None) == 0 else value  # type: ignore[attr-defined]
    if not isinstance(number, bool) and isinstance(number, Real):
        return float(number)
    raise TypeError(f"{name} must be a number, got {_described(value)}")


def flag(value: object, name: str) -> bool:
    """Read True or False.

    Raises:
        TypeError: ``value`` is something else, for example a string, which would count as True.
    """
    if isinstance(value, bool):
        return value
    raise TypeError(f"{name} must be True or False, got {_described(value)}")


def choice(value: object, name: str, allowed: Collection[str]) -> str:
    """Read one of a few words.

    Raises:
        ValueError: ``value`` is not among ``allowed``.

    Example:
        >>> choice("relu", "activation", ("softmax", "sigmoid"))
        Traceback (most recent call last):
        ValueError: activation must be 'softmax' or 'sigmoid', got 'relu'
    """
    if isinstance(value, str) and value in allowed:
        return value
    *others, last = map(repr, allowed)
    words = f"{', '.join(others)} or {last}" if others else last
    raise ValueError(f"{name} must be {words}, got {_described(value)}")


def _described(value: object) -> str:
    if isinstance(value, str | bool | int | float | None):
        return repr(value)
    return type(value).__name__
