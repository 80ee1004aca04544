"""Batches prepared ahead, while the device works."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import torch

from fastcal.train.batches import Batch, BatchSource, Gathered

# Seconds between two looks of a waiting thread at whether it is still needed.
POLL = 0.1


def prefetching(
    source: BatchSource, steps: Iterable[int], *, depth: int = 2, threaded: bool | None = None
) -> Iterator[Batch]:
    """Yield the batches of some steps, in order; they equal those of `BatchSource.batch`.

    Where the batches go to a GPU that does not hold the cases, a thread gathers them ``depth``
    steps ahead in pinned memory and copies them on a stream of its own. Augmentation follows on
    the device.

    Args:
        source: The source of the batches.
        steps: Their numbers.
        depth: Batches that wait at most.
        threaded: Whether to use a thread; None decides as described above.
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
                # The memory was allocated on the other stream. It may be reused once this stream
                # has finished with it.
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
    """Put gathered batches into the queue, then None, or the error that ended them."""
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
    """Put an item, and return False if the batches were no longer wanted before there was room."""
    while not unwanted.is_set():
        try:
            ready.put(item, timeout=POLL)
            return True
        except queue.Full:
            continue
    return False
