"""What the files of the project say twice agrees."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PINS = dict(
    line.split("==")
    for line in (ROOT / "constraints.txt").read_text().splitlines()
    if not line.startswith("#")
)
# Hooks of pre-commit that are also packages of constraints.txt.
PINNED_HOOKS = {"ruff-pre-commit": "ruff", "mirrors-clang-format": "clang-format"}


@pytest.mark.parametrize(("hook", "package"), PINNED_HOOKS.items())
def test_a_hook_of_pre_commit_has_the_version_of_the_constraints(hook: str, package: str) -> None:
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    (version,) = (each["rev"] for each in config["repos"] if each["repo"].endswith(hook))
    assert version == f"v{PINS[package]}"


def test_the_citation_has_the_version_of_the_project() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == PROJECT["project"]["version"]
    assert citation["license"] == PROJECT["project"]["license"]
    assert f"## [{citation['version']}]" in (ROOT / "CHANGELOG.md").read_text()


def test_every_extra_is_described_where_installing_is() -> None:
    page = (ROOT / "docs" / "install.md").read_text()
    missing = [
        extra
        for extra in PROJECT["project"]["optional-dependencies"]
        if f"| `{extra}` |" not in page
    ]
    assert missing == []


def test_what_is_required_by_name_has_a_pin() -> None:
    extras = PROJECT["project"]["optional-dependencies"].values()
    wanted = [*PROJECT["project"]["dependencies"], *(each for extra in extras for each in extra)]
    names = {re.split(r"[\[<>=; ]", each)[0].lower().replace("-", "_") for each in wanted}
    assert names <= {name.lower().replace("-", "_") for name in PINS}


def test_every_excused_rule_of_the_repository_review_has_a_reason() -> None:
    text = (ROOT / "pyproject.toml").read_text().partition("[tool.repo-review]")[2]
    rows = [line for line in text.splitlines() if line.startswith('  "')]
    assert rows
    assert [row for row in rows if "  # " not in row] == []


def test_revisions_that_blame_leaves_out_are_full_hashes() -> None:
    lines = (ROOT / ".git-blame-ignore-revs").read_text().splitlines()
    assert [line for line in lines if not re.fullmatch(r"#.*|[0-9a-f]{40}|", line)] == []
