"""What was read, checked against a pydantic model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastcal.core.doors.failures import clean, one_error, shown
from fastcal.core.errors import DataError

_MOST_NAMED = 3
"""Problems that a message names; a file of another program has hundreds."""


def validated(path: str | Path, content: object, model: Any, *, where: str = "") -> Any:
    """Check content against a model.

    Args:
        path: The file it came from, for the message.
        content: What was read: plain values.
        model: A pydantic model, or anything that `pydantic.TypeAdapter` takes, such as
            ``dict[str, int]``.
        where: Where in the file the content stands, such as ``"line 3"``.

    Returns:
        What the model makes of it.

    Raises:
        DataError: It does not fit; the message names the first three places.

    Example:
        >>> validated("split.json", {"train": "a"}, dict[str, list[str]])
        Traceback (most recent call last):
        fastcal.core.errors.DataError: split.json: train must be a valid list, got 'a'
    """
    from pydantic import TypeAdapter, ValidationError

    try:
        with one_error(path, "what is expected here"):
            try:
                return TypeAdapter(model).validate_python(content)
            except ValidationError as error:
                problems = error.errors(include_url=False, include_context=False)
                raise DataError(path, _sentence(problems, where)) from None
    except DataError as error:
        error.__suppress_context__ = True
        raise


def _sentence(problems: list[Any], where: str) -> str:
    named = [described(problem) for problem in problems[:_MOST_NAMED]]
    if len(problems) > _MOST_NAMED:
        named.append(f"and {len(problems) - _MOST_NAMED} more")
    return (f"{where}: " if where else "") + "; ".join(named)


def described(problem: Any) -> str:
    """One of pydantic's problems in the words of every other error.

    Args:
        problem: An entry of ``ValidationError.errors()``.

    Example:
        >>> described({"loc": ("n",), "type": "int_type", "msg": "Input should be 3", "input": "a"})
        "n must be 3, got 'a'"
    """
    place = clean(".".join(str(part)[:60] for part in problem["loc"])) or "the content"
    kind, message = problem["type"], clean(problem["msg"])
    if kind == "missing":
        return f"{place} is missing"
    if kind == "extra_forbidden":
        return f"{place} is not known"
    for start in ("Input should be ", "Value error, ", "Assertion failed, "):
        if message.startswith(start):
            message = message.removeprefix(start)
            if start != "Input should be ":
                return f"{place}: {message}"
            return f"{place} must be {message}, got {shown(problem['input'])}"
    return f"{place}: {message[:1].lower()}{message[1:]}, got {shown(problem['input'])}"
