"""Members dealt to several devices: the files of one device, in memory that is bounded."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest
import torch
from cohort import CASES, write_images, write_run

from fastcal.models import choose_devices
from fastcal.predict import InferenceAugmentation, predict_cases
from fastcal.predict.dealing import AHEAD, dealt

TWO = [torch.device("cpu"), torch.device("cpu", 1)]
"""Two devices to fastcal, and one to torch."""


@pytest.fixture
def two_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastcal.predict.members.choose_devices", lambda _: tuple(TWO))


@pytest.mark.usefixtures("two_processors")
@pytest.mark.parametrize("members", [None, [0, 2, 2]])
def test_files_are_those_of_one_device(tmp_path: Path, members: list[int] | None) -> None:
    write_run(tmp_path / "run", members=3)
    write_images(tmp_path / "images")
    names = ("entropy", "mutual_information")
    seen: set[str] = set()
    window = predict_cases.__globals__["RunMembers"]._logits

    def noted(self, network, images, one, device):
        seen.add(threading.current_thread().name)
        return window(self, network, images, one, device)

    for out in ("two", "one"):
        with pytest.MonkeyPatch.context() as patch:
            if out == "one":
                patch.setattr("fastcal.predict.members.choose_devices", lambda _: (TWO[0],))
            else:
                patch.setattr("fastcal.predict.members.RunMembers._logits", noted)
            predict_cases(
                *(tmp_path / "run", tmp_path / "images", tmp_path / out),
                maps=names,
                members=members,
                allow_duplicates=True,
                augmentation=InferenceAugmentation(mirror=(0,), as_members=True),
            )
    assert len(seen) >= 2
    for case in CASES:
        for file in (f"{case}.nii.gz", *(f"{name}/{case}.nii.gz" for name in names)):
            assert (tmp_path / "two" / file).read_bytes() == (tmp_path / "one" / file).read_bytes()


@pytest.mark.usefixtures("two_processors")
def test_random_passes_are_refused_on_several_devices(tmp_path: Path) -> None:
    write_run(tmp_path / "run", members=2)
    write_images(tmp_path / "images")
    message = "device must be one device for mc_dropout and noise, got cpu, cpu:1"
    with pytest.raises(ValueError, match=message):
        predict_cases(
            *(tmp_path / "run", tmp_path / "images", tmp_path / "out"),
            augmentation=InferenceAugmentation(noise=0.1),
        )


def test_results_come_in_order_and_few_wait() -> None:
    begun: list[int] = []
    taken = 0

    def work(n: int) -> int:
        begun.append(n)
        assert len(begun) - taken <= AHEAD * 2 + 1
        time.sleep(0.002 * (n % 3))
        return n

    for n in dealt(range(30), 2, lambda n: n % 2, work):
        assert n == taken
        taken += 1
    assert taken == 30


def test_an_error_is_raised_at_its_turn_and_the_rest_is_left() -> None:
    done: list[int] = []

    def work(n: int) -> int:
        if n == 3:
            raise ValueError("the third")
        done.append(n)
        return n

    made = dealt(range(100), 2, lambda n: n % 2, work)
    assert [next(made) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="the third"):
        next(made)
    assert len(done) < 12
    assert not any("ThreadPool" in thread.name for thread in threading.enumerate())


def test_devices_are_named_one_by_one_or_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    assert choose_devices("all") == tuple(torch.device("cuda", i) for i in range(3))
    assert choose_devices(["cuda:2", "cuda:0"]) == (torch.device("cuda:2"), torch.device("cuda:0"))
    assert choose_devices("cuda:1") == (torch.device("cuda:1"),)
    assert choose_devices(None) == (torch.device("cuda"),)
    with pytest.raises(ValueError, match="must name each device once, got cuda, cuda:0"):
        choose_devices(["cuda", "cuda:0"])
    with pytest.raises(ValueError, match="must name each device once, got none"):
        choose_devices([])
    with pytest.raises(ValueError, match="finds 3 GPUs, got 'cuda:3'"):
        choose_devices(["cuda:0", "cuda:3"])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="finds no GPU, got 'all'"):
        choose_devices("all")


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_two_gpus_write_what_one_writes(tmp_path: Path) -> None:
    write_run(tmp_path / "run", members=3)
    write_images(tmp_path / "images")
    for out, device in (("one", "cuda:0"), ("two", ["cuda:0", "cuda:1"])):
        predict_cases(tmp_path / "run", tmp_path / "images", tmp_path / out, device=device)
    for case in CASES:
        one, two = (tmp_path / out / f"entropy/{case}.nii.gz" for out in ("one", "two"))
        assert one.read_bytes() == two.read_bytes()
