"""Devices of workers, and the part of a job in an array."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from cohort import files_in, write_cohort

from fastcal.cases.workers import Team, Workers, visible_devices, worker_environments
from fastcal.cli import main
from fastcal.core.job_array import array_part, chosen_part
from fastcal.predict import merge_statistics

pytest.importorskip("distributed")

# --- devices --------------------------------------------------------------------------------------


def test_each_worker_sees_one_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 3)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,GPU-5ab,7")
    workers = Workers(count=4)
    for asked in ("cuda", None):
        team = workers.team(asked)
        assert team == Team(workers, "cuda", ("4", "GPU-5ab", "7"))
        seen = [one["CUDA_VISIBLE_DEVICES"] for one in worker_environments(4, team.pins)]
        assert seen == ["4", "GPU-5ab", "7", "4"]
    # The second that this process sees is the only one that a worker sees.
    assert workers.team("cuda:1") == Team(workers, "cuda", ("GPU-5ab",))
    assert workers.team("cpu") == Team(workers, "cpu")
    with pytest.raises(ValueError, match="device must exist here"):
        workers.team("cuda:3")
    # The machines of a scheduler have other devices than this one.
    remote = Workers("tcp://node1:8786")
    assert (remote.team("cuda:9").device, remote.team(None).device) == ("cuda:9", None)


def test_without_the_variable_gpus_are_counted() -> None:
    assert visible_devices(None, 2) == ["0", "1"]
    assert visible_devices("", 0) == []
    assert all("CUDA_VISIBLE_DEVICES" not in one for one in worker_environments(2))


def test_the_threads_of_a_machine_are_shared() -> None:
    assert [one["OMP_NUM_THREADS"] for one in worker_environments(2, (), 8)] == ["8", "8"]


@pytest.mark.parametrize("count", [1, 3])
def test_workers_share_the_memory_of_the_machine_whatever_its_cores(
    count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    import logging

    from distributed import LocalCluster, system, worker_memory

    from fastcal.cases import dask_crew

    given: dict[str, object] = {}
    monkeypatch.setattr(LocalCluster, "__init__", lambda _, **options: given.update(options))
    monkeypatch.setattr(LocalCluster, "scale", lambda *_: None)
    dask_crew._Local(worker_environments(count))
    limit = worker_memory.parse_memory_limit(
        given.get("memory_limit", "auto"), 1, 64, logger=logging.getLogger()
    )
    assert limit == pytest.approx(system.MEMORY_LIMIT / count, abs=count)


def test_workers_are_forked_where_ctrl_c_is_blocked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else each of them prints a traceback of its own."""
    from multiprocessing import forkserver, resource_tracker

    from fastcal.cases import dask_crew

    def blocked() -> bool:
        return signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, [])

    seen: list[bool] = []
    monkeypatch.setattr(forkserver, "ensure_running", lambda: seen.append(blocked()))
    monkeypatch.setattr(resource_tracker, "ensure_running", lambda: None)
    dask_crew._fork_warm()
    assert seen == [True]
    assert not blocked()


# --- job arrays -----------------------------------------------------------------------------------


def slurm(count: object, own: object, first: object = 0, **more: object) -> dict[str, str]:
    held = {"COUNT": count, "ID": own, "MIN": first, **more}
    return {f"SLURM_ARRAY_TASK_{name}": str(value) for name, value in held.items()}


@pytest.mark.parametrize(
    ("environment", "part"),
    [
        ({}, (1, 0)),
        (slurm(4, 3), (4, 3)),
        (slurm(4, 1, 1, MAX=4), (4, 0)),
        (slurm(3, 14, 10, MAX=14, STEP=2), (3, 2)),
        (slurm("four", 1), (1, 0)),
        ({"SLURM_ARRAY_TASK_ID": "3"}, (1, 0)),
    ],
)
def test_an_array_says_which_part_this_is(
    environment: dict[str, str], part: tuple[int, int]
) -> None:
    assert array_part(environment) == part


@pytest.mark.parametrize(
    "environment", [slurm(2, 5, 1, MAX=5), slurm(3, 7), slurm(2, 1, 0, STEP=2)]
)
def test_an_array_with_gaps_is_refused(environment: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="give --num-parts and --part-id"):
        array_part(environment)


@pytest.mark.parametrize(
    ("given", "environment", "part"),
    [
        ((None, None), slurm(4, 2, 1, MAX=4), (4, 1)),
        ((4, None), slurm(4, 2, 1, MAX=4), (4, 1)),
        ((None, 3), slurm(4, 2, 1, MAX=4), (4, 3)),
        ((8, 5), slurm(2, 9, 1, MAX=9), (8, 5)),
        ((4, None), {}, (4, 0)),
        ((None, 0), {}, (1, 0)),
    ],
)
def test_what_one_option_leaves_open_comes_from_the_array(
    given: tuple[int | None, int | None], environment: dict[str, str], part: tuple[int, int]
) -> None:
    assert chosen_part(*given, environment) == part


@pytest.mark.parametrize("environment", [slurm(1, 5, 5), slurm(2, 1)])
def test_parts_that_are_not_those_of_the_array_need_their_number(
    environment: dict[str, str],
) -> None:
    """``--array=5`` with ``--num-parts 64`` would be part 0 of 64, a second time."""
    with pytest.raises(ValueError, match=r"num_parts must be the size of the job array .*got 64"):
        chosen_part(64, None, environment)


def test_an_array_job_needs_no_options(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folders, labels, _, _ = write_cohort(tmp_path)
    words = ["ensemble", "-i", *map(str, folders), "-g", str(labels)]
    assert main([*words, "-o", str(tmp_path / "whole"), "-q"]) == 0
    for own in (1, 2):
        for name, value in slurm(2, own, 1, MAX=2).items():
            monkeypatch.setenv(name, value)
        assert main([*words, "-o", str(tmp_path / "parts")]) == 0
        assert f"part {own - 1} of 2" in capsys.readouterr().err
    # What is given counts.
    given = ["--num-parts", "1", "--part-id", "0", "-o", str(tmp_path / "given"), "-q"]
    assert main([*words, *given]) == 0
    merge_statistics(tmp_path / "parts", tmp_path / "parts")
    whole, parts = files_in(tmp_path / "whole"), files_in(tmp_path / "parts")
    assert parts["calibration.npz"] == whole["calibration.npz"]
    assert files_in(tmp_path / "given") == whole
