"""What the files of the project say twice agrees."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
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
PINNED_HOOKS = {
    "ruff-pre-commit": "ruff",
    "mirrors-clang-format": "clang-format",
    "zizmor-pre-commit": "zizmor",
}


@pytest.mark.parametrize(("hook", "package"), PINNED_HOOKS.items())
def test_a_hook_of_pre_commit_has_the_version_of_the_constraints(hook: str, package: str) -> None:
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    (version,) = (each["rev"] for each in config["repos"] if each["repo"].endswith(hook))
    assert version == f"v{PINS[package]}"


def test_the_citation_has_the_version_of_the_changelog() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["license"] == PROJECT["project"]["license"]
    newest, *_ = re.findall(r"^## \[(\d.*?)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert citation["version"] == newest
    # The tag of git is the version, of which no file is a copy.
    assert PROJECT["project"]["dynamic"] == ["version"]
    assert PROJECT["tool"]["setuptools_scm"]["fallback_version"] == f"{newest}.dev0"


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


WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_actions_of_others_are_pinned_by_hash_and_named_by_version(path: Path) -> None:
    used = re.findall(r"uses: (\S+)(.*)", path.read_text())
    assert used
    for action, comment in used:
        if not action.startswith("./"):
            assert re.fullmatch(r"[\w./-]+@[0-9a-f]{40}", action), action
            assert re.fullmatch(r" # v\d+\.\d+\.\d+", comment), action


def test_an_action_has_one_hash_in_all_workflows() -> None:
    found: dict[str, set[str]] = {}
    for path in WORKFLOWS:
        for action, commit in re.findall(r"uses: (\S+)@([0-9a-f]{40} # \S+)", path.read_text()):
            found.setdefault(action, set()).add(commit)
    assert {action: commits for action, commits in found.items() if len(commits) > 1} == {}


def test_workflows_have_no_known_weakness() -> None:
    zizmor = Path(sys.executable).parent / "zizmor"
    if not zizmor.is_file():
        zizmor = Path(shutil.which("zizmor") or pytest.skip("zizmor is not installed"))
    command = [zizmor, "--offline", "--no-progress", "--quiet", ROOT / ".github"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_every_job_may_do_only_what_it_says() -> None:
    for path in WORKFLOWS:
        workflow = yaml.safe_load(path.read_text())
        assert workflow["permissions"] == {}, path
        for name, job in workflow["jobs"].items():
            assert job["permissions"], f"{path.name}: {name}"
            writes = {scope for scope, right in job["permissions"].items() if right == "write"}
            assert writes == set() or name in ("publish", "deploy"), f"{path.name}: {name}"
