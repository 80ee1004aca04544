"""Reads the sources of a package with `ast`: its modules, what they import, what they define."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Module:
    """One file of a package, with its dotted name: ``fastcal.data.nifti``."""

    file: Path
    package: Path

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.file.read_text(encoding="utf-8"))

    @property
    def where(self) -> str:
        return str(self.file.relative_to(self.package.parent))

    @property
    def is_package(self) -> bool:
        return self.file.name == "__init__.py"

    @property
    def name(self) -> str:
        parts = self.file.relative_to(self.package.parent).with_suffix("").parts
        return ".".join(parts[:-1] if self.is_package else parts)

    @property
    def room(self) -> str:
        """The module or package of the top level it belongs to; the package's own name for that."""
        parts = self.name.split(".")
        return parts[1] if len(parts) > 1 else parts[0]

    def source_of(self, node: ast.ImportFrom) -> str:
        """The dotted name after ``from``, relative ones resolved."""
        here = self.file.relative_to(self.package.parent).with_suffix("").parts
        base = ".".join(here[: -node.level]) if node.level else ""
        return ".".join(part for part in (base, node.module) if part)

    def imported(self) -> Iterator[str]:
        """Full dotted names of everything that is imported, wherever in the file."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                source = self.source_of(node)
                yield from (f"{source}.{alias.name}" for alias in node.names)
            elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
                yield from (
                    argument.value
                    for argument in node.args[:1]
                    if isinstance(argument, ast.Constant) and isinstance(argument.value, str)
                )


def modules(package: Path) -> list[Module]:
    return [Module(file, package) for file in sorted(package.rglob("*.py"))]


def imports_between(found: list[Module]) -> dict[str, set[str]]:
    """Name of every module to the names of the modules that it imports from.

    ``from fastcal.train import loop`` is an import of the module `loop` where there is one, else of
    the package. That a module's parents are loaded before it is no arrow of its own.
    """
    known = {module.name for module in found}
    arrows: dict[str, set[str]] = {}
    for module in found:
        targets = set()
        for name in module.imported():
            parent = name.rpartition(".")[0]
            targets |= {name} & known or {parent} & known
        arrows[module.name] = targets - {module.name}
    return arrows


def circles(arrows: dict[str, set[str]]) -> list[list[str]]:
    """Groups of modules that reach one another: the strongly connected components of a graph."""

    def reached(start: str) -> set[str]:
        seen: set[str] = set()
        pending = [start]
        while pending:
            for target in arrows.get(pending.pop(), set()) - seen:
                seen.add(target)
                pending.append(target)
        return seen

    reach = {name: reached(name) for name in arrows}
    groups = {
        tuple(sorted(other for other in reach[name] if name in reach.get(other, ())))
        for name in arrows
        if name in reach[name]
    }
    return sorted(map(list, groups))


def functions(tree: ast.AST, within: tuple[str, ...] = ()) -> Iterator[tuple[str, Function]]:
    """Every function and method with its qualified name, those inside other functions too."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, Function):
            yield ".".join((*within, node.name)), node
            yield from functions(node, (*within, node.name))
        elif isinstance(node, ast.ClassDef):
            yield from functions(node, (*within, node.name))
        else:
            yield from functions(node, within)


def listed_in_all(tree: ast.Module) -> list[str]:
    """The strings of a module's ``__all__``."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return list(ast.literal_eval(node.value))
    return []


def exported(found: list[Module]) -> set[tuple[str, str]]:
    """Module and name of the definition behind every name that a package's ``__all__`` lists."""
    by_name = {module.name: module for module in found}

    def definition(module: str, name: str) -> tuple[str, str]:
        if module in by_name:
            for node in ast.walk(by_name[module].tree):
                if not isinstance(node, ast.ImportFrom):
                    continue
                for alias in node.names:
                    if (alias.asname or alias.name) == name:
                        return definition(by_name[module].source_of(node), alias.name)
        return module, name

    return {
        definition(module.name, name)
        for module in found
        if module.is_package
        for name in listed_in_all(module.tree)
    }
