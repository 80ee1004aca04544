"""Cases that are preprocessed once, and from then on read from a cache on disk."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from fastcal.core.errors import DataError
from fastcal.data.cache import CaseCache, Entry
from fastcal.data.checks import complain
from fastcal.data.dataset import Case, Dataset
from fastcal.data.preprocess import Preprocessing

# Seconds between two lines of progress.
REPORT_EVERY = 2.0


@dataclass(frozen=True)
class PreparedCases:
    """Preprocessed cases, mapped from disk or resident on a device."""

    names: list[str]
    images: list[Tensor]
    """One float32 tensor ``[N, Ch, *P]`` per case, with N slices in two dimensions and N = 1 in
    three."""
    labels: list[Tensor]
    """One uint8 (int32 above 255) tensor ``[N, *P]`` per case; it keeps the ignore label."""
    foreground: list[list[Tensor]]
    """Flat int64 indices into ``[N, *P]`` for each case and each class except for the
    background."""
    num_classes: int
    fingerprint: str
    """Digest of the settings and of the contents of all files."""
    digests: list[str]
    """Digest of the contents of the files of each case."""
    stacked: tuple[Tensor, Tensor] | None = None
    """All images and all labels, item after item, on a device where all items have one shape; the
    tensors of the cases are then views."""

    def __len__(self) -> int:
        return len(self.names)

    @property
    def nbytes(self) -> int:
        """Bytes of images and labels."""
        return sum(tensor.nbytes for tensor in (*self.images, *self.labels))

    @property
    def device(self) -> torch.device:
        """Device of images and labels."""
        return self.images[0].device

    def to(self, device: torch.device | str) -> PreparedCases:
        """Move images and labels to a device."""
        if torch.device(device) == self.device:
            return self
        if len({image.shape[1:] for image in self.images}) > 1:
            images = [image.to(device) for image in self.images]
            return replace(self, images=images, labels=[label.to(device) for label in self.labels])
        counts = [len(image) for image in self.images]
        stacked = tuple(
            _concatenated(tensors, torch.device(device)) for tensors in (self.images, self.labels)
        )
        images, labels = (list(torch.split(tensor, counts)) for tensor in stacked)
        return replace(self, images=images, labels=labels, stacked=(stacked[0], stacked[1]))

    def select(self, names: Sequence[str]) -> PreparedCases:
        """Take some of the cases, in the order of ``names``.

        Raises:
            ValueError: A name is not there.
        """
        unknown = sorted(set(names) - set(self.names))
        if unknown:
            raise ValueError(f"names must be among the prepared cases, got {', '.join(unknown)}")
        places = [self.names.index(name) for name in names]
        return replace(
            self,
            names=list(names),
            images=[self.images[place] for place in places],
            labels=[self.labels[place] for place in places],
            foreground=[self.foreground[place] for place in places],
            digests=[self.digests[place] for place in places],
            stacked=None,
        )


def prepare_cases(
    dataset: Dataset,
    cases: Sequence[Case],
    preprocessing: Preprocessing,
    folder: str | Path,
    *,
    workers: int | None = None,
    verify: bool = True,
    progress: Callable[[str], None] | None = None,
) -> PreparedCases:
    """Preprocess labelled cases into a cache, or find them there.

    Files in ``folder/<digest of the settings>/`` appear whole or not at all. A call that was killed
    can therefore be repeated, and every member, process and later run with the same settings maps
    the same files. A case is made again if its source files have changed, or if its own files are
    damaged, which their digests tell.

    Args:
        dataset: The dataset, whose dataset.json declares plain labels, not label groups.
        cases: The cases to prepare.
        preprocessing: How to preprocess; items larger than its `size` are cropped.
        folder: The folder of the cache, which is made where it is missing.
        workers: Threads, each with a case in memory; None is one per CPU core, at most 8.
        verify: Read the files that are there once, to compare their digests. False is for
            processes whose parent has just done so.
        progress: Called with a line to show, every few seconds.

    Raises:
        DataError: Names everything that is wrong with any of the cases in one line: files that are
            missing, unreadable or do not match, wrong numbers of channels, NaN, or labels that
            dataset.json does not declare.
        OSError: The disk reports an error, for example that it is full.

    Example:
        >>> prepared = prepare_cases(
        ...     dataset, dataset.cases, Preprocessing(dims=3), "prepared"
        ... )  # doctest: +SKIP
        >>> prepared.images[0].shape  # doctest: +SKIP
        torch.Size([1, 1, 35, 51, 35])
    """
    cache = CaseCache(Path(folder), dataset, preprocessing)
    problems = dataset.left_over()
    entries: dict[str, Entry] = {}
    say = _Progress(len(cases), progress)
    with ThreadPoolExecutor(workers or threads()) as pool:
        futures: dict[Future[Entry], Case] = {
            pool.submit(_entry, cache, case, verify, say): case for case in cases
        }
        try:
            for future in as_completed(futures):
                case = futures[future]
                try:
                    entries[case.name] = future.result()
                except DataError as error:
                    problems += dataset.case_problems(case) or [error]
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    complain(dataset.folder, sorted(problems, key=str))
    found = [entries[case.name] for case in cases]
    whole = hashlib.sha256(cache.settings_digest.encode())
    for case, entry in zip(cases, found, strict=True):
        whole.update(f"{case.name}={entry.digest}\n".encode())
    return PreparedCases(
        names=[case.name for case in cases],
        images=[entry.image for entry in found],
        labels=[entry.label for entry in found],
        foreground=[entry.foreground for entry in found],
        num_classes=dataset.num_classes,
        fingerprint=whole.hexdigest()[:16],
        digests=[entry.digest for entry in found],
    )


def threads() -> int:
    """Return the default number of cases that are read, and in memory, at the same time."""
    return min(8, os.cpu_count() or 1)


def _entry(cache: CaseCache, case: Case, verify: bool, say: _Progress) -> Entry:
    found = cache.find(case, verify=verify)
    if found is None:
        found = cache.make(case)
        say.made()
    else:
        say.found()
    return found


class _Progress:
    """Shows lines such as "prepared 12/200 cases, 35 s left"; cases found take no time."""

    def __init__(self, total: int, show: Callable[[str], None] | None) -> None:
        self._left = self._total = total
        self._show = show
        self._made = 0
        self._start = self._shown = time.monotonic()

    def found(self) -> None:
        self._left -= 1

    def made(self) -> None:
        self._left -= 1
        self._made += 1
        now = time.monotonic()
        if self._show is not None and (now - self._shown > REPORT_EVERY or self._left == 0):
            self._shown = now
            left = (now - self._start) / self._made * self._left
            self._show(
                f"prepared {self._total - self._left}/{self._total} cases, {left:.0f} s left"
            )


def _concatenated(tensors: Sequence[Tensor], device: torch.device) -> Tensor:
    """Concatenate case by case, so that there is never a second copy of all cases."""
    first = tensors[0]
    count = sum(len(tensor) for tensor in tensors)
    whole = torch.empty((count, *first.shape[1:]), dtype=first.dtype, device=device)
    start = 0
    for tensor in tensors:
        whole[start : start + len(tensor)] = tensor
        start += len(tensor)
    return whole
