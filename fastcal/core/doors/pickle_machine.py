"""A pickle read as data: a small machine that builds plain values and calls nothing.

A pickle is a program. ``pickle.load`` calls whatever it names, and even one that names nothing
can hang it: a tuple that holds itself twice, forty times over, takes a second for a trillion
hashes once it is a key; an index of four bytes makes the memo take 32 GB. This machine knows
the instructions for plain values alone. Every name is an inert mark, and what calling it gives
is decided by a table of the caller's.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from io import BytesIO
from typing import Any

from fastcal.core.doors.failures import shown

_MOST_STEPS = 2_000_000
"""Instructions; nnU-Net's properties have some hundreds."""

_MOST_VALUES = 1_000_000
_DEEPEST = 50
_FREE_COPIES = 1 << 20
_SIZED = (str, bytes, bytearray, list, tuple, dict, set, frozenset)
_LARGEST = 2**64
_MARK = object()


@dataclass(frozen=True)
class Name:
    """A global that a pickle asks for: a mark that nothing is behind."""

    module: str
    name: str


Maker = Callable[..., Any]


class Forbidden(ValueError):
    """The pickle asks for something that is not in the table."""


@dataclass(frozen=True)
class Table:
    """What the names in a pickle stand for.

    Args:
        makers: For each name, what calling it gives, out of its arguments.
        constants: Names that stand for a value and are not called.
        persistent: What a persistent id gives; None where there may be none.
        attributes: What may be given a state: pairs of a type and a function of object and state.
    """

    makers: Mapping[tuple[str, str], Maker]
    constants: Mapping[tuple[str, str], Any]
    persistent: Maker | None
    attributes: Mapping[type, Callable[[Any, Any], None]]


class Machine:
    """Runs the instructions of one pickle.

    Args:
        content: The pickle, whole.
        table: What its names stand for.

    Raises:
        Forbidden: It asks for a name that is not in the table.
        ValueError: It is malformed, or has an instruction that plain values do not need.
    """

    def __init__(self, content: bytes, table: Table) -> None:
        self._content = content
        self._table = table
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}
        # Calls may copy what they are given; all copies together stay near what is in the file.
        self._copies_left = _FREE_COPIES + 4 * len(content)

    def run(self) -> Any:
        """The value that the pickle describes.

        It may share parts and even hold itself: `as_tree` tells before anything walks it.
        """
        for steps, (opcode, argument, _) in enumerate(
            pickletools.genops(BytesIO(self._content)), start=1
        ):
            if steps > _MOST_STEPS:
                raise ValueError(f"more than {_MOST_STEPS} instructions")
            if opcode.name == "STOP":
                (value,) = self._stack
                return self._plain(value)
            self._step(opcode.name, argument)
        raise ValueError("no end")

    def _step(self, name: str, argument: Any) -> None:
        if name in _CONSTANTS:
            self._stack.append(_CONSTANTS[name])
        elif name in _VALUES:
            self._stack.append(_checked(argument))
        elif name in _EMPTY:
            self._stack.append(_EMPTY[name]())
        elif (method := _INSTRUCTIONS.get(name)) is not None:
            method(self, argument)
        elif name not in _NOTHING:
            raise ValueError(f"the instruction {name}, which plain values do not need")

    # --- the stack --------------------------------------------------------------------------

    def _pop(self) -> Any:
        value = self._stack.pop()
        if value is _MARK:
            raise ValueError("a mark in the place of a value")
        return value

    def _since_mark(self) -> list[Any]:
        for place in range(len(self._stack) - 1, -1, -1):
            if self._stack[place] is _MARK:
                items = self._stack[place + 1 :]
                del self._stack[place:]
                return items
        raise ValueError("no mark")

    def _drop(self, _: Any) -> None:
        self._stack.pop()

    def _drop_since_mark(self, _: Any) -> None:
        self._since_mark()

    def _again(self, _: Any) -> None:
        self._stack.append(self._stack[-1])

    # --- the memo ---------------------------------------------------------------------------

    def _put(self, index: Any) -> None:
        self._memo[int(index)] = self._stack[-1]

    def _memoize(self, _: Any) -> None:
        self._memo[len(self._memo)] = self._stack[-1]

    def _get(self, index: Any) -> None:
        self._stack.append(self._memo[int(index)])

    # --- containers -------------------------------------------------------------------------

    def _tuple(self, _: Any) -> None:
        self._stack.append(tuple(self._since_mark()))

    def _tuple_of(self, count: int) -> None:
        self._stack.append(tuple([self._pop() for _ in range(count)][::-1]))

    def _list(self, _: Any) -> None:
        self._stack.append(self._since_mark())

    def _dict(self, _: Any) -> None:
        items = self._since_mark()
        content: dict[Any, Any] = {}
        self._fill(content, items)
        self._stack.append(content)

    def _frozenset(self, _: Any) -> None:
        self._stack.append(frozenset(hashable(item) for item in self._since_mark()))

    def _append(self, _: Any) -> None:
        value = self._pop()
        self._last(list).append(value)

    def _appends(self, _: Any) -> None:
        values = self._since_mark()
        self._last(list).extend(values)

    def _set_item(self, _: Any) -> None:
        value, key = self._pop(), self._pop()
        self._fill(self._last(dict), [key, value])

    def _set_items(self, _: Any) -> None:
        items = self._since_mark()
        self._fill(self._last(dict), items)

    def _add_items(self, _: Any) -> None:
        items = self._since_mark()
        self._last(set).update(hashable(item) for item in items)

    def _last(self, kind: type) -> Any:
        found = self._stack[-1]
        if not isinstance(found, kind):
            raise ValueError(f"must be a {kind.__name__}, got {shown(found)}")
        return found

    def _fill(self, content: dict[Any, Any], items: list[Any]) -> None:
        for key, value in zip(items[::2], items[1::2], strict=True):
            content[hashable(key)] = value

    # --- names ------------------------------------------------------------------------------

    def _global(self, argument: Any) -> None:
        module, _, name = str(argument).partition(" ")
        self._stack.append(self._known(module, name))

    def _stack_global(self, _: Any) -> None:
        name, module = self._pop(), self._pop()
        if not isinstance(name, str) or not isinstance(module, str):
            raise ValueError("a name that is no text")
        self._stack.append(self._known(module, name))

    def _known(self, module: str, name: str) -> Any:
        asked = (module, name)
        if asked in self._table.constants:
            return self._table.constants[asked]
        if asked not in self._table.makers:
            raise Forbidden(f"asks for {shown(f'{module}.{name}')[1:-1]}, which is not allowed")
        return Name(module, name)

    def _reduce(self, _: Any) -> None:
        arguments, called = self._pop(), self._pop()
        if not isinstance(called, Name) or not isinstance(arguments, tuple):
            raise ValueError("a call of something that is no name")
        self._copies_left -= sum(len(one) for one in arguments if isinstance(one, _SIZED))
        if self._copies_left < 0:
            raise ValueError("copies that are much larger than the file")
        self._stack.append(self._table.makers[called.module, called.name](*arguments))

    def _new_object(self, _: Any) -> None:
        self._reduce(_)

    def _build(self, _: Any) -> None:
        state = self._pop()
        found = self._stack[-1]
        give = self._table.attributes.get(type(found))
        if give is None:
            raise ValueError(f"a state for {shown(found)}")
        give(found, state)

    def _persistent(self, _: Any) -> None:
        if self._table.persistent is None:
            raise ValueError("a persistent id, which plain values do not need")
        self._stack.append(self._table.persistent(self._pop()))

    def _plain(self, value: Any) -> Any:
        if value is _MARK or isinstance(value, Name):
            raise ValueError("no value at its end")
        return value


def hashable(key: Any) -> Any:
    """A key of a dict or set: a plain value, or a flat tuple of such.

    Raises:
        ValueError: It is something else; hashing nested tuples can take forever.
    """
    items = key if isinstance(key, tuple) else (key,)
    if len(items) > 1000 or not all(
        isinstance(item, str | bytes | bool | int | float | None) for item in items
    ):
        raise ValueError(f"keys must be numbers, text or flat tuples of them, got {shown(key)}")
    return key


def _checked(value: Any) -> Any:
    if isinstance(value, int) and abs(value) >= _LARGEST:
        raise ValueError(f"integers must have at most 64 bits, got {value.bit_length()}")
    return value


def as_tree(value: Any, leaf: Callable[[Any], Any]) -> Any:
    """Copy a value as a tree in which nothing is shared.

    Args:
        value: Of `Machine.run`.
        leaf: Turns what is no list, tuple or dict into what it stands for.

    Raises:
        ValueError: The tree would have more than a million values or 50 levels.
    """
    count = 0

    def walk(part: Any, depth: int) -> Any:
        nonlocal count
        count += 1
        if count > _MOST_VALUES:
            raise ValueError(f"more than {_MOST_VALUES} values, shared ones counted each time")
        if depth > _DEEPEST:
            raise ValueError(f"nested more than {_DEEPEST} levels deep")
        if isinstance(part, dict):
            return {key: walk(one, depth + 1) for key, one in part.items()}
        if isinstance(part, list | tuple):
            return type(part)([walk(one, depth + 1) for one in part])
        return leaf(part)

    return walk(value, 0)


_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "MARK": _MARK}
_EMPTY: dict[str, type] = {
    "EMPTY_TUPLE": tuple,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
    "EMPTY_SET": set,
}
_NOTHING = frozenset({"PROTO", "FRAME", "READONLY_BUFFER"})
_VALUES = frozenset(
    (
        *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
        *("STRING", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
        *("BYTEARRAY8", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
    )
)
_INSTRUCTIONS: dict[str, Callable[[Machine, Any], None]] = {
    "POP": Machine._drop,
    "POP_MARK": Machine._drop_since_mark,
    "DUP": Machine._again,
    "PUT": Machine._put,
    "BINPUT": Machine._put,
    "LONG_BINPUT": Machine._put,
    "MEMOIZE": Machine._memoize,
    "GET": Machine._get,
    "BINGET": Machine._get,
    "LONG_BINGET": Machine._get,
    "TUPLE": Machine._tuple,
    "TUPLE1": lambda machine, _: machine._tuple_of(1),
    "TUPLE2": lambda machine, _: machine._tuple_of(2),
    "TUPLE3": lambda machine, _: machine._tuple_of(3),
    "LIST": Machine._list,
    "DICT": Machine._dict,
    "FROZENSET": Machine._frozenset,
    "APPEND": Machine._append,
    "APPENDS": Machine._appends,
    "SETITEM": Machine._set_item,
    "SETITEMS": Machine._set_items,
    "ADDITEMS": Machine._add_items,
    "GLOBAL": Machine._global,
    "STACK_GLOBAL": Machine._stack_global,
    "REDUCE": Machine._reduce,
    "NEWOBJ": Machine._new_object,
    "BUILD": Machine._build,
    "BINPERSID": Machine._persistent,
}
