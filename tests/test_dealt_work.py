"""What a run gives to its workers, and where it notes what became of their cases."""

from __future__ import annotations

import errno
import pickle
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from cohort import write_cohort, write_dataset_json

from fastcal.cases.combine import Wanted
from fastcal.cases.desk import Desk
from fastcal.cases.files import CaseFiles
from fastcal.cases.labels import LabelScheme
from fastcal.cases.ledger import Ledger
from fastcal.cases.settings import Counted, MemberReading, Written
from fastcal.cases.source import Member, Origin
from fastcal.cases.work import CaseWork, DealtWork
from fastcal.cases.workers import Workers
from fastcal.core.errors import DataError
from fastcal.evaluate import evaluate_folder
from fastcal.predict import ensemble_folders
from fastcal.recalibrate import fit_folders
from fastcal.recalibrate.dealt import read_by

pytest.importorskip("distributed")


class Network:
    """What must stay in the process that has loaded it."""

    def __reduce__(self) -> Any:
        raise AssertionError("a network was pickled")


@dataclass(frozen=True)
class Loaded:
    """A source that holds a network until it is moved; see `fastcal.cases.source.Source`."""

    network: Network | None
    cases: Sequence[str] = ("a",)
    reading: MemberReading = field(default_factory=lambda: MemberReading(LabelScheme.of_classes(2)))
    origin: Origin = field(default_factory=lambda: Origin(command="predict", settings={}))
    dataset_json: Path | None = None
    advice: str = ""

    def moved(self, device: torch.device) -> Loaded:
        del device
        return replace(self, network=None)

    def inputs(self, case: str) -> list[Path]:
        return [Path(case)]

    def read(self, case: str) -> Iterator[Any]:
        raise NotImplementedError

    def members(self, case: str, pieces: Iterator[Any]) -> Iterator[Member]:
        raise NotImplementedError


def test_networks_stay_in_the_process_that_has_loaded_them(tmp_path: Path) -> None:
    source, counted, written = Loaded(Network()), Counted(), Written(tmp_path / "out")
    files = CaseFiles(written)
    ledger = Ledger(source, counted, files, None)
    work = CaseWork(source, Wanted.of(counted, written), files, None, ledger)
    dealt = DealtWork(work, "cpu")
    there = pickle.loads(pickle.dumps(dealt))
    there.prepare()
    assert there.work.source.network is None
    assert there.work.ledger.finished("a") is False
    assert source.network is not None


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """``labels``, and ``out`` with label maps and probabilities."""
    folders, labels, *_ = write_cohort(tmp_path / "made")
    write_dataset_json(tmp_path)
    shutil.copytree(labels, tmp_path / "labels")
    ensemble_folders(folders, tmp_path / "out", save_probabilities=True)
    return tmp_path


@pytest.mark.parametrize("command", ["evaluate", "fit", "ensemble"])
def test_the_journal_never_takes_the_place_of_an_input(project: Path, command: str) -> None:
    label = min((project / "labels").glob("*.nii.gz"))
    before = label.read_bytes()
    (project / "again").mkdir()
    name = "journal.jsonl" if command == "ensemble" else "made.journal.jsonl"
    (project / "again" / name).hardlink_to(label)
    labels, out, made = project / "labels", project / "out", project / "again/made.json"
    run = {
        "evaluate": lambda: evaluate_folder(labels, out, made, surface=False, workers=1),
        "fit": lambda: fit_folders([out], labels, made, folds=0, workers=1),
        "ensemble": lambda: ensemble_folders([out], made.parent, labels=labels, workers=1),
    }[command]
    with pytest.raises(DataError, match=r"journal\.jsonl: is an input"):
        run()
    assert label.read_bytes() == before


@pytest.mark.parametrize("command", ["cases", "fit"])
def test_a_journal_that_cannot_be_written_is_told_before_workers_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    def started(*_: object) -> Any:
        raise AssertionError("workers were started")

    monkeypatch.setattr(Workers, "crew", started)
    (tmp_path / "fit.journal.jsonl").mkdir()
    hired = Workers(count=1)
    team, journal = hired.team(), tmp_path / "fit.journal.jsonl"
    if command == "cases":
        with pytest.raises(IsADirectoryError, match=r"fit\.journal\.jsonl"):
            team.run_cases(["a"], Never(tmp_path), journal)
    else:
        refused = pytest.raises(IsADirectoryError, match=r"fit\.journal\.jsonl")
        with refused, read_by(hired, [], tmp_path / "fit.json"):
            pass
    assert [path.name for path in tmp_path.iterdir()] == ["fit.journal.jsonl"]


@dataclass(frozen=True)
class Never:
    """A task that nobody does."""

    folder: Path

    def prepare(self) -> None:
        raise NotImplementedError

    def __call__(self, case: str, hint: Any) -> Any:
        raise NotImplementedError


@dataclass(frozen=True)
class Fails:
    """A task that ends with this error."""

    folder: Path
    error: Exception

    def prepare(self) -> None:
        pass

    def __call__(self, case: str, hint: Any) -> Any:
        del case, hint
        raise self.error


@pytest.mark.parametrize("length", [1, 2, 3])
def test_an_error_that_is_its_own_cause_is_answered(tmp_path: Path, length: int) -> None:
    ring = [ValueError(f"bad {n}") for n in range(length)]
    for n, error in enumerate(ring):
        error.__cause__ = ring[(n + 1) % length]
    answer = Desk(Fails(tmp_path, ring[0])).do("a")
    assert (answer.error, answer.unfit, answer.passing) == ("bad 0", None, False)
    ring[-1].__cause__ = OSError(errno.ENOSPC, "no space")
    assert Desk(Fails(tmp_path, ring[0])).do("a").unfit is not None


def test_the_error_of_a_file_is_not_its_own_cause(project: Path) -> None:
    (project / "out/case_a.npz").write_bytes(b"PK")
    (path,) = (project / "out").glob("case_a.npz")
    with pytest.raises(DataError, match=re.escape(str(path))) as caught:
        fit_folders([project / "out"], project / "labels", project / "fit.json", folds=0)
    seen: list[BaseException] = [caught.value]
    while seen[-1].__cause__ is not None:
        seen.append(seen[-1].__cause__)
        assert seen[-1] not in seen[:-1]
