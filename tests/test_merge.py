"""`fastcal.predict.merge_statistics`: the parts of a sharded run add up to the bits of one run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from cohort import write_cohort

from fastcal import CalibrationStatistics
from fastcal.core.errors import DataError
from fastcal.evaluate import part_of
from fastcal.predict import ensemble_folders, merge_statistics

NAMES = tuple(f"case_{letter}" for letter in "abcde")


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    """Parts 0 to 2 of 3 in one folder, ``parts``, and one run over everything in ``whole``."""
    folders, labels, *_ = write_cohort(tmp_path, members=2, cases=NAMES)
    for part_id in (2, 0, 1):
        ensemble_folders(folders, tmp_path / "parts", labels=labels, num_parts=3, part_id=part_id)
    ensemble_folders(folders, tmp_path / "whole", labels=labels)
    return tmp_path


def test_merged_parts_have_the_bytes_of_one_run(sharded: Path) -> None:
    merged = merge_statistics(sharded / "parts", sharded / "merged")
    whole = sharded / "whole"
    assert merged.state_file.read_bytes() == (whole / "calibration.npz").read_bytes()
    assert merged.summary_file.read_bytes() == (whole / "calibration.json").read_bytes()
    assert len(merged.parts) == 3
    for case in NAMES:
        name = f"{case}.nii.gz"
        assert (sharded / "parts" / name).read_bytes() == (whole / name).read_bytes()


def test_order_of_the_parts_does_not_matter(sharded: Path) -> None:
    files = [sharded / f"parts/calibration.part-{part}-of-3.npz" for part in (1, 2, 0)]
    merged = merge_statistics(files, sharded / "merged")
    assert merged.state_file.read_bytes() == (sharded / "whole/calibration.npz").read_bytes()


def test_parts_may_lie_in_folders_of_their_own(sharded: Path) -> None:
    places = []
    for part in range(3):
        place = sharded / f"machine_{part}"
        place.mkdir()
        shutil.move(sharded / f"parts/calibration.part-{part}-of-3.npz", place)
        places.append(place)
    merged = merge_statistics(places, sharded / "merged")
    assert merged.statistics == CalibrationStatistics.load(sharded / "whole/calibration.npz")


def test_part_without_a_case_counts_as_a_part(tmp_path: Path) -> None:
    folders, labels, *_ = write_cohort(tmp_path, members=1, cases=["case_a"])
    for part_id in range(2):
        summary = ensemble_folders(
            folders, tmp_path / "out", labels=labels, num_parts=2, part_id=part_id
        )
    assert summary.done == ()
    merged = merge_statistics(tmp_path / "out", tmp_path / "out")
    assert merged.statistics.case_ids == ("case_a",)


def test_summary_has_the_metrics_of_the_state(sharded: Path) -> None:
    summary = json.loads((sharded / "whole/calibration.json").read_text())
    statistics = CalibrationStatistics.load(sharded / "whole/calibration.npz")
    assert summary["pooled"]["ECE"] == statistics.ece()
    assert summary["pooled"]["Brier"] == statistics.brier()
    assert summary["case"]["NLL"] == statistics.nll(reduction="case")
    assert summary["cases"] == list(NAMES)


def test_missing_part_is_named(sharded: Path) -> None:
    (sharded / "parts/calibration.part-1-of-3.npz").unlink()
    with pytest.raises(DataError, match=r"part-0-of-3\.npz: part 1 of 3 is missing"):
        merge_statistics(sharded / "parts", sharded / "merged")
    assert not (sharded / "merged").exists()


def test_part_given_twice_is_named(sharded: Path) -> None:
    twice = [sharded / "parts", sharded / "parts/calibration.part-2-of-3.npz"]
    with pytest.raises(DataError, match=r"part-2-of-3\.npz: this is the same part as"):
        merge_statistics(twice, sharded / "merged")


def test_case_counted_in_two_states_is_named(sharded: Path) -> None:
    both = [sharded / "whole/calibration.npz", sharded / "whole/calibration/case_b.npz"]
    with pytest.raises(DataError, match=r"case_b\.npz: case case_b is also counted in .*whole"):
        merge_statistics(both, sharded / "merged")


def test_states_with_other_bins_are_named(sharded: Path) -> None:
    CalibrationStatistics(3, n_bins=10).save(sharded / "ten.npz")
    with pytest.raises(DataError, match=r"ten\.npz: .*n_bins"):
        merge_statistics([sharded / "whole", sharded / "ten.npz"], sharded / "merged")


def test_damaged_missing_and_absent_states_are_named(sharded: Path) -> None:
    damaged = sharded / "parts/calibration.part-1-of-3.npz"
    damaged.write_bytes(damaged.read_bytes()[:100])
    with pytest.raises(DataError, match=r"part-1-of-3\.npz"):
        merge_statistics(sharded / "parts", sharded / "merged")
    with pytest.raises(DataError, match=r"nothing\.npz: no such file or folder"):
        merge_statistics(sharded / "nothing.npz", sharded / "merged")
    with pytest.raises(DataError, match=r"labels: no statistics "):
        merge_statistics(sharded / "labels", sharded / "merged")
    with pytest.raises(ValueError, match="parts must be at least one folder or state file, got"):
        merge_statistics([], sharded / "merged")


def test_parts_share_the_cases_out() -> None:
    parts = [part_of(NAMES, num_parts=3, part_id=part) for part in range(3)]
    assert sorted(case for part in parts for case in part) == list(NAMES)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
