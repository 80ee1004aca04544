"""Rules of the house for single files: private names, number of parameters, length."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from package_sources import Function, Module, exported, functions, modules

ROOT = Path(__file__).resolve().parent.parent

MOST_PARAMETERS = 8
MOST_LINES = 450

# The public surface, whose signatures may be flat: the names in the `__all__` of a package, and the
# public functions of these modules, which users import directly.
PUBLIC_MODULES = frozenset({"fastcal.functional", "fastcal.regions"})
# Schemas of torch.library are flat, and so are the functions that implement them.
FLAT_MODULES = frozenset({"fastcal.ops"})
COMMANDS = "fastcal.cli"
KERNEL_DECORATOR = "jit"
AUTOGRAD = "autograd.Function"

COUNTED_FOLDERS = ("fastcal", "csrc", "tests", "benchmarks")
COUNTED_SUFFIXES = frozenset({".py", ".pyi", ".h", ".cpp", ".inl", ".cu", ".cuh", ".sh"})

# Compiled modules: the underscore says that users do not import them, but other rooms do.
NATIVE_MODULES = frozenset({"_cpu", "_cuda"})
# Documented methods of a NamedTuple, whose underscore keeps them apart from its fields.
NAMED_TUPLE = frozenset({"_asdict", "_field_defaults", "_fields", "_make", "_replace"})


def write(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    return folder


# --- private names --------------------------------------------------------------------------------


def is_private(name: str) -> bool:
    open_names = NATIVE_MODULES | NAMED_TUPLE
    return name.startswith("_") and not name.startswith("__") and name not in open_names


def private_offences(package: Path, folder: Path | None = None) -> list[str]:
    """Uses of a private name of one of the package's modules by another file of ``folder``."""
    offences = []
    for file in sorted((folder or package).rglob("*.py")):
        module = Module(file, folder or package)
        borrowed: dict[str, str] = {}
        for node in ast.walk(module.tree):
            if isinstance(node, ast.ImportFrom):
                source = module.source_of(node)
                if source.partition(".")[0] != package.name:
                    continue
                for alias in node.names:
                    borrowed[alias.asname or alias.name] = f"{source}.{alias.name}"
                    if is_private(alias.name):
                        offences.append(f"{module.where}: imports {source}.{alias.name}")
            elif isinstance(node, ast.Import):
                borrowed |= {
                    alias.asname or alias.name: alias.name
                    for alias in node.names
                    if alias.name.partition(".")[0] == package.name
                }
        for node in ast.walk(module.tree):
            if isinstance(node, ast.Attribute) and is_private(node.attr):
                owner = ast.unparse(node.value)
                if owner in borrowed:
                    offences.append(f"{module.where}: uses {borrowed[owner]}.{node.attr}")
    return offences


# The tests are not checked, because they may look inside.
@pytest.mark.parametrize("folder", ["fastcal", "benchmarks"])
def test_no_private_name_is_used_by_another_module(folder: str) -> None:
    assert private_offences(ROOT / "fastcal", ROOT / folder) == []


@pytest.mark.parametrize(
    ("text", "offence"),
    [
        ("from fastcal.data.nifti import _read", "imports fastcal.data.nifti._read"),
        ("from .nifti import _read as read", "imports fastcal.data.nifti._read"),
        ("def f():\n    from fastcal.data.nifti import _A", "imports fastcal.data.nifti._A"),
        ("from fastcal.data import nifti\nnifti._read()", "uses fastcal.data.nifti._read"),
        ("import fastcal.data.nifti as n\nn._A = 1", "uses fastcal.data.nifti._A"),
        ("import fastcal.data.nifti\nfastcal.data.nifti._A", "uses fastcal.data.nifti._A"),
        ("from fastcal.data.nifti import Volume\nVolume._of(1)", "nifti.Volume._of"),
    ],
)
def test_planted_use_of_a_private_name_is_caught(tmp_path: Path, text: str, offence: str) -> None:
    package = write(tmp_path, {"fastcal/data/case.py": text}) / "fastcal"
    (caught,) = private_offences(package)
    assert caught.startswith("fastcal/data/case.py")
    assert offence in caught


@pytest.mark.parametrize(
    "text",
    [
        "from fastcal import __version__, _cpu",
        "from importlib import import_module as _import_module",
        "class A:\n    def f(self):\n        return self._value",
        "from fastcal.core import arrays as _arrays",
        "from fastcal.models import EnsembleOutput\nEnsembleOutput._fields",
    ],
)
def test_own_private_names_and_native_modules_are_allowed(tmp_path: Path, text: str) -> None:
    assert private_offences(write(tmp_path, {"fastcal/a.py": text}) / "fastcal") == []


# --- parameters -----------------------------------------------------------------------------------


def parameters(function: Function, is_method: bool) -> int:
    """Count the parameters, without self or cls."""
    names = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
    decorators = {ast.unparse(decorator) for decorator in function.decorator_list}
    bound = is_method and "staticmethod" not in decorators
    rest = [function.args.vararg, function.args.kwarg]
    return len(names) + sum(argument is not None for argument in rest) - bound


def classes(module: Module) -> dict[str, ast.ClassDef]:
    return {node.name: node for node in ast.walk(module.tree) if isinstance(node, ast.ClassDef)}


def is_autograd(definition: ast.ClassDef | None) -> bool:
    bases = definition.bases if definition is not None else []
    return any(ast.unparse(base).endswith(AUTOGRAD) for base in bases)


def is_kernel(function: Function) -> bool:
    return any(
        ast.unparse(decorator).partition("(")[0].split(".")[-1] == KERNEL_DECORATOR
        for decorator in function.decorator_list
    )


def is_command(function: Function, module: Module) -> bool:
    """Whether typer reads the function: its parameters are then the options of a command."""
    if module.room != COMMANDS.rpartition(".")[2]:
        return False
    decorators = (ast.unparse(decorator) for decorator in function.decorator_list)
    own_file = module.name == f"{COMMANDS}.{function.name}"
    return own_file or any(".command(" in decorator for decorator in decorators)


def flat_functions(found: list[Module]) -> Iterator[tuple[str, str]]:
    """Module and qualified name of every function that may have a flat signature."""
    public = exported(found)
    for module in found:
        known = classes(module)
        for name, function in functions(module.tree):
            outer, _, own = name.rpartition(".")
            is_public = not own.startswith("_") or own in {"__init__", "__call__"}
            if (
                module.name in FLAT_MODULES
                or is_kernel(function)
                or is_command(function, module)
                or is_autograd(known.get(outer))
                or (module.name in PUBLIC_MODULES and not outer and is_public)
                or (module.name, name) in public
                or ((module.name, outer) in public and is_public)
            ):
                yield module.name, name


def parameter_offences(package: Path) -> list[str]:
    found = modules(package)
    flat = set(flat_functions(found))
    offences = []
    for module in found:
        known = classes(module)
        for name, function in functions(module.tree):
            count = parameters(function, name.rpartition(".")[0].rpartition(".")[2] in known)
            if count > MOST_PARAMETERS and (module.name, name) not in flat:
                offences.append(f"{module.where}: {name} takes {count} parameters")
    return offences


def test_no_function_below_the_public_surface_takes_more_than_eight_parameters() -> None:
    assert parameter_offences(ROOT / "fastcal") == []


NINE = "a, b, c, d, e, f, g, h, i"


@pytest.mark.parametrize(
    ("text", "offence"),
    [
        (f"def volume({NINE}): ...", "volume takes 9 parameters"),
        (f"def f():\n    def inner({NINE}): ...", "f.inner takes 9 parameters"),
        (f"class A:\n    def f(self, {NINE}): ...", "A.f takes 9 parameters"),
        (f"class A:\n    @staticmethod\n    def f({NINE}): ...", "A.f takes 9 parameters"),
        (f"if True:\n    async def f({NINE}): ...", "f takes 9 parameters"),
        ("def f(a, b, c, /, d, e, *f, g, h, **i): ...", "f takes 9 parameters"),
    ],
)
def test_planted_function_of_too_many_parameters_is_caught(
    tmp_path: Path, text: str, offence: str
) -> None:
    package = write(tmp_path, {"fastcal/data/nifti.py": text}) / "fastcal"
    assert parameter_offences(package) == [f"fastcal/data/nifti.py: {offence}"]


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("data/nifti.py", "class A:\n    def f(self, a, b, c, d, e, f, g, h): ..."),
        ("data/nifti.py", f"def read({NINE}): ..."),
        ("data/nifti.py", f"class Volume:\n    def __init__(self, {NINE}): ..."),
        ("triton_kernels/walk.py", f"@triton.jit\ndef kernel({NINE}): ..."),
        ("losses/sums.py", f"class S(torch.autograd.Function):\n    def forward({NINE}): ..."),
        ("ops.py", f"def _ensemble_statistics({NINE}): ..."),
        ("functional.py", f"def brier_score({NINE}): ..."),
        ("cli/train.py", f"def train({NINE}): ..."),
        ("cli/recalibrate.py", f"@recalibrate.command('fit')\ndef fit({NINE}): ..."),
    ],
)
def test_flat_signatures_of_the_public_surface_are_allowed(
    tmp_path: Path, file: str, text: str
) -> None:
    public = {
        "fastcal/data/__init__.py": (
            "from fastcal.data.nifti import Volume, read\n__all__ = ['Volume', 'read']"
        )
    }
    package = write(tmp_path, {**public, f"fastcal/{file}": text}) / "fastcal"
    assert parameter_offences(package) == []


# --- length ---------------------------------------------------------------------------------------


def length_offences(root: Path) -> list[str]:
    offences = []
    for folder in COUNTED_FOLDERS:
        for file in sorted((root / folder).rglob("*")):
            if file.suffix in COUNTED_SUFFIXES:
                lines = len(file.read_text(encoding="utf-8").splitlines())
                if lines > MOST_LINES:
                    offences.append(f"{file.relative_to(root)}: {lines} lines")
    return offences


def test_no_file_is_longer_than_a_room() -> None:
    assert length_offences(ROOT) == []


def test_planted_long_file_is_caught(tmp_path: Path) -> None:
    files = {
        "fastcal/data/nifti.py": "x = 1\n" * (MOST_LINES + 1),
        "csrc/core/math.h": "// x\n" * MOST_LINES,
        "tests/data/numbers.json": "1\n" * (MOST_LINES + 1),
    }
    assert length_offences(write(tmp_path, files)) == ["fastcal/data/nifti.py: 451 lines"]
