"""Cases on real workers of Dask: the same bits for any number of them, whatever ends in between."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cohort import CASES, files_in, write_cohort, write_images, write_references, write_run
from worker_tasks import OddSource

from fastcal.cases import Counted, Part, PredictionSummary, Written, run
from fastcal.cases.journal import FILE, last_entries, read_journal
from fastcal.cases.workers import Team, Workers
from fastcal.cli import main
from fastcal.evaluate import evaluate_folder
from fastcal.predict import folder_status, predict_cases
from fastcal.recalibrate import fit_folders

pytest.importorskip("distributed")

# What the libraries say while processes die under them; the results are what counts.
pytestmark = pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::DeprecationWarning", "ignore::pytest.PytestWarning"
)

NAMES = tuple(f"case_{letter}" for letter in "abcdef")


@pytest.fixture(scope="module")
def stacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``members`` with a file per case, and the ``labels``."""
    folder = tmp_path_factory.mktemp("workers")
    _, _, drawn, _ = write_cohort(folder, cases=NAMES)
    (folder / "members").mkdir()
    for case, members in drawn.items():
        np.save(folder / f"members/{case}.npy", np.stack(members))
    return folder


def done(folder: Path, out: Path, team: Team | None = None, **part: Any) -> PredictionSummary:
    return run(
        OddSource(folder / "members"),
        Counted(folder / "labels", fine_bins=64, regions=["foreground"]),
        Written(out, save_probabilities=True),
        Part(keep_going=True, **part),
        team,
    )


def results(folder: Path) -> dict[str, bytes]:
    """Everything but the journal, which has times in it."""
    return {name: content for name, content in files_in(folder).items() if name != FILE}


def due(folder: Path, **what: dict[str, int]) -> None:
    for name, cases in what.items():
        for case, times in cases.items():
            (folder / f"members/{case}.{name}").write_text(str(times))


@pytest.fixture(autouse=True)
def nothing_due(stacked: Path) -> None:
    for path in stacked.glob("members/*"):
        if path.suffix != ".npy":
            path.unlink()


def test_workers_that_are_killed_in_mid_case_cost_that_case_alone(
    stacked: Path, tmp_path: Path
) -> None:
    """One is killed once, one at every try, and a third case is bad; then all is well again."""
    whole = done(stacked, tmp_path / "whole")
    due(stacked, kill={"case_b": 1, "case_e": 99}, bad={"case_c": 1})
    made = done(stacked, tmp_path / "made", Workers(count=2).team())
    assert made.done == ("case_a", "case_b", "case_d", "case_f")
    reasons = {one.case: one.reason for one in made.failed}
    assert reasons.keys() == {"case_c", "case_e"}
    assert "is torn" in reasons["case_c"]
    assert "set aside" in reasons["case_e"]
    lines = read_journal(tmp_path / "made" / FILE)
    begun = [line.case for line in lines if line.state == "begun"]
    assert {case: begun.count(case) for case in NAMES} == dict.fromkeys(NAMES, 1) | {
        "case_b": 2,
        "case_e": 2,
    }
    assert last_entries(lines)["case_e"].state == "aside"
    status = folder_status(tmp_path / "made")
    assert status.finished == made.done
    assert {one.case for one in status.unfit} == {"case_c", "case_e"}

    due(stacked, kill={"case_e": 0}, bad={"case_c": 0})
    again = done(stacked, tmp_path / "made")
    assert (again.done, again.skipped) == (("case_c", "case_e"), made.done)
    assert results(tmp_path / "made") == results(tmp_path / "whole")
    assert again.statistics == whole.statistics


def test_an_address_where_no_scheduler_answers_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fastcal.cases.dask_crew.CONNECT_SECONDS", 0.5)
    folders, labels, _, _ = write_cohort(tmp_path)
    words = ["ensemble", "-i", *map(str, folders), "-o", str(tmp_path / "out"), "-q"]
    assert main([*words, "-g", str(labels), "--scheduler", "tcp://127.0.0.1:9"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "scheduler must be the address of a Dask scheduler that answers" in said
    assert "tcp://127.0.0.1:9" in said


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--workers", "0"], "workers must be from 1 to 1024, got 0"),
        (["--workers", "2", "--scheduler", "tcp://a:1"], "workers must be None where a scheduler"),
        (["--scheduler", "somewhere"], "scheduler must be an address such as tcp://"),
    ],
)
def test_bad_options_are_refused_before_anything_is_read(
    words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["ensemble", "-i", str(tmp_path), "-o", str(tmp_path / "out"), *words]) == 2
    assert message in capsys.readouterr().err


def test_without_dask_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "distributed", None)
    with pytest.raises(ImportError, match=re.escape("pip install 'fastcal[scale]'")):
        Workers(count=2)


# --- all that takes long --------------------------------------------------------------------------


@pytest.mark.slow
def test_any_number_of_workers_gives_the_same_bits(stacked: Path, tmp_path: Path) -> None:
    whole = done(stacked, tmp_path / "whole")
    for count in (1, 2, 4):
        made = done(stacked, tmp_path / f"made_{count}", Workers(count=count).team())
        assert made.done == whole.done
        assert made.statistics == whole.statistics
        assert results(tmp_path / f"made_{count}") == results(tmp_path / "whole")


@pytest.mark.slow
def test_the_command_tells_what_each_worker_did(
    stacked: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(stacked)  # paths from here mean the same in a worker
    words = ["ensemble", "-i", "fold_0", "fold_1", "-g", "labels", "-q"]
    assert main([*words, "-o", str(tmp_path / "whole")]) == 0
    capsys.readouterr()
    path = stacked / "fold_1/case_d.npz"
    content, was = path.read_bytes(), path.stat()
    path.write_bytes(content[:100])
    try:
        assert main([*words, "-o", str(tmp_path / "made"), "--workers", "2"]) == 1
    finally:
        path.write_bytes(content)
        os.utime(path, ns=(was.st_atime_ns, was.st_mtime_ns))
    said = capsys.readouterr()
    assert re.search(r"worker 0 on \S+ +\d", said.out)
    assert "5 cases written" in said.out
    assert "1 case failed:\n  case_d: fold_1/case_d.npz" in said.err
    assert main(["status", "-p", str(tmp_path / "made")]) == 1
    said = capsys.readouterr()
    assert "5 cases finished" in said.out
    assert "case_d: fold_1/case_d.npz" in said.err
    assert main([*words, "-o", str(tmp_path / "made"), "--workers", "1"]) == 0
    assert results(tmp_path / "made") == results(tmp_path / "whole")


@pytest.mark.slow
def test_networks_are_loaded_once_in_a_worker_and_predict_the_same_bits(tmp_path: Path) -> None:
    write_run(tmp_path / "run", members=2)
    write_images(tmp_path / "images")
    write_references(tmp_path / "labels")
    for name, workers in (("whole", None), ("made", 2)):
        made = predict_cases(
            tmp_path / "run",
            tmp_path / "images",
            tmp_path / name,
            labels=tmp_path / "labels",
            save_probabilities=True,
            workers=workers,
        )
        assert made.done == CASES
    assert results(tmp_path / "made") == results(tmp_path / "whole")


def processes_of(session: int) -> list[str]:
    """The living processes that a process has started since it leads a session."""
    found = []
    for folder in Path("/proc").iterdir():
        with suppress(OSError):
            if folder.name.isdigit():
                state, _, _, own = (folder / "stat").read_text().rpartition(")")[2].split()[:4]
                if int(own) == session and state != "Z":
                    found.append((folder / "cmdline").read_text().replace("\0", " "))
    return found


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
@pytest.mark.parametrize("lines", [0, 1, 4, 7])
def test_ctrl_c_ends_all_workers_in_one_line_and_the_run_goes_on(
    stacked: Path, tmp_path: Path, lines: int
) -> None:
    """A terminal sends it to every process of the group; twice, by an impatient user."""
    folds, labels = sorted(map(str, stacked.glob("fold_*"))), str(stacked / "labels")
    words = ["ensemble", "-i", *folds, "-g", labels, "-q", "-o"]
    assert main([*words, str(tmp_path / "whole")]) == 0
    made = tmp_path / "made"
    path = os.pathsep.join((str(Path(__file__).parent.parent), *sys.path))
    with subprocess.Popen(
        [sys.executable, "-m", "fastcal", *words, str(made), "--workers", "2"],
        env=os.environ | {"PYTHONPATH": path},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as run:
        try:
            while run.poll() is None and len(read_journal(made / FILE)) < lines:
                time.sleep(0.02)
            time.sleep(0.0 if lines else 2.0)  # while workers start, or modules are imported
            os.killpg(run.pid, signal.SIGINT)
            if lines == 7:
                time.sleep(0.3)
                os.killpg(run.pid, signal.SIGINT)
            assert run.stderr is not None
            said = run.communicate(timeout=120)[1]
        finally:
            run.kill()
    assert run.returncode in (130, -signal.SIGINT)
    assert said in ("", "fastcal: interrupted; the same command resumes from here\n")
    for _ in range(50):
        if not processes_of(run.pid):
            break
        time.sleep(0.1)
    assert processes_of(run.pid) == []
    assert main([*words, str(made)]) == 0
    assert results(made) == results(tmp_path / "whole")


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A scheduler with two workers of 1 GB that fastcal did not start."""
    import dask
    from distributed import LocalCluster

    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    with (
        dask.config.set({"distributed.worker.memory.spill": False}),
        LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            memory_limit="1GB",
            dashboard_address="127.0.0.1:0",
            scheduler_kwargs={"dashboard": False},
            silence_logs=50,
        ) as made,
    ):
        yield made


@pytest.mark.slow
def test_a_worker_out_of_memory_costs_that_case_alone(
    stacked: Path, tmp_path: Path, cluster: Any
) -> None:
    whole = done(stacked, tmp_path / "whole")
    due(stacked, memory={"case_c": 1})
    made = done(stacked, tmp_path / "made", Workers(cluster.scheduler_address).team())
    assert made.done == whole.done
    assert results(tmp_path / "made") == results(tmp_path / "whole")
    begun = [one.case for one in read_journal(tmp_path / "made" / FILE) if one.state == "begun"]
    assert {case: begun.count(case) for case in NAMES} == dict.fromkeys(NAMES, 1) | {"case_c": 2}


@pytest.mark.slow
def test_scores_and_fits_are_the_same_to_the_last_bit(
    stacked: Path, tmp_path: Path, cluster: Any
) -> None:
    address, folds = cluster.scheduler_address, sorted(stacked.glob("fold_*"))
    for name, scheduler in (("whole", None), ("made", address)):
        (tmp_path / name).mkdir()
        evaluate_folder(
            stacked / "labels",
            folds[0],
            tmp_path / name / "scores.json",
            num_classes=3,
            surface=False,
            regions=["prediction"],
            scheduler=scheduler,
        )
        for method in ("temperature", "temperature-per-class", "vector", "histogram", "isotonic"):
            file = tmp_path / name / f"{method}.json"
            fit = fit_folders(
                folds[:1],
                stacked / "labels",
                file,
                method=method,
                folds=2 if method == "vector" else 0,
                scheduler=scheduler,
            )
            if fit.held_out:
                fit.held_out[0].after.save(tmp_path / name / f"{method}-after.npz")
        ensemble = tmp_path / name / "members.json"
        fit_folders(
            folds,
            stacked / "labels",
            ensemble,
            ensemble="member-then-pool",
            folds=0,
            scheduler=scheduler,
        )
    made = {name: one for name, one in files_in(tmp_path / "made").items() if "journal" not in name}
    assert made == files_in(tmp_path / "whole")


@pytest.mark.slow
def test_a_bad_case_ends_a_fit_with_its_file(stacked: Path, tmp_path: Path, cluster: Any) -> None:
    path = stacked / "fold_2/case_d.npz"
    content = path.read_bytes()
    path.write_bytes(content[:100])
    try:
        with pytest.raises(ValueError, match=re.escape(str(path))):
            fit_folders(
                [stacked / "fold_2"],
                stacked / "labels",
                tmp_path / "fit.json",
                scheduler=cluster.scheduler_address,
            )
    finally:
        path.write_bytes(content)
    lines = read_journal(tmp_path / "fit.journal.jsonl")
    assert {one.case for one in lines if one.state == "failed"} == {"case_d"}
    assert not (tmp_path / "fit.json").exists()


@pytest.mark.slow
def test_a_full_disk_of_one_worker_stops_nothing_and_of_all_everything(
    stacked: Path, tmp_path: Path, cluster: Any
) -> None:
    team = Workers(cluster.scheduler_address).team()
    due(stacked, full={"case_a": 1})
    made = done(stacked, tmp_path / "made", team)
    assert made.done == NAMES
    assert made.failed == ()
    due(stacked, full=dict.fromkeys(NAMES, 9))
    with pytest.raises(OSError, match="No space left on device"):
        done(stacked, tmp_path / "other", team)


@pytest.mark.slow
def test_a_pause_of_workers_and_of_the_network_changes_nothing(
    stacked: Path, tmp_path: Path, cluster: Any
) -> None:
    whole = done(stacked, tmp_path / "whole")
    pids = [worker.pid for worker in cluster.workers.values()]

    def pause() -> None:
        for pid in pids:
            time.sleep(0.5)
            os.kill(pid, signal.SIGSTOP)
            time.sleep(2)
            os.kill(pid, signal.SIGCONT)

    thread = threading.Thread(target=pause)
    thread.start()
    made = done(stacked, tmp_path / "made", Workers(cluster.scheduler_address).team())
    thread.join()
    assert made.done == whole.done
    assert results(tmp_path / "made") == results(tmp_path / "whole")


@pytest.mark.slow
def test_a_scheduler_that_is_killed_is_told_and_resumed_from(
    stacked: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fastcal.cases.workers._PATIENCE_OF_A_SCHEDULER", 10.0)
    from distributed import Client

    whole = done(stacked, tmp_path / "whole")
    file = str(tmp_path / "scheduler.json")
    paths = os.pathsep.join((str(Path(__file__).parent), str(Path(__file__).parent.parent)))
    dask, env = (sys.executable, "-m", "dask"), os.environ | {"PYTHONPATH": paths}
    words = (*dask, "scheduler", "--scheduler-file", file, "--port", "0", "--no-dashboard")
    with subprocess.Popen(
        [*words, "--host", "127.0.0.1"], env=env, stderr=subprocess.DEVNULL
    ) as one:
        words = (*dask, "worker", "--scheduler-file", file, "--nthreads", "1", "--no-dashboard")
        with subprocess.Popen(words, env=env, stderr=subprocess.DEVNULL) as worker:
            try:
                while not Path(file).exists():
                    time.sleep(0.1)
                address = json.loads(Path(file).read_text())["address"]
                with Client(address, set_as_default=False) as client:
                    client.wait_for_workers(1, timeout=120)
                team = Workers(address).team()
                with pytest.raises(ValueError, match="the same command resumes from here"):
                    done(stacked, tmp_path / "made", team, progress=lambda _: one.kill())
            finally:
                one.kill()
                worker.kill()
    made = done(stacked, tmp_path / "made")
    assert made.skipped
    assert results(tmp_path / "made") == results(tmp_path / "whole")
    assert made.statistics == whole.statistics
