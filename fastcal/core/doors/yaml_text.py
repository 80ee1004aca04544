"""The gate of YAML: the values of JSON alone, bounded in size, depth and expansion."""

from __future__ import annotations

import math
import re
from functools import cache
from pathlib import Path
from typing import Any

from fastcal.core.doors.bounds import KIB
from fastcal.core.doors.failures import clean, problem, shown
from fastcal.core.doors.opening import read_text
from fastcal.core.doors.schema import validated
from fastcal.core.errors import DataError

DEEPEST = 50
"""Levels of nesting."""

MOST_VALUES = 20_000
"""Values of a document, each alias counted as all that it stands for."""

_LARGEST = 2**64
_TAGS = ("null", "bool", "int", "float", "str", "seq", "map", "merge")
_SEXAGESIMAL = re.compile(r"[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+(?:\.[0-9_]*)?")


def parse_yaml(text: str) -> Any:
    r"""Parse one YAML document of plain values.

    What comes out is what JSON can hold: text, finite numbers, true, false, null, lists, and maps
    whose names are text and stand once each. Dates and ``1:30`` (in base 60 for YAML 1.1) are
    text. Anchors and ``<<`` work as long as they do not stand for more than 20,000 values.

    Args:
        text: The document.

    Raises:
        ValueError: It is none; the message is one line.

    Example:
        >>> parse_yaml("loss: {name: ce}\nstart: 12:30")
        {'loss': {'name': 'ce'}, 'start': '12:30'}
    """
    import yaml

    try:
        _check_expansion(text)
        return yaml.load(text, Loader=_loader())
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f", line {mark.line + 1} column {mark.column + 1}" if mark is not None else ""
        raise ValueError(clean(error.problem or error.context or "no YAML") + where) from None
    except (yaml.YAMLError, ValueError) as error:
        raise ValueError(clean(str(error))) from None
    except Exception as error:
        # PyYAML's converters fail in their own ways on what a tag forces on them: "!!int ''".
        raise ValueError(problem(error, "YAML")) from error


def read_yaml(path: str | Path, model: Any = None, *, most_bytes: int = 256 * KIB) -> Any:
    """Read a YAML file; see `parse_yaml`.

    Args:
        path: The file, UTF-8.
        model: What `validated` takes; None returns the plain values.
        most_bytes: Larger files are refused: the parser reads about 200 KiB per second.

    Raises:
        MissingFileError: There is no such file.
        DataError: It is no YAML, or it does not fit the model.
    """
    text = read_text(path, most_bytes=most_bytes)
    try:
        content = parse_yaml(text)
    except ValueError as error:
        raise DataError(path, f"not YAML ({clean(str(error))})") from error
    except Exception as error:
        raise DataError(path, problem(error, "YAML")) from error
    return content if model is None else validated(path, content, model)


def _check_expansion(text: str) -> None:
    """Count values by the parser's events, which neither nest nor follow aliases."""
    import yaml

    sizes: dict[str, int] = {}  # of what an anchor stands for
    opened: list[tuple[str | None, int]] = []  # anchors and the count before them
    count = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.CollectionStartEvent):
            opened.append((event.anchor, count))
            count += 1
            if event.anchor is not None:
                sizes.pop(event.anchor, None)
            if len(opened) > DEEPEST:
                raise ValueError(f"nested more than {DEEPEST} levels deep")
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = opened.pop()
            if anchor is not None:
                sizes[anchor] = count - before
        elif isinstance(event, yaml.ScalarEvent):
            count += 1
            if event.anchor is not None:
                sizes[event.anchor] = 1
        elif isinstance(event, yaml.AliasEvent):
            if event.anchor not in sizes:
                raise ValueError(f"the alias {shown(event.anchor)} has nothing whole to stand for")
            count += sizes[event.anchor]
        if count > MOST_VALUES:
            raise ValueError(f"more than {MOST_VALUES} values, aliases included")


@cache
def _loader() -> Any:
    import yaml

    class PlainLoader(yaml.SafeLoader):  # type: ignore[misc]
        """Knows the values of JSON alone."""

        # Both tables are the class's own: PyYAML's are shared by all its loaders.
        yaml_implicit_resolvers = {  # noqa: RUF012
            first: [(tag, how) for tag, how in known if tag.rpartition(":")[2] in _TAGS]
            for first, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
        }
        yaml_constructors = {  # noqa: RUF012
            tag: how
            for tag, how in yaml.SafeLoader.yaml_constructors.items()
            if tag is None or tag.rpartition(":")[2] in _TAGS
        }

        def construct_mapping(self, node: Any, deep: bool = False) -> dict[str, Any]:
            if isinstance(node, yaml.MappingNode):
                written = [key for key, _ in node.value if key.tag != _MERGE]
                seen: set[str] = set()
                for key in written:
                    name = self._name(key)
                    if name in seen:
                        raise yaml.constructor.ConstructorError(
                            None, None, f"{shown(name)} stands twice", key.start_mark
                        )
                    seen.add(name)
            content: dict[str, Any] = super().construct_mapping(node, deep)
            return content

        def _name(self, key: Any) -> str:
            name = self.construct_object(key) if isinstance(key, yaml.ScalarNode) else key
            if not isinstance(name, str):
                got = shown(name) if isinstance(key, yaml.ScalarNode) else "a list or map"
                raise yaml.constructor.ConstructorError(
                    None, None, f"names must be text, got {got}", key.start_mark
                )
            return name

        def _integer(self, node: Any) -> Any:
            text = self.construct_scalar(node)
            if _SEXAGESIMAL.fullmatch(text):
                return text
            if len(text) > 70 or abs(number := self.construct_yaml_int(node)) >= _LARGEST:
                raise yaml.constructor.ConstructorError(
                    None, None, "integers must have at most 64 bits", node.start_mark
                )
            return number

        def _real(self, node: Any) -> Any:
            text = self.construct_scalar(node)
            if _SEXAGESIMAL.fullmatch(text):
                return text
            if not math.isfinite(number := self.construct_yaml_float(node)):
                raise yaml.constructor.ConstructorError(
                    None, None, f"numbers must be finite, got {text[:30]}", node.start_mark
                )
            return number

    PlainLoader.add_constructor("tag:yaml.org,2002:int", PlainLoader._integer)
    PlainLoader.add_constructor("tag:yaml.org,2002:float", PlainLoader._real)
    return PlainLoader


_MERGE = "tag:yaml.org,2002:merge"
