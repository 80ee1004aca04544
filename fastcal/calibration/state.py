"""The integers behind `CalibrationStatistics`: pooled rows, and rows of each case.

A group of rows is one row of everything counted, then one row for each region.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastcal.calibration import values
from fastcal.calibration.limits import check_counted, check_room
from fastcal.calibration.settings import CalibrationSettings
from fastcal.calibration.values import Integers
from fastcal.core.problem import StatisticsLayout
from fastcal.core.sums_to_one import MOST_CLASSES
from fastcal.core.targets import Targets, Wording
from fastcal.core.whole import Whole

_whole = Whole()
"""Held while integers change or are read. One lock for all states: a change takes microseconds,
`merge` needs two states, and states stay plain objects that can be copied, pickled and traced."""


@dataclass(slots=True, eq=False)
class Pending:
    """Counts of a call that have not been checked yet."""

    rows: Tensor
    case_ids: tuple[str, ...] | None
    nan_policy: str
    wording: Wording
    thread: int = 0
    """The thread that counts into the rows; 0 in a traced graph."""
    open: bool = False
    """A call is counting into the rows."""

    def in_flight(self) -> bool:
        """Whether another thread may be counting into the rows right now."""
        if not self.open or self.thread == _thread():
            return False
        return any(thread.ident == self.thread for thread in threading.enumerate())


class CalibrationState:
    """Rows of one layout that calls and merges add to; their order never shows in the integers.

    Several threads may add to one state. It is read once they have.

    Args:
        settings: What is counted.
    """

    def __init__(self, settings: CalibrationSettings) -> None:
        self.settings = settings
        self.layout = settings.layout
        self.shape = (settings.rows, settings.layout.words)
        self._total: Integers | None = None
        self._positions: dict[str, int] = {}
        self._case_rows: Integers | None = None
        self._pending: list[Pending] = []
        self._warned = False

    @property
    def total(self) -> Integers:
        """The pooled row ``[W]`` of everything counted."""
        row: Integers = self.totals[0]
        return row

    @property
    def totals(self) -> Integers:
        """``[1 + R, W]``, once everything that is still on a device has been checked and merged."""
        with _whole:
            for pending in [kept for kept in self._pending if not kept.in_flight()]:
                self._settle(pending, None)
                self._pending.remove(pending)
            if self._total is None:
                self._total = np.zeros(self.shape, np.int64)
            return self._total

    @property
    def case_rows(self) -> Integers:
        """``[n_cases, W]`` of everything counted, in the order of `case_ids`.

        Raises:
            ValueError: There are no cases, or some voxels were counted without a case id.
        """
        with _whole:
            n_voxels = int(self.total[StatisticsLayout.N_VOXELS])
            rows: Integers = self.case_groups[:, 0]
        without = n_voxels - int(rows[:, StatisticsLayout.N_VOXELS].sum())
        if without or len(rows) == 0:
            found = f"{without} of {n_voxels} voxels without" if without else "none"
            raise ValueError(f"case_id must be given with every update to read cases, got {found}")
        return rows

    @property
    def case_groups(self) -> Integers:
        """A copy ``[n_cases, 1 + R, W]``, in the order of `case_ids`."""
        return self.snapshot()[2]

    @property
    def case_ids(self) -> tuple[str, ...]:
        """In the order of their first appearance."""
        with _whole:
            if self._pending:
                _ = self.totals
            return tuple(self._positions)

    def snapshot(self) -> tuple[Integers, tuple[str, ...], Integers]:
        """Return `totals`, `case_ids` and `case_groups` of one moment."""
        with _whole:
            totals = self.totals
            held = self._case_rows
            if held is None:
                held = np.zeros((0, *self.shape), np.int64)
            return totals, tuple(self._positions), held[: len(self._positions)].copy()

    def case_group(self, case_id: str) -> Integers:
        """Return the rows of one case, ``[1 + R, W]``.

        Raises:
            ValueError: There is no such case.
        """
        with _whole:
            if case_id not in self.case_ids or self._case_rows is None:
                raise ValueError(f"case_id must be one that was counted, got {case_id!r}")
            group: Integers = self._case_rows[self._positions[case_id]].copy()
            return group

    def sorted_cases(self) -> tuple[list[str], Integers]:
        """Return the ids in ascending order, and their groups of rows."""
        _, names, rows = self.snapshot()
        order = sorted(range(len(names)), key=names.__getitem__)
        return [names[index] for index in order], rows[order]

    def open_rows(self, targets: Targets, device: torch.device, wording: Wording) -> Tensor:
        """Return integers for an op to add to: new ones, or those of a call still on the device."""
        if torch.compiler.is_compiling():  # a graph has one thread, and is not interrupted
            return self._rows_to_count_into(targets, device, wording)
        with _whole:
            return self._rows_to_count_into(targets, device, wording)

    def _rows_to_count_into(
        self, targets: Targets, device: torch.device, wording: Wording
    ) -> Tensor:
        if targets.case_ids is None and device.type != "cpu" and self._pending:
            last = self._pending[-1]
            same = last.case_ids is None and last.nan_policy == targets.nan_policy
            same = same and last.thread == _thread()
            if same and last.rows.device == device and last.wording == wording:
                last.open = True
                return last.rows
        rows, words = self.shape
        return torch.zeros(targets.n_groups * rows, words, dtype=torch.int64, device=device)

    def take(self, rows: Tensor, targets: Targets, wording: Wording) -> None:
        """Check and merge counted rows, or keep them for later.

        They are kept where reading them would wait for a device or could not be traced.

        Raises:
            ValueError: The rows count bad data; nothing was merged.
        """
        if torch.compiler.is_compiling():
            self._take(rows, targets, wording, later=True)
            return
        with _whole:
            self._take(rows, targets, wording, later=rows.device.type != "cpu")

    def _take(self, rows: Tensor, targets: Targets, wording: Wording, *, later: bool) -> None:
        for kept in self._pending:
            if kept.rows is rows:
                kept.open = False
                return
        pending = Pending(rows, targets.case_ids, targets.nan_policy, wording, _thread())
        if later:
            self._pending.append(pending)
        else:
            self._settle(pending, targets)

    def add(self, rows: Integers, case_ids: Sequence[str] | None) -> None:
        """Add groups of rows ``[G, 1 + R, W]`` to the pooled one, and to those of their cases.

        Raises:
            ValueError: The sum is more than the state can hold; nothing was added.
        """
        with _whole:
            self._total = self._plus(self._total, rows.sum(0))
            if case_ids is not None:
                self._add_cases(rows, case_ids)

    def merge(self, other: CalibrationState) -> None:
        """Add everything that ``other`` holds; rows of equal case ids add up.

        Raises:
            ValueError: The sum is more than the state can hold; nothing was added.
        """
        with _whole:
            self._total = self._plus(self.totals, other.totals)
            if other.case_ids:
                self._add_cases(other.case_groups, other.case_ids)

    def replace(self, total: Integers, case_rows: Integers, case_ids: Sequence[str]) -> None:
        """Hold these groups of rows instead of everything counted, pending calls included."""
        with _whole:
            self._pending.clear()
            self._total = total.reshape(self.shape).copy()
            self._positions = {name: position for position, name in enumerate(case_ids)}
            self._case_rows = case_rows.reshape(-1, *self.shape).copy()

    def plain(self) -> dict[str, Any]:
        """Return copies of ``total`` and ``case_rows``, and the ``case_ids`` in ascending order.

        Rows are ``[W]``, and ``[1 + R, W]`` where there are regions.
        """
        with _whole:
            case_ids, groups = self.sorted_cases()
            return {
                "total": self.totals.reshape(self._plain_shape).copy(),
                "case_ids": case_ids,
                "case_rows": groups.reshape(-1, *self._plain_shape),
            }

    def load(self, plain: Mapping[str, Any]) -> None:
        """Hold what `plain` gave instead of everything counted.

        Raises:
            ValueError: The rows do not fit the settings or cannot have been counted, or a case id
                is there twice.
        """
        total, case_rows = np.asarray(plain["total"]), np.asarray(plain["case_rows"])
        case_ids = [str(name) for name in plain["case_ids"]]
        shape = self._plain_shape
        fits = total.shape == shape and case_rows.shape == (len(case_ids), *shape)
        if not fits or total.dtype != np.int64 or case_rows.dtype != np.int64:
            raise ValueError(
                f"state must have int64 rows of {shape} words, got total {total.shape} and "
                f"{case_rows.shape} for {len(case_ids)} cases"
            )
        if len(set(case_ids)) < len(case_ids):
            raise ValueError(f"state must hold each case id once, got {case_ids}")
        groups = case_rows.reshape(-1, *self.shape)
        check_counted(total.reshape(self.shape), groups, self.settings)
        self.replace(total, case_rows, case_ids)

    @property
    def _plain_shape(self) -> tuple[int, ...]:
        return self.shape if self.settings.regions else self.shape[1:]

    def _plus(self, total: Integers | None, rows: Integers) -> Integers:
        summed = values.carried(rows if total is None else total + rows, self.layout)
        check_room(summed, self.settings)
        return summed

    def _add_cases(self, rows: Integers, case_ids: Sequence[str]) -> None:
        positions = self._positions
        at = np.array([positions.setdefault(name, len(positions)) for name in case_ids], np.intp)
        kept = self._case_rows
        if kept is None or len(positions) > len(kept):
            capacity = max(len(positions), 0 if kept is None else 2 * len(kept))
            grown = np.zeros((capacity, *self.shape), np.int64)
            if kept is not None:
                grown[: len(kept)] = kept
            kept = self._case_rows = grown
        np.add.at(kept, at, rows)
        kept[at] = values.carried(kept[at], self.layout)

    def _settle(self, pending: Pending, targets: Targets | None) -> None:
        groups = pending.rows.cpu().numpy().reshape(-1, *self.shape)
        if groups[:, 0, StatisticsLayout.N_INVALID : StatisticsLayout.HEADER].any():
            self._examine(groups[:, 0].sum(0), pending, targets)
        self.add(groups, pending.case_ids)

    def _examine(self, total: Integers, pending: Pending, targets: Targets | None) -> None:
        """Raise for bad data; warn, once, for probabilities that do not sum to 1."""
        layout = StatisticsLayout
        if total[layout.N_BAD_TARGET]:
            raise ValueError(self._bad_targets(total, targets))
        n_invalid = int(total[layout.N_INVALID])
        if n_invalid and pending.nan_policy == "raise":
            n_outside = int(total[layout.N_OUT_OF_RANGE])
            raise ValueError(_invalid_message(n_invalid, n_outside, pending.wording))
        n_unnormalised = int(total[layout.N_UNNORMALISED])
        if n_unnormalised and self.settings.num_classes > MOST_CLASSES:
            raise ValueError(
                f"probabilities of more than {MOST_CLASSES} classes must sum to 1 within 1e-3, "
                f"got other sums at {_voxels(n_unnormalised)} (normalise=True divides by the sum)"
            )
        if n_unnormalised and not self._warned:
            self._warned = True
            warnings.warn(
                f"the probabilities of {_voxels(n_unnormalised)} do not sum to 1 within 1e-3; they "
                "are used as they are (normalise=True divides by the sum)",
                stacklevel=6,
            )

    def _bad_targets(self, total: Integers, targets: Targets | None) -> str:
        top = 2 if self.settings.multilabel else self.settings.num_classes
        n_bad = int(total[StatisticsLayout.N_BAD_TARGET])
        outside = [] if targets is None else targets.values_outside(top)
        if outside:
            found = ", ".join(str(value) for value in outside[:5]) + ", ..." * (len(outside) > 5)
        else:
            mean = int(total[StatisticsLayout.BAD_TARGET_SUM]) / n_bad
            found = f"{mean:g}" if n_bad == 1 else f"{mean:g} on average"
        return f"target must lie in [0, {top}) or be ignore_index, got {found} at {_voxels(n_bad)}"


def _thread() -> int:
    return 0 if torch.compiler.is_compiling() else threading.get_ident()


def _invalid_message(n_invalid: int, n_outside: int, wording: Wording) -> str:
    reasons = []
    if n_outside:
        reasons.append(
            f"probabilities outside [0, 1] at {_voxels(n_outside)} (for logits {wording.logits})"
        )
    if n_invalid > n_outside:
        reasons.append(f"NaN, +inf or -inf in all classes at {_voxels(n_invalid - n_outside)}")
    return (
        f"{wording.predictions} must give valid probabilities at every voxel, got no valid "
        f"probabilities at {_voxels(n_invalid)}: {'; '.join(reasons)}"
        + (f". {wording.omit} leaves such voxels out" if wording.omit else "")
    )


def _voxels(n: int) -> str:
    return f"{n} voxel" if n == 1 else f"{n} voxels"
