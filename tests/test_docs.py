"""README and docs: examples run, commands and options exist, links lead somewhere."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from fresh import run_fresh

ROOT = Path(__file__).resolve().parent.parent
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?!https?://|#)([^)#\s]+)(?:#[^)]*)?\)")


def blocks(page: Path, language: str) -> list[str]:
    return [body for tag, body in FENCE.findall(page.read_text()) if tag == language]


PYTHON_EXAMPLES = [
    pytest.param(body, id=f"{page.name}-{number}")
    for page in PAGES
    for number, body in enumerate(blocks(page, "python"), 1)
]
COMMANDS = [
    pytest.param(line, id=f"{page.name}: {line}")
    for page in PAGES
    for body in blocks(page, "sh")
    for line in body.replace("\\\n", " ").splitlines()
    if line.startswith("fastcal ")
]
MAKE_TARGETS = sorted(
    {target for page in PAGES for target in re.findall(r"\bmake ([a-z-]+)`", page.read_text())}
)


@pytest.mark.parametrize("example", PYTHON_EXAMPLES)
def test_python_example_runs(example: str, tmp_path: Path) -> None:
    result = run_fresh(example, tmp_path)
    assert result.code == 0, result.errors
    # "# -> text" behind a line of an example promises what it prints.
    promised = re.findall(r"# -> (.+)$", example, re.MULTILINE)
    assert result.output.splitlines()[: len(promised)] == promised


@pytest.mark.parametrize("line", COMMANDS)
def test_command_and_options_of_example_exist(line: str) -> None:
    import typer

    from fastcal.cli.app import app

    words = line.split("#")[0].split()[1:]
    command = typer.main.get_command(app)
    while hasattr(command, "commands"):
        command = command.commands[words.pop(0)]
    known = {"--help"}
    for parameter in command.params:
        known.update(parameter.opts, parameter.secondary_opts)
    used = {word.partition("=")[0] for word in words if re.match(r"--?[a-z]", word)}
    assert used <= known


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files_that_exist(page: Path) -> None:
    missing = [link for link in LINK.findall(page.read_text()) if not (page.parent / link).exists()]
    assert missing == []


@pytest.mark.parametrize("target", MAKE_TARGETS)
def test_make_target_that_is_named_exists(target: str) -> None:
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


def test_readme_gives_both_set_up_commands_and_an_example() -> None:
    readme = ROOT / "README.md"
    shown = "\n".join(blocks(readme, "sh"))
    assert "make demo" in shown
    assert "make test" in shown
    assert len(blocks(readme, "python")) >= 1


def test_tables_of_options_are_those_of_the_commands() -> None:
    program = "import write_options as w; t = w.PAGE.read_text(); print(w.written(t) == t)"
    result = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT / "docs",
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.stdout == "True\n", result.stderr + "run: python docs/write_options.py"
