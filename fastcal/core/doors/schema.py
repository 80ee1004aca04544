"""What was read, checked against a pydantic model."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

from fastcal.core.doors.failures import clean, one_error, shown
from fastcal.core.errors import DataError

_BRANCH = re.compile(r"(?:tuple|list|dict|literal|function-\w+|constrained-\w+)\[.*")
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
    from pydantic import ValidationError

    try:
        with one_error(path, "what is expected here"):
            try:
                return _adapter(model).validate_python(content)
            except ValidationError as error:
                problems = error.errors(include_url=False, include_context=False)
                raise DataError(path, _sentence(problems, where)) from None
    except DataError as error:
        error.__suppress_context__ = True
        raise


@cache
def _adapter(model: Any) -> Any:
    """Made once per model, which takes longer than the checking of a line of a log."""
    from pydantic import TypeAdapter

    return TypeAdapter(model)


def _sentence(problems: list[Any], where: str) -> str:
    named = [described(problem) for problem in problems[:_MOST_NAMED]]
    if len(problems) > _MOST_NAMED:
        named.append(f"and {len(problems) - _MOST_NAMED} more")
    return (f"{where}: " if where else "") + "; ".join(named)


def place_of(loc: Iterable[int | str]) -> str:
    """The place of a problem as a dotted name, without pydantic's names of a union's branches.

    Example:
        >>> place_of(("sampling", "patch", "tuple[int, ...]", 0))
        'sampling.patch.0'
    """
    return clean(".".join(str(part)[:60] for part in loc if not _BRANCH.fullmatch(str(part)[:60])))


def described(problem: Any) -> str:
    """One of pydantic's problems in the words of every other error.

    Args:
        problem: An entry of ``ValidationError.errors()``.

    Example:
        >>> described({"loc": ("n",), "type": "int_type", "msg": "Input should be 3", "input": "a"})
        "n must be 3, got 'a'"
    """
    named = place_of(problem["loc"])
    place = named or "the content"
    kind, message = problem["type"], clean(problem["msg"])
    if kind == "missing":
        return f"{place} is missing"
    if kind in ("extra_forbidden", "unexpected_keyword_argument"):
        return f"{place} is not known"
    for start in ("Input should be ", "Value error, ", "Assertion failed, "):
        if message.startswith(start):
            message = message.removeprefix(start)
            if start != "Input should be ":
                return f"{named}: {message}" if named else message
            return f"{place} must be {message}, got {shown(problem['input'])}"
    return f"{place}: {message[:1].lower()}{message[1:]}, got {shown(problem['input'])}"
