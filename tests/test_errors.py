"""Errors about files fit on one line and name the file."""

import pickle
from pathlib import Path

import pytest

from fastcal.core.errors import DataError, DataWarning


def test_a_data_error_is_one_line_that_begins_with_the_path():
    error = DataError(Path("labels/case_1.nii.gz"), "truncated\n  gzip   stream")
    assert str(error) == "labels/case_1.nii.gz: truncated gzip stream"
    assert isinstance(error, ValueError)


def test_a_data_error_survives_the_way_from_a_worker_process():
    error = pickle.loads(pickle.dumps(DataError("a.npz", "empty")))
    assert type(error) is DataError
    assert str(error) == "a.npz: empty"
    assert error.path == Path("a.npz")


@pytest.mark.parametrize("made", [DataError, DataWarning])
def test_a_value_that_is_quoted_is_short_and_steers_no_terminal(
    made: type[DataError] | type[DataWarning],
) -> None:
    value = "temper" + "atu re" * 100 + "zzz"
    line = str(made("a.json", f"kind must be vector, got {value!r}; see b.json"))
    assert line == f"a.json: kind must be vector, got '{value[:80]}...{value[-40:]}'; see b.json"
    fits = "x" * 159
    assert str(made("a.json", f"got {fits!r}")) == f"a.json: got '{fits}'"
    assert str(made("a.json", "no \x1b[2J\x7fsuch \x9bkey")) == "a.json: no ?[2J?such ?key"
