"""Errors about files fit on one line and name the file."""

import pickle
from pathlib import Path

from fastcal.core.errors import DataError


def test_a_data_error_is_one_line_that_begins_with_the_path():
    error = DataError(Path("labels/case_1.nii.gz"), "truncated\n  gzip   stream")
    assert str(error) == "labels/case_1.nii.gz: truncated gzip stream"
    assert isinstance(error, ValueError)


def test_a_data_error_survives_the_way_from_a_worker_process():
    error = pickle.loads(pickle.dumps(DataError("a.npz", "empty")))
    assert type(error) is DataError
    assert str(error) == "a.npz: empty"
    assert error.path == Path("a.npz")
