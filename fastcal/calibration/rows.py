"""Rows of a state, and where their histograms lie."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from fastcal.calibration.settings import CalibrationSettings
from fastcal.calibration.values import LOW_BITS, Floats, Histogram, Integers, mean_of_sum
from fastcal.core.problem import FRACTION_BITS

Kind = Literal["top-label", "positive"]
"""Confidence against correctness, or the positive class's probability against the target."""

Words = Literal[
    "counts",
    "bins",
    "classwise bins",
    "fine cells",
    "top-label fine cells",
    "classwise fine cells",
]
"""What a metric reads of a row. ``"counts"`` are the words in front of all histograms; ``"bins"``
and ``"fine cells"`` are those of the `Kind` that is asked for."""


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows of integers and the settings that they were counted with."""

    words: Integers
    """``[..., W]``"""
    settings: CalibrationSettings

    def kind(self, kind: Kind | None) -> Kind:
        """Return ``kind``, or the kind that suits the data and the convention if it is None."""
        if kind is not None:
            return kind
        settings = self.settings
        positive = settings.num_classes in settings.rules.positive
        return "positive" if positive and settings.calibration != "top-label" else "top-label"

    def columns(self, words: Words, kind: Kind | None) -> slice:
        """Return which words of a row hold the histograms named, empty where none were kept."""
        layout = self.settings.layout
        if words == "counts":
            return slice(0, 0)
        classwise = words.startswith("classwise") or (
            not words.startswith("top-label") and self.kind(kind) == "positive"
        )
        if words.endswith("bins"):
            return layout.classwise if classwise else layout.top_label
        return layout.fine_classwise if classwise else layout.fine_top_label

    def narrowed(self, words: Words, kind: Kind | None) -> Rows:
        """Return rows that hold the counts and what is named, and little else.

        Fine cells make a row hundreds of times as long; whoever adds up thousands of rows for a
        metric that does not read them should not carry them along.
        """
        settings, layout = self.settings, self.settings.layout
        plain = replace(settings, moments=False, entropy_bins=0, regions=())
        kept = settings.calibration
        top_label = words.startswith("top-label") or (
            not words.startswith("classwise")
            and (words == "counts" or self.kind(kind) == "top-label")
        )
        if top_label and kept != "classwise":
            kept = "top-label"
        end = layout.top_label.stop if kept == "top-label" else layout.classwise.stop
        if not words.endswith("fine cells"):
            shorter = replace(plain, calibration=kept, fine_bins=0)
            return Rows(self.words[..., :end], shorter)
        if kept != "top-label":
            return self
        parts = np.r_[slice(0, end), layout.fine_top_label]
        return Rows(self.words[..., parts], replace(plain, calibration=kept))

    def mean_of(self, word: int) -> Floats:
        """Return the mean over voxels, ``[...]``, of the sum that begins at a word."""
        n_voxels = self.words[..., self.settings.layout.N_VOXELS]
        return mean_of_sum(self.words[..., word], self.words[..., word + 1], n_voxels)

    def top_label(self) -> Histogram:
        """Return the bins of the confidence.

        Raises:
            ValueError: They were not kept.
        """
        self._need("top-label")
        layout = self.settings.layout
        return self._binned(
            self.words[..., layout.top_label].reshape(*self.words.shape[:-1], -1, 4)
        )

    def classwise_cells(self) -> Integers:
        """Return count, hits and summed probability (two words), ``[..., C, n_cells, 4]``.

        A sample that falls into no bin has a cell too: the first one.

        Raises:
            ValueError: They were not kept.
        """
        self._need("classwise")
        layout = self.settings.layout
        shape = (*self.words.shape[:-1], layout.num_classes, -1, 4)
        return self.words[..., layout.classwise].reshape(shape)

    def classwise(self) -> Histogram:
        """Return the bins of each class's probability, ``[..., C, n_bins, 4]``.

        Raises:
            ValueError: They were not kept.
        """
        return self._binned(self.classwise_cells())

    def micro(self) -> Histogram:
        """Return the bins of all classes as one histogram.

        Raises:
            ValueError: They were not kept.
        """
        pooled: Integers = self.classwise_cells().sum(-3)
        pooled[..., 2] += pooled[..., 3] >> FRACTION_BITS
        pooled[..., 3] &= LOW_BITS
        return self._binned(pooled)

    def bins(self, kind: Kind | None) -> Histogram:
        """Return the bins of a kind.

        Raises:
            ValueError: They were not kept, or there is no positive class.
        """
        if self.kind(kind) == "top-label":
            return self.top_label()
        self._check_positive()
        every = self.classwise()
        return Histogram(every.cells[..., -1, :, :], every.total[..., -1])

    def fine_top_label(self) -> Integers:
        """Return count and hits of the fine cells of the confidence, ``[..., fine_bins, 2]``.

        Raises:
            ValueError: They were not kept.
        """
        self._need_fine()
        self._need("top-label")
        layout = self.settings.layout
        return self.words[..., layout.fine_top_label].reshape(*self.words.shape[:-1], -1, 2)

    def fine_classwise(self) -> Integers:
        """Return count and hits of each class's fine cells, ``[..., C, fine_bins, 2]``.

        Raises:
            ValueError: They were not kept.
        """
        self._need_fine()
        self._need("classwise")
        layout = self.settings.layout
        shape = (*self.words.shape[:-1], layout.num_classes, -1, 2)
        return self.words[..., layout.fine_classwise].reshape(shape)

    def fine_cells(self, kind: Kind | None) -> Integers:
        """Return the fine cells of a kind, ``[..., fine_bins, 2]``.

        Raises:
            ValueError: They were not kept, or there is no positive class.
        """
        if self.kind(kind) == "top-label":
            return self.fine_top_label()
        self._need_fine()
        self._check_positive()
        return self.fine_classwise()[..., -1, :, :]

    def _binned(self, cells: Integers) -> Histogram:
        """Leave out the cell of the samples that are in no bin, but count them in the total."""
        first = int(self.settings.rules.zeros_dropped)
        return Histogram(cells[..., first:, :], cells[..., 0].sum(-1))

    def _check_positive(self) -> None:
        if self.settings.num_classes > 2:
            raise ValueError(
                "kind must be 'top-label' for more than two classes, got 'positive' for "
                f"{self.settings.num_classes}"
            )

    def _need_fine(self) -> None:
        if self.settings.fine_bins == 0:
            raise ValueError(
                "fine_bins must be set for measures of order (65536 is a good number), got 0: "
                "fine cells were not kept"
            )

    def _need(self, what: Literal["top-label", "classwise"]) -> None:
        calibration = self.settings.calibration
        if calibration not in ("both", what):
            raise ValueError(
                f"calibration must be 'both' or {what!r} for this measure, got {calibration!r}: "
                f"{what} bins were not kept"
            )
