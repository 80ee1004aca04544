"""``segments.json`` and ``segments.csv``: what runs over cases write of their segments."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest
from cohort import (
    files_in,
    random_probabilities,
    write_cohort,
    write_dataset_json,
    write_member,
)

from fastcal import SegmentSettings, ensemble_statistics
from fastcal.cases import segments
from fastcal.cases.segments import SegmentTable
from fastcal.cli import main
from fastcal.core.errors import DataError
from fastcal.core.lock import sole_use
from fastcal.data import nifti
from fastcal.data.predictions import PredictionFolder, as_tensor
from fastcal.predict import ensemble_folders, merge_segments
from fastcal.segments import SCORES

NAMES = ("case_a", "case_b", "case_c")


@pytest.fixture
def cohort(tmp_path: Path) -> tuple[list[Path], Path]:
    folders, labels, *_ = write_cohort(tmp_path, members=3, cases=NAMES)
    return folders, labels


def test_scores_of_a_folder_are_those_of_the_tensors(
    cohort: tuple[list[Path], Path], tmp_path: Path
) -> None:
    folders, _ = cohort
    ensemble_folders(folders, tmp_path / "out")
    table = segments.read(tmp_path / "out")
    assert tuple(table.cases) == NAMES
    assert table.scores == SCORES
    for case in NAMES:
        found = [PredictionFolder(folder).probabilities(case) for folder in folders]
        spacing = nifti.geometry(folders[0] / f"{case}.nii.gz").spacing
        wanted = ensemble_statistics(
            [as_tensor(one)[None] for one in found],
            maps=(),
            from_logits=False,
            segments=SegmentSettings(pairs=True),
        ).segments.in_mm(spacing)
        for k, structure in enumerate(table.structures):
            for name in SCORES:
                got, value = table.cases[case][structure][name], float(wanted[name][0, k])
                assert got == value or (math.isnan(got) and math.isnan(value)), (name, structure)


def test_csv_has_a_row_for_every_structure_of_every_case(
    cohort: tuple[list[Path], Path], tmp_path: Path
) -> None:
    ensemble_folders(cohort[0], tmp_path / "out")
    table = segments.read(tmp_path / "out")
    with (tmp_path / "out/segments.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["case"], row["structure"]) for row in rows] == [
        (case, structure) for case in NAMES for structure in table.structures
    ]
    for row in rows:
        for name in SCORES:
            value = table.cases[row["case"]][row["structure"]][name]
            assert row[name] == ("" if math.isnan(value) else repr(value))


def test_a_resumed_run_writes_the_same_bytes(
    cohort: tuple[list[Path], Path], tmp_path: Path
) -> None:
    folders, _ = cohort
    out = tmp_path / "out"
    ensemble_folders(folders, out)
    whole = (out / "segments.json").read_bytes(), (out / "segments.csv").read_bytes()
    (out / "segments/case_b.json").unlink()
    (out / "segments.json").unlink()
    summary = ensemble_folders(folders, out)
    assert (summary.done, summary.skipped) == (("case_b",), ("case_a", "case_c"))
    assert whole == ((out / "segments.json").read_bytes(), (out / "segments.csv").read_bytes())


def test_parts_put_together_have_the_bytes_of_one_run(
    cohort: tuple[list[Path], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders, _ = cohort
    ensemble_folders(folders, tmp_path / "whole")
    for part_id in range(4):  # one more than there are cases
        ensemble_folders(folders, tmp_path / "parts", num_parts=4, part_id=part_id)
    assert main(["merge", "-i", str(tmp_path / "parts"), "-o", str(tmp_path / "merged")]) == 0
    assert "4 parts put together" in capsys.readouterr().out
    for name in ("segments.json", "segments.csv"):
        merged = (tmp_path / "merged" / name).read_bytes()
        assert merged == (tmp_path / "whole" / name).read_bytes()
    (tmp_path / "parts/segments.part-2-of-4.json").unlink()
    with pytest.raises(DataError, match=r"segments\.part-.*: part 2 of 4 is missing"):
        merge_segments(tmp_path / "parts", tmp_path / "merged")
    assert merge_segments(tmp_path / "whole", tmp_path / "merged") is None


def test_parts_that_share_a_case_are_refused(
    cohort: tuple[list[Path], Path], tmp_path: Path
) -> None:
    folders, _ = cohort
    for part_id in range(2):
        ensemble_folders(folders, tmp_path / "out", num_parts=2, part_id=part_id)
    first, second = (tmp_path / f"out/segments.part-{k}-of-2.json" for k in range(2))
    second.write_bytes(first.read_bytes())
    with pytest.raises(DataError, match="case case_a is also in"):
        merge_segments(tmp_path / "out", tmp_path / "out")


def test_scores_older_than_their_cases_are_not_put_together(
    cohort: tuple[list[Path], Path], tmp_path: Path
) -> None:
    (folders, _), out = cohort, tmp_path / "out"
    for part_id in range(2):
        ensemble_folders(folders, out, num_parts=2, part_id=part_id)
    part = out / "segments.part-1-of-2.json"
    old = part.read_bytes()
    npz = folders[0] / "case_b.npz"
    np.savez_compressed(npz, probabilities=np.load(npz)["probabilities"][::-1])
    with pytest.raises(DataError, match=r"case_b\.npz: has changed since case case_b was done"):
        merge_segments(out, out)
    ensemble_folders(folders, out, num_parts=2, part_id=1, overwrite=True)
    assert merge_segments(out, out) == out / "segments.json"
    part.write_bytes(old)
    with pytest.raises(DataError, match=r"segments\.part-1-of-2\.json: is older than its cases"):
        merge_segments(out, out)
    (out / "segments/case_a.json").write_text("{}")
    with pytest.raises(DataError, match=r"segments/case_a\.json: is not what was counted"):
        merge_segments(out, out)


def test_scores_are_put_together_in_no_folder_of_something_else(
    cohort: tuple[list[Path], Path], tmp_path: Path
) -> None:
    folders, labels = cohort
    for part_id in range(2):
        ensemble_folders(folders, tmp_path / "parts", num_parts=2, part_id=part_id)
    ensemble_folders(folders, tmp_path / "hot", temperature=2.0)
    with sole_use(tmp_path / "busy", "command"), pytest.raises(DataError, match="is in use by"):
        merge_segments(tmp_path / "parts", tmp_path / "busy")
    before = files_in(tmp_path)
    others = {labels: "which this command did not write", tmp_path / "hot": "temperature"}
    for place, message in others.items():
        with pytest.raises(DataError, match=message):
            merge_segments(tmp_path / "parts", place)
    assert files_in(tmp_path) == before


def test_without_segments_nothing_of_them_is_written(
    cohort: tuple[list[Path], Path], tmp_path: Path
) -> None:
    ensemble_folders(cohort[0], tmp_path / "out", segments=False)
    assert not list((tmp_path / "out").rglob("*segments*"))
    with pytest.raises(TypeError, match="segments must be True or False, got 1"):
        ensemble_folders(cohort[0], tmp_path / "out", segments=1)


def test_groups_of_labels_are_structures_without_a_background(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for member in "ab":
        write_member(tmp_path / member, {"case": random_probabilities(rng)[:2]})
    groups = {"background": 0, "whole": [1, 2], "core": 2}
    write_dataset_json(tmp_path / "a", labels=groups, regions_class_order=[1, 2])
    folders, description = [tmp_path / "a", tmp_path / "b"], tmp_path / "a/dataset.json"
    ensemble_folders(folders, tmp_path / "out", dataset_json=description)
    table = segments.read(tmp_path / "out/segments.json")
    assert table.structures == ("(1, 2)", "2")
    assert table.names == {"(1, 2)": "whole", "2": "core"}
    assert table.scores == SCORES


def test_values_by_case_and_the_names_of_what_there_is() -> None:
    table = SegmentTable(("0", "1"), cases={"a": {"0": {}, "1": {"volume": 7.0}}})
    assert table.values("volume", "1") == {"a": 7.0}
    with pytest.raises(ValueError, match=r"score must be among .*: volume, got 'dice'"):
        table.values("dice", "1")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 2}, "version must be"),
        ({"cases": {"a": {"7": {}}}}, "case a has a structure that is not listed: 7"),
        ({"cases": {"a": {"1": {"volume": "big"}}}}, "volume"),
        ({"structures": 3}, "structures"),
    ],
)
def test_files_that_hold_no_scores_are_refused(
    change: dict[str, object], message: str, tmp_path: Path
) -> None:
    good = {"version": 1, "structures": ["0", "1"], "cases": {"a": {"1": {"volume": None}}}}
    path = tmp_path / "segments.json"
    path.write_text(json.dumps(good))
    assert np.isnan(segments.read(tmp_path).cases["a"]["1"]["volume"])
    path.write_text(json.dumps(good | change))
    with pytest.raises(DataError, match=message) as caught:
        segments.read(path)
    assert str(caught.value).startswith(str(path))
