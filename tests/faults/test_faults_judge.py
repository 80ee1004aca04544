"""The rules by which kinds are judged, and the list of kinds that are known to fail."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from .commands import ENSEMBLE, ENSEMBLE_AGAIN
from .judge import Outcome, digests, verdict
from .kinds import Command, Expected, Kind, Verdict
from .registry import all_kinds
from .session import known_failures

_LINE = "fastcal: folds/fold_0/case_a.npz: truncated"


def judged(
    folder: Path,
    *,
    code: int | None = 2,
    stderr: str = _LINE,
    expected: Expected = Expected.REFUSED,
    command: Command = ENSEMBLE,
    taken: int = 0,
    baseline: Path | None = None,
    changed: dict[str, bytes] | None = None,
) -> Verdict:
    """Judge an outcome in a folder that had one file, after files were changed in it."""
    (folder / "mine").write_bytes(b"mine")
    before = digests(folder)
    for name, content in (changed or {}).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    kind = Kind(name="k", group="g", command=command, expected=expected, names=("case_a.npz",))
    return verdict(kind, Outcome(code, stderr, 1.0, taken), folder, before, baseline).verdict


def test_a_named_line_and_exit_code_2_pass(tmp_path: Path) -> None:
    assert judged(tmp_path) is Verdict.PASS


def test_a_line_without_a_name_is_unnamed(tmp_path: Path) -> None:
    assert judged(tmp_path, stderr="fastcal: math domain error") is Verdict.UNNAMED


def test_a_longer_name_does_not_name(tmp_path: Path) -> None:
    assert judged(tmp_path, stderr="fastcal: xcase_a.npz: no") is Verdict.UNNAMED


@pytest.mark.parametrize(("code", "stderr"), [(2, f"a warning\n{_LINE}"), (1, _LINE), (3, _LINE)])
def test_a_second_line_or_another_exit_code_is_noisy(
    tmp_path: Path, code: int, stderr: str
) -> None:
    assert judged(tmp_path, code=code, stderr=stderr) is Verdict.NOISY


def test_a_traceback_is_one_even_where_it_names_the_file(tmp_path: Path) -> None:
    stderr = f"Traceback (most recent call last):\n{_LINE}"
    assert judged(tmp_path, code=1, stderr=stderr) is Verdict.TRACEBACK


def test_no_answer_is_a_hang_and_a_signal_a_crash(tmp_path: Path) -> None:
    assert judged(tmp_path, code=None) is Verdict.HANG
    assert judged(tmp_path, code=-11) is Verdict.CRASH


def test_a_refusal_after_a_gigabyte_is_greedy(tmp_path: Path) -> None:
    assert judged(tmp_path, taken=1 << 30) is Verdict.GREEDY


def test_a_changed_file_is_destroyed_unless_it_is_the_resumed_output(tmp_path: Path) -> None:
    assert judged(tmp_path, changed={"mine": b"other"}) is Verdict.DESTROYED
    resumed = Command("again", (), (), "mine", resumes=True)
    changed = {"mine": b"other"}
    assert judged(tmp_path, changed=changed, command=resumed) is Verdict.PASS


def test_planted_code_that_ran_is_told_before_all_else(tmp_path: Path) -> None:
    assert judged(tmp_path, changed={"pwned": b""}) is Verdict.EXECUTED


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("out/.tmp-12-case.npz", b""),
        ("out/case.nii.gz", gzip.compress(b"x" * 1000, mtime=0)[:-9]),
        ("out/prediction.json", b'{"a": '),
        ("out/calibration.npz", b"PK"),
        ("out/log.jsonl", b'{"a": 1}\n{"a"'),
    ],
)
def test_what_is_left_half_written_is_found(tmp_path: Path, name: str, content: bytes) -> None:
    assert judged(tmp_path, changed={name: content}) is Verdict.HALF


def test_accepted_bad_input_is_silent_or_silently_wrong(tmp_path: Path) -> None:
    right, wrong = tmp_path / "right", tmp_path / "wrong"
    for folder, number in ((right, 1.0), (wrong, 2.0)):
        (folder / "out").mkdir(parents=True)
        (folder / "out/calibration.json").write_text(json.dumps({"ECE": number}))
    changed = {"out/calibration.json": json.dumps({"ECE": 1.0}).encode()}
    for expected, baseline, found in (
        (Expected.REFUSED, right, Verdict.SILENT),
        (Expected.REFUSED, wrong, Verdict.SILENTLY_WRONG),
        (Expected.SAME, right, Verdict.PASS),
        (Expected.SAME, wrong, Verdict.SILENTLY_WRONG),
        (Expected.RIGHT, wrong, Verdict.WRONG),
        (Expected.HANDLED, wrong, Verdict.PASS),
    ):
        folder = tmp_path / f"{expected}-{baseline.name}"
        folder.mkdir()
        verdict_of = judged(
            folder, code=0, stderr="", expected=expected, baseline=baseline, changed=changed
        )
        assert verdict_of is found, (expected, baseline.name)


def test_a_word_about_it_is_enough_where_it_may_be_told(tmp_path: Path) -> None:
    said = "fastcal: case_a.npz: sums are 0.5"
    assert judged(tmp_path, code=0, stderr=said, expected=Expected.TOLD) is Verdict.PASS
    assert judged(tmp_path, code=0, stderr="", expected=Expected.TOLD) is Verdict.SILENT


def test_legal_input_must_not_be_refused(tmp_path: Path) -> None:
    assert judged(tmp_path, expected=Expected.RIGHT) is Verdict.WRONG


def test_failed_cases_are_listed(tmp_path: Path) -> None:
    said = "fastcal: 1 case failed:\n  case_a: folds/fold_0/case_a.npz: truncated"
    assert judged(tmp_path, code=1, stderr=said, expected=Expected.LISTED) is Verdict.PASS
    assert judged(tmp_path, code=2, stderr=said, expected=Expected.LISTED) is Verdict.NOISY


def test_there_are_enough_kinds_of_every_command() -> None:
    commands = {kind.command.argv[0] for kind in all_kinds().values() if kind.command is not None}
    assert commands >= {
        *("ensemble", "predict", "evaluate", "recalibrate", "merge", "export", "train", "demo"),
    }
    assert len(all_kinds()) >= 400
    assert ENSEMBLE_AGAIN.resumes


def test_known_failures_are_kinds() -> None:
    known = known_failures()
    assert not known.keys() - all_kinds().keys()
    assert Verdict.PASS not in known.values()
