"""Members are brought to a GPU through two pinned buffers; shown with streams that note orders."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor

from fastcal.core import upload
from fastcal.core.upload import Uploads

NOTES: list[str] = []


class Event:
    made = 0

    def __init__(self) -> None:
        Event.made += 1
        self.number = Event.made

    def synchronize(self) -> None:
        NOTES.append(f"host waits for copy {self.number}")


class Stream:
    def __init__(self, name: object = "copies") -> None:
        self.name = name

    def record_event(self) -> Event:
        event = Event()
        NOTES.append(f"{self.name} records {event.number}")
        return event

    def wait_event(self, event: Event) -> None:
        NOTES.append(f"{self.name} waits for {event.number}")


@pytest.fixture
def uploads(monkeypatch: pytest.MonkeyPatch) -> Uploads:
    """The way of a GPU, on the CPU."""
    NOTES.clear()
    Event.made = 0

    @contextmanager
    def on(stream: Stream) -> Iterator[None]:
        NOTES.append(f"on {stream.name}")
        yield

    monkeypatch.setattr(torch.cuda, "Stream", lambda _: Stream())
    monkeypatch.setattr(torch.cuda, "stream", on)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda _: Stream("caller"))
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda *_: NOTES.append("kept for caller"))
    monkeypatch.setattr(upload, "pinned", lambda n: torch.empty(n, dtype=torch.uint8))
    return Uploads(torch.device("cpu"))


def send(uploads: Uploads, tensor: Tensor) -> Tensor:
    found: Any = uploads._staged(tensor)
    return found


def test_the_host_waits_only_for_the_buffer_that_it_fills_again(uploads: Uploads) -> None:
    for number in range(4):
        send(uploads, torch.full((3, 5), float(number)))
    one = ["on copies", "copies records {}", "caller waits for {}", "kept for caller"]
    expected = []
    for number in range(1, 5):
        if number > 2:
            expected.append(f"host waits for copy {number - 2}")
        expected += [line.format(number) for line in one]
    assert expected == NOTES


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64, torch.uint8])
def test_values_and_strides_arrive_as_they_were(uploads: Uploads, dtype: torch.dtype) -> None:
    made = (torch.arange(2 * 3 * 4 * 5) % 200).to(dtype).view(2, 3, 4, 5)
    for tensor in (
        made,
        made.permute(3, 2, 1, 0),
        made.movedim(1, -1),
        made[:, 1:, ::2],
        made[:1].expand(3, 3, 4, 5),
        made[..., 0, 0],
    ):
        found = send(uploads, tensor)
        assert found.dtype == dtype
        assert torch.equal(found, tensor)
    assert send(uploads, made.permute(3, 2, 1, 0)).stride() == made.permute(3, 2, 1, 0).stride()


def test_a_larger_member_gets_a_larger_buffer(
    uploads: Uploads, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    monkeypatch.setattr(upload, "pinned", lambda n: sizes.append(n) or torch.empty(n).byte())
    for n in (10, 10, 4, 4, 20):
        send(uploads, torch.ones(n))
    assert sizes == [40, 40, 80]


def test_on_a_cpu_a_tensor_stays_where_it_is() -> None:
    tensor = torch.ones(3)
    assert Uploads(torch.device("cpu"))(tensor) is tensor


@pytest.mark.gpu
def test_a_gpu_computes_with_the_member_that_was_sent() -> None:
    uploads = Uploads(torch.device("cuda"))
    members = [torch.randn(7, 64, 64, 64) for _ in range(6)]
    sums = []
    for member in members:
        there = uploads(member)
        sums.append(there.double().sum())
        del there  # its memory goes back to the copy stream
    for member, found in zip(members, sums, strict=True):
        assert found.item() == pytest.approx(member.double().sum().item(), rel=1e-9)
