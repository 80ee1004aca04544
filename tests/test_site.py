"""The site: every page has its place, notebooks hold their outputs, the build has no warning."""

from __future__ import annotations

import importlib
import inspect
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import fastcal

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
NOTEBOOKS = sorted((DOCS / "notebooks").glob("*.ipynb"))


def sources() -> set[str]:
    files = [*DOCS.rglob("*.md"), *NOTEBOOKS]
    return {str(path.relative_to(DOCS).with_suffix("")) for path in files}


def test_every_page_has_its_place_in_the_contents() -> None:
    placed = {"index"}
    for page in sorted(sources()):
        path = DOCS / f"{page}.md"
        text = path.read_text() if path.exists() else ""
        for tree in re.findall(r"```\{toctree\}\n(.*?)```", text, re.DOTALL):
            names = [line for line in tree.splitlines() if line and not line.startswith(":")]
            placed |= {os.path.normpath(path.relative_to(DOCS).parent / name) for name in names}
    assert placed == sources()


def test_the_reference_has_every_public_function_and_class() -> None:
    text = "\n".join(path.read_text() for path in sorted((DOCS / "api").glob("*.md")))
    alone = set(re.findall(r"^\.\. auto(?:class|function):: (\S+)", text, re.MULTILINE))
    found = {id(fastcal_object(name)) for name in alone}
    opened = re.findall(r"^\.\. automodule:: (\S+)((?:\n   :.*)*)", text, re.MULTILINE)
    for name, options in opened:
        module = importlib.import_module(name)
        if not hasattr(module, "__all__"):  # Sphinx then lists what the module itself defines
            continue
        left_out = set(re.findall(r"\w+", options.partition("exclude-members:")[2].split("\n")[0]))
        found |= {id(getattr(module, word)) for word in set(module.__all__) - left_out}
    rooms = [f"fastcal.{room}" for room in sorted(fastcal._ROOMS)]
    missing = {
        f"{room}.{word}"
        for room in ["fastcal", *rooms]
        for word in getattr(importlib.import_module(room), "__all__", ())
        if inspect.isroutine(one := getattr(importlib.import_module(room), word))
        or inspect.isclass(one)
        if id(one) not in found
    }
    assert missing == set()
    documented = {name for name, _ in opened} | {f"fastcal.{n.split('.')[1]}" for n in alone}
    assert set(rooms) - documented <= {"fastcal.backends"}


def fastcal_object(name: str) -> object:
    module, _, word = name.rpartition(".")
    return getattr(importlib.import_module(module), word)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_a_notebook_was_run_from_top_to_bottom(path: Path) -> None:
    cells = [c for c in json.loads(path.read_text())["cells"] if c["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert "error" not in {output["output_type"] for output in outputs}
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert "/home/" not in path.read_text()


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_a_notebook_prints_what_it_shows(path: Path) -> None:
    nbclient = pytest.importorskip("nbclient", reason="nbclient comes with the extra docs")
    import nbformat

    shown = nbformat.read(path, 4)
    again = nbformat.read(path, 4)
    nbclient.NotebookClient(again, timeout=600).execute()

    def printed(book: nbformat.NotebookNode) -> list[str]:
        return [o["text"] for c in book.cells for o in c.get("outputs", []) if "text" in o]

    assert printed(again) == printed(shown)


@pytest.mark.slow
def test_the_site_is_built_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("sphinx", reason="Sphinx comes with the extra docs")
    result = subprocess.run(
        [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html", DOCS, tmp_path],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert result.returncode == 0, result.stderr
    assert "ensemble_entropy" in (tmp_path / "api" / "functions.html").read_text()
