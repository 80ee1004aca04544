"""Batches made ready while the device is at work."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from fastcal.train.batches import Batch, BatchSource, Gathered

# How often a thread that waits looks whether it is still wanted, seconds.
POLL = 0.1


def prefetching(
    source: BatchSource, steps: Iterable[int], *, depth: int = 2, threaded: bool | None = None
) -> Iterator[Batch]:
    """The batches of some steps, in order.

    Where the cases are not on the GPU that wants the batches, a thread gathers them ``depth`` steps
    ahead in pinned memory and copies them on a stream of its own; augmentation follows on the
    device. The batches are those of `BatchSource.batch`.

    Args:
        source: of the batches.
        steps: their numbers.
        depth: batches that wait at most.
        threaded: None decides as above.
    """
    if threaded is None:
        threaded = source.device.type == "cuda" and not source.resident
    if not threaded:
        for step in steps:
            yield source.batch(step)
        return
    ready: queue.Queue[Any] = queue.Queue(depth)
    unwanted = threading.Event()
    thread = threading.Thread(target=_fill, args=(source, steps, ready, unwanted), daemon=True)
    thread.start()
    try:
        while (item := ready.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            gathered, copied = item
            if copied is not None:
                stream = torch.cuda.current_stream(source.device)
                stream.wait_event(copied)
                # The memory came from the other stream: it may be reused when this one is done.
                gathered.images.record_stream(stream)
                gathered.labels.record_stream(stream)
            yield source.finish(gathered)
    finally:
        unwanted.set()
        thread.join()


def _fill(
    source: BatchSource,
    steps: Iterable[int],
    ready: queue.Queue[Any],
    unwanted: threading.Event,
) -> None:
    """Put gathered batches, then None, or the error that ended them."""
    last: BaseException | None = None
    try:
        cuda = source.device.type == "cuda"
        stream = torch.cuda.Stream(source.device) if cuda else None  # type: ignore[no-untyped-call]
        for step in steps:
            if not _put(ready, _ahead(source, step, stream), unwanted):
                return
    except BaseException as error:
        last = error
    _put(ready, last, unwanted)


def _ahead(
    source: BatchSource, step: int, stream: torch.cuda.Stream | None
) -> tuple[Gathered, torch.cuda.Event | None]:
    if stream is None:
        return source.gather(step), None
    gathered = source.gather(step, pin=True)
    with torch.cuda.stream(stream):
        images = gathered.images.to(source.device, non_blocking=True)
        labels = gathered.labels.to(source.device, non_blocking=True)
        return replace(gathered, images=images, labels=labels), stream.record_event()


def _put(ready: queue.Queue[Any], item: object, unwanted: threading.Event) -> bool:
    """Whether the item was put before the batches were no longer wanted."""
    while not unwanted.is_set():
        try:
            ready.put(item, timeout=POLL)
            return True
        except queue.Full:
            continue
    return False
