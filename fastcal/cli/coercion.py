"""Words of the command line become values, or are refused, before anything heavy is imported."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from pathlib import Path
from types import MethodType
from typing import Any, get_args, get_origin

from fastcal.core.errors import DataError


def read_plainly(param: Any) -> None:
    """Let a parameter of numbers, names, paths or choices read its words itself.

    Typer builds a validator of pydantic for each parameter, and a wrong word is then told in
    pydantic's phrases. Releases of typer that do not are left as they are, and so is a parameter of
    another kind.

    Args:
        param: An option or argument of a command.
    """
    described = getattr(param, "type_descriptor", None)
    if described is None or not hasattr(param, "get_runtime_param"):
        return
    annotation = described.annotation
    kind = get_args(annotation)[0] if get_origin(annotation) is list else annotation
    if kind in (str, int, float, bool, Path) or (isinstance(kind, type) and issubclass(kind, Enum)):
        info = described.parameter_info
        plain = PlainWords(
            kind,
            least=getattr(info, "min", None),
            most=getattr(info, "max", None),
        )
        param.get_runtime_param = MethodType(lambda _: plain, param)
        # The help says in words what needs saying, and typer would add "x>=0" to it.
        param.min = param.max = None


def check_paths(params: Iterable[Any], values: Mapping[str, Any]) -> None:
    """Refuse paths that are not there, of parameters that are declared with ``exists=True``.

    Args:
        params: The parameters of a command.
        values: Their values by name.

    Raises:
        DataError: A path is not there.
    """
    for param in params:
        described = getattr(param, "type_descriptor", None)
        if not getattr(getattr(described, "parameter_info", None), "exists", False):
            continue
        value = values.get(param.name)
        for path in [value] if isinstance(value, Path) else value or ():
            if not path.exists():
                noun = "file" if param.metavar == "FILE" else "folder"
                raise DataError(path, f"no such {noun}")


def shaped(flag: str, pattern: str, form: str) -> Callable[[Any], Any]:
    """Return the callback of an option whose words have a form of their own.

    The function of the command checks them too, and knows more; this answers before it is loaded.

    Args:
        flag: The option.
        pattern: Regular expression that a word matches as a whole.
        form: What the message says that a word must be.

    Example:
        >>> shaped("--device", "cpu|cuda", "cpu or cuda")("gpu")
        Traceback (most recent call last):
        ValueError: --device must be cpu or cuda, got 'gpu'
    """

    def check(value: Any) -> Any:
        for word in [value] if isinstance(value, str) else value or ():
            if not re.fullmatch(pattern, word):
                raise ValueError(f"{flag} must be {form}, got {word!r}")
        return value

    return check


class PlainWords:
    """What typer asks for the value of a parameter.

    Args:
        kind: Type of one value.
        least: Smallest number, None where any will do.
        most: Largest number.
    """

    def __init__(self, kind: Any, *, least: float | None, most: float | None) -> None:
        self._kind = kind
        self._least, self._most = least, most

    def coerce(self, value: Any, param: Any, ctx: Any) -> Any:
        """Return the value of the words, a list for an option that may be repeated.

        Raises:
            ValueError: A word cannot be read, or a number is out of range.
        """
        del ctx
        if param.multiple or param.nargs == -1:
            return [self._one(word, param) for word in value or ()]
        return None if value is None else self._one(value, param)

    def _one(self, word: Any, param: Any) -> Any:
        if isinstance(self._kind, type) and isinstance(word, self._kind):
            return word
        try:
            value = self._kind(word)
        except ValueError:
            raise ValueError(f"{_name(param)} must be {self._expected()}, got {word!r}") from None
        self._check_range(value, param)
        return value

    def _check_range(self, value: Any, param: Any) -> None:
        least, most = self._least, self._most
        if (least is None or value >= least) and (most is None or value <= most):
            return
        name = _name(param)
        shown = f"{value:g}" if isinstance(value, float) else str(value)
        if most is None:
            raise ValueError(f"{name} must be at least {least}, got {shown}")
        raise ValueError(f"{name} must be from {least} to {most}, got {shown}")

    def _expected(self) -> str:
        if issubclass(self._kind, Enum):
            return f"one of {', '.join(repr(str(one.value)) for one in self._kind)}"
        return "a whole number" if self._kind is int else "a number"


def _name(param: Any) -> str:
    return str(param.metavar if param.param_type_name == "argument" else param.opts[-1])
