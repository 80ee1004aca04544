"""Messages of errors, read in the sources, follow one grammar: "NAME must be ..., got VALUE"."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import pytest
from package_sources import Function, Module, modules

ROOT = Path(__file__).resolve().parent.parent

# Stands for a part of a message that is known only at run time.
UNKNOWN = "{}"
DEEPEST_HELPER = 3

ARGUMENT_ERRORS = frozenset({"TypeError", "ValueError", "BadParameter", "UsageError"})
NAME_AND_COLON = re.compile(r"^[a-z_][\w.]*(\[\w*\])?: ")


# --- what a message may look like -----------------------------------------------------------------


def faults(message: str, error: str) -> list[str]:
    """Say what is wrong with the words of a message.

    Args:
        message: The text, with ``{}`` for placeholders, and for a `DataError` without its path.
        error: The name of the class that is raised.
    """
    problems = []
    words = set(re.findall(r"[a-z]+", message))
    if "expected" in words:
        problems.append("says 'expected': say what it must be")
    if "got" in words:
        allowed, _, _ = message.partition("got ")
        if not re.search(r"\bmust\b", allowed):
            problems.append("says 'got' and not before it what it must be")
        elif not allowed.endswith((", ", "; ")):
            problems.append("has no comma before 'got'")
    elif error in ARGUMENT_ERRORS and re.search(r"\bmust be\b(?!.*: )", message):
        problems.append("says 'must be' and not what it got")
    if error in ARGUMENT_ERRORS and NAME_AND_COLON.match(message):
        problems.append("begins with a name and a colon: make it a sentence")
    if "`" in message:
        problems.append("has backticks")
    if message.endswith("."):
        problems.append("ends in a full stop")
    if not message.strip() or message != " ".join(message.split()):
        problems.append("has lost or doubled spaces")
    return problems


@pytest.mark.parametrize(
    "message",
    [
        "n_bins must be at least 1, got 0",
        "weights must hold one number per folder: 3, got 2",
        "members must be of one shape: preds[0] has {}, preds[1] has {}",
        "dataset.json must have 'labels'",
        "{} must not share memory with {}",
        "the calibrator is not fitted yet: call fit first",
        "{}",
    ],
)
def test_a_message_of_the_grammar_has_no_faults(message: str) -> None:
    assert faults(message, "ValueError") == []


@pytest.mark.parametrize(
    ("message", "fault"),
    [
        ("n_bins: got 0, expected at least 1", "expected"),
        ("n_bins: got 0", "what it must be"),
        ("a volume is N or NxNxN, got {}", "what it must be"),
        ("n_bins must be at least 1 got 0", "no comma"),
        ("knots must be ascending", "not what it got"),
        ("label_smoothing: a sigmoid has none", "a colon"),
        ("members[]: none is left", "a colon"),
        ("`n_bins` must be at least 1, got 0", "backticks"),
        ("n_bins must be at least 1, got 0.", "full stop"),
        ("n_bins must be  at least 1, got 0", "spaces"),
    ],
)
def test_planted_fault_of_a_message_is_caught(message: str, fault: str) -> None:
    assert any(fault in problem for problem in faults(message, "ValueError"))


@pytest.mark.parametrize("message", ["part: 3 of 4 is missing", "the top must be an object"])
def test_a_data_error_need_not_name_an_argument(message: str) -> None:
    assert faults(message, "DataError") == []


# --- reading messages in the sources --------------------------------------------------------------


class Reader:
    """The texts that an expression of a module may stand for, as far as its tree shows."""

    def __init__(self, module: Module) -> None:
        self.module = module
        self.functions = {
            node.name: node for node in ast.walk(module.tree) if isinstance(node, Function)
        }

    def texts(self, node: ast.expr, scope: ast.AST | None = None, depth: int = 0) -> Iterator[str]:
        """Give every text, with ``{}`` for each part that is known only at run time.

        Args:
            node: The expression.
            scope: The function that contains it, whose assignments are looked up.
            depth: Number of helper functions that were entered on the way to it.
        """
        if isinstance(node, ast.Constant):
            yield node.value if isinstance(node.value, str) else UNKNOWN
        elif isinstance(node, ast.JoinedStr):
            yield "".join(
                str(part.value) if isinstance(part, ast.Constant) else UNKNOWN
                for part in node.values
            )
        elif isinstance(node, ast.IfExp):
            yield from self.texts(node.body, scope, depth)
            yield from self.texts(node.orelse, scope, depth)
        elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
            sides = (list(self.texts(side, scope, depth)) for side in (node.left, node.right))
            yield from map("".join, product(*sides))
        elif isinstance(node, ast.Name) and scope is not None:
            found = list(_assigned(node.id, scope))
            for value in found:
                yield from self.texts(value, None, depth)
            if not found:
                yield UNKNOWN
        elif isinstance(node, ast.Call) and depth < DEEPEST_HELPER:
            name = ast.unparse(node.func).removeprefix("self.")
            helper = self.functions.get(name)
            returned = list(_returned(helper)) if helper is not None else []
            for value in returned:
                yield from self.texts(value, helper, depth + 1)
            if not returned:
                yield UNKNOWN
        else:
            yield UNKNOWN

    def messages(self) -> Iterator[tuple[int, str, str]]:
        """Line, class of the error and text of every error that the module makes."""
        for scope in (self.module.tree, *self.functions.values()):
            for node in _own_nodes(scope):
                if not isinstance(node, ast.Call) or not node.args:
                    continue
                error = ast.unparse(node.func).rpartition(".")[2]
                if error == "DataError":
                    text = node.args[1] if len(node.args) > 1 else node.keywords[0].value
                elif error in ARGUMENT_ERRORS:
                    text = node.args[0]
                else:
                    continue
                yield from ((node.lineno, error, found) for found in self.texts(text, scope))


def _own_nodes(scope: ast.AST) -> Iterator[ast.AST]:
    """The nodes of a function or module without those of the functions inside it."""
    for node in ast.iter_child_nodes(scope):
        if not isinstance(node, Function):
            yield node
            yield from _own_nodes(node)


def _assigned(name: str, scope: ast.AST) -> Iterator[ast.expr]:
    for node in _own_nodes(scope):
        if isinstance(node, ast.Assign) and [ast.unparse(t) for t in node.targets] == [name]:
            yield node.value


def _returned(function: Function) -> Iterator[ast.expr]:
    for node in _own_nodes(function):
        if isinstance(node, ast.Return) and node.value is not None:
            yield node.value


def message_offences(package: Path) -> list[str]:
    return sorted(
        {
            f"{module.where}:{line}: {message!r} {fault}"
            for module in modules(package)
            for line, error, message in Reader(module).messages()
            for fault in faults(message, error)
        }
    )


def test_every_message_in_the_package_follows_the_grammar() -> None:
    assert message_offences(ROOT / "fastcal") == []


@pytest.mark.parametrize(
    "text",
    [
        "raise ValueError(f'n_bins: got {n}, expected 1')",
        "def f(n):\n    raise TypeError(f'n: got {n}')",
        "def f(n):\n    message = 'n: got ' + str(n)\n    raise ValueError(message)",
        "def f(n):\n    raise ValueError('n must be 1, got 2' if n else f'n: got {n}')",
        "def g(n):\n    return f'n: got {n}'\ndef f(n):\n    raise ValueError(g(n))",
        "raise errors.DataError(path, f'shape {a}, expected {b}')",
        "class A:\n    def f(self):\n        errors.append(DataError(p, 'label {} got no name'))",
    ],
)
def test_planted_message_is_read_and_caught(tmp_path: Path, text: str) -> None:
    package = tmp_path / "fastcal"
    package.mkdir()
    (package / "bins.py").write_text(text)
    assert message_offences(package)


def test_messages_of_the_grammar_and_unknown_texts_are_left_alone(tmp_path: Path) -> None:
    package = tmp_path / "fastcal"
    package.mkdir()
    (package / "bins.py").write_text(
        "raise ValueError(f'n_bins must be at least 1, got {n}')\n"
        "raise ValueError(str(error))\n"
        "raise ImportError('expected: not ours to check')\n"
    )
    assert message_offences(package) == []
