"""Members of a case, which are read two at a time where there is more than one thread."""

from __future__ import annotations

import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
from cohort import files_in, write_cohort

from fastcal.core.errors import DataError
from fastcal.data.predictions import PredictionFolder
from fastcal.predict import ensemble_folders


@pytest.mark.parametrize("members", [4, 5])
@pytest.mark.parametrize(("threads", "limit"), [(1, 2), (2, 3)])
@pytest.mark.usefixtures("two_threads")
def test_few_members_are_in_memory_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, threads: int, limit: int, members: int
) -> None:
    torch.set_num_threads(threads)
    folders, labels, *_ = write_cohort(tmp_path, members=members)
    living: list[weakref.ref[np.ndarray]] = []
    most = 0
    read = PredictionFolder.probabilities

    def counted(folder: PredictionFolder, case: str) -> object:
        nonlocal most
        found = read(folder, case)
        base = found.data if found.data.base is None else found.data.base
        living.append(weakref.ref(base))
        most = max(most, sum(reference() is not None for reference in living))
        return found

    monkeypatch.setattr(PredictionFolder, "probabilities", counted)
    ensemble_folders(folders, tmp_path / "out", labels=labels)
    assert most <= limit


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("bad", range(5))
def test_members_read_two_at_a_time_are_those_read_in_turn(tmp_path: Path, bad: int) -> None:
    folders, *_ = write_cohort(tmp_path, members=5)
    weights = [1.0, 2.0, 3.0, 4.0, 5.0]
    ensemble_folders(folders, tmp_path / "both", weights=weights)
    torch.set_num_threads(1)
    ensemble_folders(folders, tmp_path / "alone", weights=weights)
    assert files_in(tmp_path / "both") == files_in(tmp_path / "alone")
    torch.set_num_threads(2)
    for late in (bad, 4):  # of two files that cannot be read, the first is named
        (folders[late] / "case_b.npz").write_bytes(b"PK")
    with pytest.raises(DataError, match=rf"fold_{bad}/case_b\.npz: damaged"):
        ensemble_folders(folders, tmp_path / "again", weights=weights)
