"""Whatever the bytes, a door gives a value or a `DataError`, in bounded time and memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import fuzzing
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastcal.core import doors

SECONDS = float(os.environ.get("FASTCAL_FUZZ_SECONDS", "30"))
"""Of each reader in the slow tests."""


@pytest.mark.parametrize("name", fuzzing.READERS)
@given(content=st.binary(max_size=2000))
def test_any_bytes_give_a_value_or_an_error(name: str, content: bytes, tmp_path: Path):
    reader = fuzzing.READERS[name]
    fuzzing.outcome(reader, tmp_path / f"x{reader.suffix}", content)
    fuzzing.outcome(reader, tmp_path / f"x{reader.suffix}", reader.wrap(content))


@pytest.mark.parametrize("name", fuzzing.READERS)
@given(chance=st.randoms(use_true_random=False))
def test_files_with_a_few_changes_give_a_value_or_an_error(name: str, chance, tmp_path: Path):
    reader = fuzzing.READERS[name]
    content = reader.wrap(fuzzing.mutated(reader.seeds, reader.tokens, chance))
    fuzzing.outcome(reader, tmp_path / f"x{reader.suffix}", content)


@pytest.mark.parametrize("name", fuzzing.READERS)
def test_the_fuzzer_starts_from_files_that_are_read(name: str, tmp_path: Path):
    reader = fuzzing.READERS[name]
    for seed in reader.seeds:
        path = tmp_path / f"x{reader.suffix}"
        assert fuzzing.outcome(reader, path, reader.wrap(seed)) == "value"


def test_every_door_is_fuzzed():
    """A reader that is added to the doors needs an entry in `fuzzing.READERS`."""
    source = Path(fuzzing.__file__).read_text()
    doors_there = {name for name in doors.__all__ if name.startswith(("read_", "open_", "parse_"))}
    # Texts are parsed by the readers of files, and what opens a file is below all of them.
    below = {"parse_json", "parse_yaml", "read_text", "read_bytes", "open_regular"}
    below |= {"open_archive", "open_npz"}
    assert [name for name in sorted(doors_there - below) if f"doors.{name}" not in source] == []


@pytest.mark.slow
@pytest.mark.parametrize("name", fuzzing.READERS)
def test_many_mutated_files_give_a_value_or_an_error(name: str):
    program = [sys.executable, fuzzing.__file__, name, str(SECONDS), os.environ.get("SEED", "0")]
    made = subprocess.run(
        program, capture_output=True, text=True, check=False, timeout=SECONDS + 300
    )
    assert made.returncode == 0, made.stderr[-3000:]
    report = json.loads(made.stdout.splitlines()[-1])
    assert report["failures"] == []
    assert report["tried"] > 20
    assert report["slowest"] < fuzzing.LONGEST
