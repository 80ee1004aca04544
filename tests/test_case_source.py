"""`fastcal.cases`: a source of cases that the package does not know runs through the one driver."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cohort import CASES, files_in, write_cohort

from fastcal.cases import Counted, Member, MemberReading, Origin, Part, Source, Written, run
from fastcal.cases.labels import LabelScheme
from fastcal.core.errors import DataError
from fastcal.predict import ensemble_folders, merge_segments, merge_statistics

REGIONS = {"regions": ["foreground", "band:2"], "fine_bins": 64}


# The whole of a fourth source: logits of all members of a case in one ``CASE.npy`` [M, C, X, Y, Z].
class StackedLogits:
    reading = MemberReading(LabelScheme.of_classes(3), from_logits=True)
    dataset_json = None
    advice = "out of memory: use fewer members"

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def cases(self) -> list[str]:
        return sorted(path.stem for path in self.folder.glob("*.npy"))

    @property
    def origin(self) -> Origin:
        return Origin(command="stacked", settings={"folder": self.folder}, folders=[self.folder])

    def moved(self, device: torch.device) -> StackedLogits:
        del device
        return self

    def inputs(self, case: str) -> list[Path]:
        return [self.folder / f"{case}.npy"]

    def read(self, case: str) -> Iterator[np.ndarray]:
        yield from np.load(self.folder / f"{case}.npy", mmap_mode="r")

    def members(self, case: str, pieces: Iterator[np.ndarray]) -> Iterator[Member]:
        for member in pieces:
            yield Member(torch.from_numpy(member.copy())[None], None, self.folder / f"{case}.npy")


@pytest.fixture
def stacked(tmp_path: Path) -> Path:
    """``logits`` with a file per case, the ``labels``, and the same members saved in ``fold_*``."""
    _, _, drawn, _ = write_cohort(tmp_path)
    (tmp_path / "logits").mkdir()
    for case, members in drawn.items():
        np.save(tmp_path / f"logits/{case}.npy", np.log(np.stack(members)))
    return tmp_path


def predict(folder: Path, out: str, part: Part | None = None, **written: Any) -> Any:
    source: Source = StackedLogits(folder / "logits")
    counted = Counted(folder / "labels", **REGIONS)
    return run(source, counted, Written(folder / out, **written), part or Part())


def test_its_calibration_is_that_of_the_members_saved_as_probabilities(stacked: Path) -> None:
    made = predict(stacked, "made", save_probabilities=True)
    assert made.done == CASES
    saved = ensemble_folders(
        sorted(stacked.glob("fold_*")), stacked / "saved", labels=stacked / "labels", **REGIONS
    )
    for one in (made, saved):
        assert one.statistics.regions == ("foreground", "band:2")
    assert made.statistics.brier() == pytest.approx(saved.statistics.brier(), rel=1e-5)
    band = [one.statistics.region("band:2").nll() for one in (made, saved)]
    assert band[0] == pytest.approx(band[1], rel=1e-5)
    assert "made" in str(made.statistics_file)


def test_a_killed_run_resumes_to_the_same_files(stacked: Path) -> None:
    def die(_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        predict(stacked, "killed", Part(progress=die))
    resumed = predict(stacked, "killed")
    assert (resumed.skipped, resumed.done) == (CASES[:1], CASES[1:])
    predict(stacked, "whole")
    assert files_in(stacked / "killed") == files_in(stacked / "whole")


def test_its_parts_add_up_to_one_run(stacked: Path) -> None:
    predict(stacked, "whole")
    for part_id in range(2):
        predict(stacked, "parts", Part(num_parts=2, part_id=part_id))
    merge_statistics(stacked / "parts", stacked / "parts")
    merge_segments(stacked / "parts", stacked / "parts")
    parts, whole = files_in(stacked / "parts"), files_in(stacked / "whole")
    assert {name: parts[name] for name in whole} == whole


def test_its_bad_case_is_listed_and_its_settings_are_recorded(stacked: Path) -> None:
    path = stacked / "logits/case_b.npy"
    values = np.load(path)
    values[1, :, 2, 3, 4] = np.nan
    np.save(path, values)
    made = predict(stacked, "made", Part(keep_going=True))
    assert made.done == ("case_a", "case_c")
    assert made.failed[0].reason == f"{path}: 3 values are NaN or infinite"
    with pytest.raises(DataError, match=r"prediction\.json: .* n_bins = 15, but now it is 10"):
        run(
            StackedLogits(stacked / "logits"),
            Counted(stacked / "labels", n_bins=10, **REGIONS),
            Written(stacked / "made"),
            Part(),
        )


def test_memory_that_runs_out_gives_its_advice(
    stacked: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(StackedLogits, "members", full)
    with pytest.raises(ValueError, match=r"^case_a: out of memory: use fewer members$"):
        predict(stacked, "made")


@pytest.mark.parametrize(
    ("group", "settings", "message"),
    [
        (Counted, {"regions": ["box"]}, r"regions must be empty without labels, got \['box'\]"),
        (Counted, {"n_bins": 0}, "n_bins must be between 1 and 65536, got 0"),
        (Counted, {"closed": "both"}, "closed must be .*, got 'both'"),
        (Counted, {"fine_bins": 100}, "fine_bins must be .*, got 100"),
        (Written, {"out": "out", "maps": "entropy"}, "maps must be a list of names"),
        (Written, {"out": "out", "maps": ["x"]}, "maps must be among .*, got 'x'"),
        (Written, {"out": "out", "dtype": "int16"}, "dtype must be .*, got 'int16'"),
        (Written, {"out": "out", "overwrite": "no"}, "overwrite must be True or False, got 'no'"),
        (Part, {"num_parts": "2"}, "num_parts must be an integer, got '2'"),
        (Part, {"num_parts": 0}, "num_parts must be at least 1, got 0"),
        (Part, {"num_parts": 2, "part_id": 2}, "part_id must be .*, got 2"),
    ],
)
def test_a_group_of_settings_is_checked_when_it_is_made(
    group: Any, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        group(**settings)
