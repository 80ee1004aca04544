"""The gate of JSON: bounded in size, depth and numbers; checked against a model."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

from fastcal.core.doors.bounds import MIB
from fastcal.core.doors.failures import clean, problem, shown
from fastcal.core.doors.opening import read_text
from fastcal.core.doors.schema import validated
from fastcal.core.errors import DataError

DEEPEST = 100
"""Levels of nesting. The parser's own limit depends on the caller's stack."""

_LARGEST = 2**64
"""Integers end here: whatever reads them keeps them in 64 bits."""

_LONG_NUMBER = re.compile(r"[0-9]{19}|[eE]\+?[0-9]{3}")
"""What may be a number out of range; where it is absent, the parser's own conversion is used."""

_BRACKETS = re.compile(r'"(?:[^"\\]|\\.)*+"?|[\[\]{}]', re.DOTALL)
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def parse_json(text: str, *, finite: bool = True) -> Any:
    """Parse JSON as RFC 8259 has it.

    Beyond what `json.loads` refuses, there may be neither NaN nor infinity, no integer beyond
    64 bits, no name that stands twice in one object, and no more than 100 levels.

    Args:
        text: One JSON value.
        finite: False takes ``NaN`` and ``Infinity``, which `json.dumps` writes unless it is told
            otherwise.

    Raises:
        ValueError: It is none; the message is one line.

    Example:
        >>> parse_json('{"labels": {"background": 0}}')
        {'labels': {'background': 0}}
        >>> parse_json('{"a": 1, "a": 2}')
        Traceback (most recent call last):
        ValueError: 'a' stands twice in one object
    """
    if text.count("[") + text.count("{") > DEEPEST:
        _check_depth(text)
    careful: dict[str, Any] = {"parse_constant": _constant} if finite else {}
    if _LONG_NUMBER.search(text):
        careful |= {"parse_int": _integer, "parse_float": _real if finite else float}
    try:
        content = json.loads(text, object_pairs_hook=_object, **careful)
    except json.JSONDecodeError as error:
        raise ValueError(f"{error.msg}, line {error.lineno} column {error.colno}") from None
    if _SURROGATE.search(text):
        _check_characters(content)
    return content


def read_json(path: str | Path, model: Any = None, *, most_bytes: int = 64 * MIB) -> Any:
    """Read a JSON file.

    Args:
        path: The file, UTF-8.
        model: What `validated` takes; None returns the plain values.
        most_bytes: Larger files are refused. Values take up to 30 times the memory of their text.

    Returns:
        What the model makes of the content, or the plain values.

    Raises:
        MissingFileError: There is no such file.
        DataError: It is no JSON, or it does not fit the model.

    Example:
        >>> read_json("splits.json", dict[str, list[str]])  # doctest: +SKIP
        {'train': ['case_1', 'case_2'], 'val': ['case_3']}
    """
    text = read_text(path, most_bytes=most_bytes)
    content = _parsed(path, text, "")
    return content if model is None else validated(path, content, model)


def read_json_lines(
    path: str | Path, model: Any = None, *, most_bytes: int = 64 * MIB
) -> list[Any]:
    """Read a file of one JSON value per line.

    A last line that does not end in a line break is still being written and is left out.

    Args:
        path: The file, UTF-8.
        model: What `validated` takes, for each line; None returns the plain values.
        most_bytes: Larger files are refused.

    Raises:
        MissingFileError: There is no such file.
        DataError: A line is no JSON, or it does not fit the model; the message has its number.
    """
    *lines, _ = read_text(path, most_bytes=most_bytes).split("\n")
    values = []
    for number, line in enumerate(lines, start=1):
        where = f"line {number}"
        value = _parsed(path, line, f"{where}: ")
        values.append(value if model is None else validated(path, value, model, where=where))
    return values


def _parsed(path: str | Path, text: str, where: str) -> Any:
    try:
        return parse_json(text)
    except ValueError as error:
        raise DataError(path, f"{where}not JSON ({clean(str(error))})") from error
    except (RecursionError, MemoryError) as error:
        raise DataError(path, where + problem(error, "JSON")) from error


def _check_depth(text: str) -> None:
    depth = 0
    for match in _BRACKETS.finditer(text):
        mark = match[0]
        if mark in "[{":
            depth += 1
            if depth > DEEPEST:
                raise ValueError(f"nested more than {DEEPEST} levels deep")
        elif mark in "]}":
            depth -= 1


def _integer(text: str) -> int:
    number = int(text) if len(text) <= 21 else _LARGEST
    if abs(number) >= _LARGEST:
        raise ValueError(f"integers must have at most 64 bits, got one of {len(text)} digits")
    return number


def _real(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"numbers must be finite, got {text[:30]}")
    return number


def _constant(name: str) -> float:
    raise ValueError(f"numbers must be finite, got {name}")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise ValueError(f"{shown(twice)} stands twice in one object")
    return content


def _check_characters(content: object) -> None:
    """Refuse halves of surrogate pairs, which no file and no terminal takes."""
    try:
        json.dumps(content, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise ValueError("half of a surrogate pair, which is no character") from None
