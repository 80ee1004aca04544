"""One folder and many machines: renames that are lost or late, other clocks, second schedulers."""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import shared_disk

from fastcal.cases.journal import Entry, Journal, last_entries, read_journal, read_journals
from fastcal.core.errors import DataError
from fastcal.core.heartbeat import FILE, Heart, alone

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shared_disk.build(tmp_path_factory.mktemp("shim"))


def preloaded(shim: Path, script: str, *words: str, **settings: object) -> subprocess.Popen[str]:
    """Run a script of Python on the file system that the settings describe."""
    told = {f"SHIM_{name.upper()}": str(value) for name, value in settings.items()}
    return subprocess.Popen(
        [sys.executable, "-c", script, *words],
        env=os.environ | {"LD_PRELOAD": str(shim), "PYTHONPATH": str(ROOT)} | told,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(process: subprocess.Popen[str]) -> str:
    said, complained = process.communicate(timeout=120)
    assert process.returncode == 0, complained
    return said


# --- renames --------------------------------------------------------------------------------------

_WRITES = """
import sys
from pathlib import Path
from fastcal.core.atomic import write_text
for number in range(12):
    write_text(Path(sys.argv[1]) / f"case_{number}.json", f"case {number}")
"""


@pytest.mark.parametrize(
    "settings",
    [
        {"lose": 2, "twice": 5, "late": 5},
        pytest.param({"twice": 3}, marks=pytest.mark.slow),
        pytest.param({"late": 100}, marks=pytest.mark.slow),
    ],
    ids=["all of it", "renames are answered twice", "answers are late"],
)
def test_every_file_arrives_whole(shim: Path, tmp_path: Path, settings: dict[str, int]) -> None:
    ended(preloaded(shim, _WRITES, str(tmp_path), only="case_", **settings))
    found = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert found == {f"case_{number}.json": f"case {number}" for number in range(12)}


@pytest.mark.slow
def test_a_rename_that_never_arrives_is_an_error_that_names_the_file(
    shim: Path, tmp_path: Path
) -> None:
    (tmp_path / "case_0.json").write_text("older")
    process = preloaded(shim, _WRITES, str(tmp_path), only="case_", lose=1)
    assert "OSError" in process.communicate(timeout=120)[1]
    assert process.returncode == 1
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"case_0.json": "older"}


# --- clocks ---------------------------------------------------------------------------------------

_SWEEPS = """
import sys
from fastcal.core.doors import remove_leftovers
print(*remove_leftovers(sys.argv[1]))
"""


def test_files_in_the_making_are_safe_from_machines_whose_clock_is_days_ahead(
    shim: Path, tmp_path: Path
) -> None:
    fresh = tmp_path / ".tmp-01234567-1-1-abcdef-case_1.nii.gz"
    stale = tmp_path / ".tmp-01234567-2-1-abcdef-case_2.nii.gz"
    for path in (fresh, stale):
        path.write_bytes(b"half")
    two_days_ago = time.time() - 2 * 24 * 3600
    os.utime(stale, (two_days_ago, two_days_ago))
    # Files get their time from the server, as everybody sees it; only the machine's own is wrong.
    said = ended(preloaded(shim, _SWEEPS, str(tmp_path), clock=3 * 24 * 3600))
    assert said.split() == [str(stale)]
    assert sorted(tmp_path.iterdir()) == [fresh]


# --- two schedulers -------------------------------------------------------------------------------

_HOLDS = """
import sys, time
from fastcal.core.heartbeat import alone
with alone(sys.argv[1], every=0.1):
    print("held", flush=True)
    time.sleep(600)
"""


def test_a_second_scheduler_is_told_who_is_there_whatever_its_clock(
    shim: Path, tmp_path: Path
) -> None:
    with preloaded(shim, _HOLDS, str(tmp_path), clock=-24 * 3600) as holder:
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "held\n"
            message = rf"is in use by process {holder.pid} on .*: another command runs in it"
            with pytest.raises(DataError, match=message), alone(tmp_path, every=0.1):
                pass
            with alone(tmp_path, name=".other-part", every=0.1):
                pass
        finally:
            holder.kill()
    start = time.monotonic()
    with alone(tmp_path, every=0.1) as heart:  # the holder is dead, and is found so by watching
        heart.check()
    assert time.monotonic() - start >= 0.4
    assert list(tmp_path.iterdir()) == []


def checked_for_seconds(heart: Heart) -> None:
    for _ in range(1000):
        time.sleep(0.02)
        heart.check()


def test_a_holder_that_was_taken_for_dead_is_told(tmp_path: Path) -> None:
    with alone(tmp_path, every=0.05) as heart:
        heart.check()
        (tmp_path / FILE).unlink()
        (tmp_path / FILE).write_text('{"holder": "process 1 on node2", "token": "x", "beat": 1}')
        with pytest.raises(DataError, match="was taken over by process 1 on node2"):
            checked_for_seconds(heart)
    assert (tmp_path / FILE).exists(), "the file of the other stays"


def test_a_file_that_is_damaged_holds_nothing(tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(b"\0" * 40)
    with alone(tmp_path, every=0.05) as heart:
        heart.check()
    assert not (tmp_path / FILE).exists()


def test_a_heartbeat_that_cannot_be_written_leaves_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    descriptors = Path("/proc/self/fd")
    before = len(list(descriptors.iterdir())) if descriptors.exists() else 0
    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", full)
        with pytest.raises(OSError, match="No space left"), alone(tmp_path):
            pass
    assert list(tmp_path.iterdir()) == []
    if before:
        assert len(list(descriptors.iterdir())) == before


# --- the journal ----------------------------------------------------------------------------------


def written(path: Path) -> list[Entry]:
    with Journal(path) as journal:
        journal.note("case_1", "begun", "worker 0")
        journal.note("case_1", "lost", "worker 0", error="the worker ended")
        journal.note("case_é", "failed", "worker 1", seconds=1.25, error='"quoted"\nand broken')
    return read_journal(path)


def test_a_journal_gives_back_what_was_noted(tmp_path: Path) -> None:
    lines = written(tmp_path / "journal.jsonl")
    assert [(one.case, one.state, one.seconds) for one in lines] == [
        ("case_1", "begun", None),
        ("case_1", "lost", None),
        ("case_é", "failed", 1.25),
    ]
    assert lines[2].error == '"quoted"\nand broken'
    assert last_entries(lines)["case_1"].state == "lost"
    assert read_journals(tmp_path) == lines
    assert read_journal(tmp_path / "none.jsonl") == []


def test_a_journal_that_is_cut_off_anywhere_goes_on(tmp_path: Path) -> None:
    whole = tmp_path / "whole.jsonl"
    lines = written(whole)
    content = whole.read_bytes()
    ends = [place + 1 for place, byte in enumerate(content) if byte == ord("\n")]
    cut = tmp_path / "cut.jsonl"
    for length in range(len(content) + 1):
        cut.write_bytes(content[:length])
        # The line break alone may be missing: that line is whole.
        kept = sum(length >= end - 1 for end in ends)
        assert read_journal(cut) == lines[:kept], f"cut after {length} bytes"
        with Journal(cut) as journal:
            journal.note("case_2", "done", "worker 3", seconds=2.0)
        after = read_journal(cut)
        assert after[:-1] == lines[:kept], f"cut after {length} bytes"
        assert (after[-1].case, after[-1].state) == ("case_2", "done")


@pytest.mark.parametrize(
    "damage", [b"\0" * 64 + b"\n", b"[1, 2]\n", b'{"case": 1}\n', b"\xff\xfe{}\n", b"{}\n"]
)
def test_what_is_no_line_of_a_journal_is_left_out(tmp_path: Path, damage: bytes) -> None:
    path = tmp_path / "journal.jsonl"
    lines = written(path)
    path.write_bytes(damage + path.read_bytes() + damage)
    assert read_journal(path) == lines


def test_a_full_disk_names_the_journal() -> None:
    if not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full")
    with (
        Journal(Path("/dev/full")) as journal,
        pytest.raises(OSError, match=re.escape("/dev/full")),
    ):
        journal.note("case_1", "begun", "worker 0")
