"""Exact calibration statistics: integers that add up, and the metrics read from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from fastcal import bins, ops
from fastcal.arguments import flag, real_number, whole_number
from fastcal.arrays import Array, real_dtype, to_tensor
from fastcal.calibration import conventions, file
from fastcal.calibration.conventions import ConventionName
from fastcal.calibration.measures import Mode
from fastcal.calibration.metrics import CalibrationMetrics
from fastcal.calibration.state import CalibrationState
from fastcal.errors import DataError
from fastcal.members import check_member
from fastcal.problem import CALIBRATIONS, StatisticsLayout
from fastcal.targets import CaseId, Targets, check_nan_policy, read_targets

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

NOTHING_COUNTED = (None, None, None, None, False, "both", 0.0, None)
"""What an op takes in place of `OpenCount.arguments` where there is no target."""


@dataclass(frozen=True, slots=True)
class OpenCount:
    """Statistics that a call is counting."""

    statistics: CalibrationStatistics
    arguments: tuple[Any, ...]
    """The last arguments of an op: target, mask, ..., the rows to add to."""
    targets: Targets
    nan_policy: str
    source: str

    def close(self) -> CalibrationStatistics:
        """Check what was counted, and merge it.

        Raises:
            ValueError: Bad data were counted (CPU tensors; otherwise at the first read).
        """
        rows = self.arguments[-1]
        self.statistics._state.take(rows, self.targets, self.nan_policy, self.source)
        return self.statistics


class CalibrationStatistics(CalibrationMetrics):
    """Calibration of probabilities over any number of volumes, in a state of a few kilobytes.

    The state is integers (sums of probabilities in steps of 2^-40): the same bits whatever the
    number of threads, the chunking, or the order of updates and merges.

    Bad data are errors, and leave the state as it was: on the CPU at the end of the call that
    brings them, for CUDA tensors (and under ``torch.compile``) when a statistic is next read, so
    that no call waits for the device.

    Args:
        num_classes: C. With 1 the data are binary: the probability of the positive class against
            a target of 0 and 1.
        n_bins: Bins of equal width over [0, 1].
        closed: ``"right"``: bins (lo, hi], the first closed at 0. ``"left"``: [lo, hi), the last
            closed at 1. None is ``"right"``, or what the convention has.
        mode: Which bins are kept: ``"top-label"`` (confidence against correctness), ``"classwise"``
            (each class's probability against its presence), or ``"both"``.
        multilabel: Every class is a Bernoulli of its own: targets have the shape of the
            probabilities, labels are p > 0.5, top-label bins and accuracy pool all classes, Brier
            score and NLL are summed over classes.
        eps: Lower clip of the probability inside the NLL, never below the smallest normal number
            of the accumulation type, which is the default.
        convention: Whose edges, zeros and ones, units and eps are used: ``"default"``, or a
            library's (see `preset`, which also has its number of bins).

    Raises:
        TypeError, ValueError: An argument is not one of these, or ``closed`` is not what the
            convention has.

    Example:
        >>> import torch
        >>> statistics = CalibrationStatistics(num_classes=3, n_bins=3)
        >>> probs = torch.tensor(
        ...     [[0.25, 0.20, 0.55], [0.55, 0.05, 0.40], [0.10, 0.30, 0.60], [0.90, 0.05, 0.05]]
        ... )
        >>> statistics.update(probs, torch.tensor([0, 1, 2, 0]))
        >>> round(statistics.ece(), 6), round(statistics.ece("max"), 4)
        (0.2, 0.2333)
    """

    def __init__(
        self,
        num_classes: int,
        n_bins: int = 15,
        closed: bins.Closed | None = None,
        mode: Mode = "both",
        *,
        multilabel: bool = False,
        eps: float | None = None,
        convention: ConventionName = "default",
    ) -> None:
        num_classes = whole_number(num_classes, "num_classes")
        if num_classes < 1:
            raise ValueError(f"num_classes must be positive, got {num_classes}")
        found = conventions.find(convention)
        closed = (found.closed or "right") if closed is None else closed
        n_bins = bins.check_bins(n_bins, closed)
        if found.closed not in (None, closed):
            raise ValueError(
                f"closed must be {found.closed!r} for convention={convention!r}, got {closed!r}"
            )
        if mode not in CALIBRATIONS:
            raise ValueError(f"mode must be one of {CALIBRATIONS}, got {mode!r}")
        eps = None if eps is None else real_number(eps, "eps")
        if eps is not None and not 0 < eps < 1:
            raise ValueError(f"eps must lie between 0 and 1, got {eps:g}")
        self.num_classes = num_classes
        self.n_bins = n_bins
        self.closed = closed
        self.mode = mode
        self.multilabel = flag(multilabel, "multilabel") or num_classes == 1
        self.eps = eps
        self.convention = convention
        self._convention = found
        self._thresholds = found.thresholds(n_bins, closed)
        layout = StatisticsLayout(num_classes, n_bins + self._convention.extra_cells, mode)
        self._state = CalibrationState(layout, self.multilabel)

    @classmethod
    def preset(
        cls,
        name: ConventionName,
        num_classes: int,
        *,
        n_bins: int | None = None,
        mode: Mode | None = None,
        multilabel: bool = False,
        eps: float | None = None,
    ) -> CalibrationStatistics:
        """Statistics that reproduce another library's numbers from the same probabilities.

        - ``"paper"``: (lo, hi], 10 bins; p = 0 falls into no bin but counts in N; errors in %; NLL
          clipped at 1e-15 (Mehrtash et al., IEEE TMI 2020, by the first author's code).
        - ``"torchmetrics"``: [lo, hi), 15 bins, and one more for p = 1.
        - ``"monai"``: (lo, hi], 20 bins up to 1 + 2^-23, classwise; its mean over cases is
          ``classwise_ece(reduction="case")``.
        - ``"netcal"``: [lo, hi), 10 bins; p clipped to [eps, 1 - eps] (in a copy); two classes are
          binary data.
        - ``"sklearn"``: (lo, hi], 5 bins, as `sklearn.calibration.calibration_curve`; NLL clipped
          at the eps of the type, as `sklearn.metrics.log_loss`.
        - ``"exacta"``: bin ``floor(p n)``, 15 bins; top-label for binary data too.
        - ``"fiducio"``: (lo, hi], 15 bins; NLL clipped at 1e-12.
        - ``"default"``: what the class does by itself.

        Edges are each library's own, to the last bit.

        Args:
            name: One of these.
            num_classes: See the class, as for the others.
            n_bins: The library's default if None.
            mode: ``"both"``, or ``"classwise"`` for MONAI, if None.
            multilabel: See the class.
            eps: The library's if None.

        Raises:
            TypeError, ValueError: As for the class.

        Example:
            >>> import torch
            >>> probs, target = torch.tensor([[0.95, 1.0]]), torch.tensor([[1, 0]])
            >>> for name in ("default", "torchmetrics"):
            ...     statistics = CalibrationStatistics.preset(name, num_classes=1)
            ...     statistics.update(probs, target)
            ...     print(round(statistics.ece(), 3))
            0.475
            0.525
        """
        convention = conventions.find(name)
        return cls(
            num_classes,
            convention.n_bins if n_bins is None else n_bins,
            mode=convention.mode if mode is None else mode,
            multilabel=multilabel,
            eps=eps,
            convention=name,
        )

    def update(
        self,
        probs: Array,
        target: Array,
        *,
        mask: Array | None = None,
        ignore_index: int | None = None,
        case_id: CaseId | Sequence[CaseId] | None = None,
        class_dim: int = 1,
        normalise: bool = False,
        nan_policy: str = "raise",
        from_logits: bool = False,
    ) -> None:
        """Count one batch of probabilities.

        Args:
            probs: ``[B, C, *S]``, probabilities; float16, bfloat16, float32 or float64. Binary
                data may leave out the class axis.
            target: ``[B, *S]``, integers in [0, C); ``[B, C, *S]`` of 0 and 1 when multilabel.
            mask: bool ``[B, *S]``, True keeps.
            ignore_index: Target value that is left out.
            case_id: One id a batch item (a string or an integer, kept as a string); equal ids
                add up. Needed for ``reduction="case"``.
            class_dim: Axis of the classes in ``probs``.
            normalise: Divide each voxel's probabilities by their sum first.
            nan_policy: ``"raise"``, or ``"omit"`` to leave out and count invalid voxels.
            from_logits: ``probs`` are logits, to be made probabilities on the way: softmax, or
                sigmoid for binary and multilabel data. Never guessed.

        Raises:
            TypeError, ValueError: Shapes, types or devices do not fit; targets outside [0, C);
                with ``nan_policy="raise"``, voxels without valid probabilities.
        """
        values = to_tensor(probs, "probs")
        check_nan_policy(nan_policy)
        if self.num_classes == 1 and _lacks_classes(values, target, class_dim):
            values, class_dim = values.unsqueeze(-1), values.dim()
        real = real_dtype(values, "probs")
        axis = check_member(values, class_dim, "probs")
        if values.shape[axis] != self.num_classes:
            raise ValueError(
                f"probs must have {self.num_classes} classes along axis {axis}, "
                f"got shape {tuple(values.shape)}"
            )
        from_logits = flag(from_logits, "from_logits")
        if flag(normalise, "normalise") and self.multilabel:
            raise ValueError("normalise=True is not defined for binary or multilabel data")
        if self._convention.clipped:
            if from_logits:
                raise ValueError(f"from_logits=True: {self.convention!r} clips probabilities")
            values = _clipped(values)
        targets = read_targets(
            target,
            mask,
            ignore_index,
            case_id,
            values.shape,
            values.device,
            axis,
            self.multilabel,
        )
        count = self.open_count(targets, values.device, real, nan_policy, "probs")
        ops.ensemble_statistics(
            [values],
            [1.0],
            [1.0],
            axis,
            from_logits,
            "sigmoid" if self.multilabel else "softmax",
            self.multilabel,
            "prob",
            [],
            [],
            normalise,
            *count.arguments,
        )
        count.close()

    def open_count(
        self,
        targets: Targets,
        device: torch.device,
        real: torch.dtype,
        nan_policy: str,
        source: str,
    ) -> OpenCount:
        """Integers for an op to add to (for the ensemble functions).

        Args:
            targets: Checked.
            device: Of the predictions.
            real: Their accumulation type.
            nan_policy: ``"raise"`` or ``"omit"``, checked.
            source: The argument to blame for invalid voxels.
        """
        rows = self._state.open_rows(targets, device, nan_policy, source)
        smallest = self._convention.smallest(real)
        arguments = (
            targets.target,
            targets.mask,
            targets.ignore_index,
            self._thresholds_of(real),
            self.closed == "left",
            self.mode,
            smallest if self.eps is None else max(self.eps, torch.finfo(real).tiny),
            rows,
        )
        return OpenCount(self, arguments, targets, nan_policy, source)

    def _thresholds_of(self, real: torch.dtype) -> Tensor:
        if self._thresholds is None:
            return bins.thresholds(self.n_bins, real)
        return self._thresholds[real == torch.float64]

    def case(self, case_id: CaseId) -> CalibrationStatistics:
        """The statistics of one case alone.

        Raises:
            ValueError: There is no such case.
        """
        if str(case_id) not in self.case_ids:
            raise ValueError(f"case_id {case_id!r} was never given")
        row = self._state.case_row(str(case_id))
        alone = self._empty()
        alone._state.add(row[None], (str(case_id),))
        return alone

    def merge(self, other: CalibrationStatistics) -> None:
        """Add everything ``other`` has counted, in place; rows of equal case ids add up.

        Raises:
            TypeError: ``other`` is something else.
            ValueError: ``other`` has other classes, bins, mode or eps.
        """
        if not isinstance(other, CalibrationStatistics):
            raise TypeError(f"other must be CalibrationStatistics, got {type(other).__name__}")
        mine, theirs = self._settings(), other._settings()
        different = [name for name in mine if mine[name] != theirs[name]]
        if different:
            name = different[0]
            raise ValueError(
                f"statistics differ in {name}: {mine[name]!r} here, {theirs[name]!r} in the other"
            )
        self._state.merge(other._state)

    def all_reduce(self, group: ProcessGroup | None = None) -> None:
        """Add up the statistics of all processes of a torch.distributed group, in place.

        Every process of the group has to call it, those that counted nothing too, and holds the
        sum over all of them afterwards, cases included; equal case ids add up. The sums are of
        integers: the bits are those one process would have counted. Calling it twice counts
        everything as often as there are processes; `reset` starts anew.

        Args:
            group: The processes; None for all. gloo sums on the CPU, nccl on the current device.

        Raises:
            ValueError: No process group is initialised or this process is not in ``group``;
                settings differ; a process counted bad data (raised on all of them).
        """
        from fastcal.calibration.distributed import sum_over_group

        sum_over_group(self._state, self._settings(), group)

    def __add__(self, other: CalibrationStatistics) -> CalibrationStatistics:
        if not isinstance(other, CalibrationStatistics):
            return NotImplemented
        both = self._empty()
        both.merge(self)
        both.merge(other)
        return both

    def __radd__(self, other: object) -> CalibrationStatistics:
        """``0 + statistics``, so that ``sum`` takes a list of them."""
        return self + self._empty() if other == 0 else NotImplemented

    def __eq__(self, other: object) -> bool:
        """Equal settings and integers, the cases in any order."""
        if not isinstance(other, CalibrationStatistics):
            return NotImplemented
        mine, theirs = self._state, other._state
        return (
            self._settings() == other._settings()
            and np.array_equal(mine.total, theirs.total)
            and set(mine.case_ids) == set(theirs.case_ids)
            and all(np.array_equal(mine.case_row(i), theirs.case_row(i)) for i in mine.case_ids)
        )

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        settings = ", ".join(f"{name}={value!r}" for name, value in self._settings().items())
        return f"CalibrationStatistics({settings})"

    def _settings(self) -> dict[str, Any]:
        return {
            "num_classes": self.num_classes,
            "n_bins": self.n_bins,
            "closed": self.closed,
            "mode": self.mode,
            "multilabel": self.multilabel,
            "eps": self.eps,
            "convention": self.convention,
        }

    def _empty(self) -> CalibrationStatistics:
        return CalibrationStatistics(**self._settings())

    def reset(self) -> None:
        """Forget everything counted, bad data that wait for a read included."""
        self._state = CalibrationState(self._state.layout, self.multilabel)

    def state_dict(self) -> dict[str, Any]:
        """Settings and integers as plain values and int64 tensors, for ``torch.save``.

        Cases are sorted by id, so that equal statistics give equal states.
        """
        case_ids, case_rows = self._state.sorted_cases()
        return {
            "settings": self._settings(),
            "total": torch.from_numpy(self._state.total.copy()),
            "case_ids": case_ids,
            "case_rows": torch.from_numpy(case_rows),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Hold what `state_dict` gave instead of what was counted so far.

        Raises:
            ValueError: The state has other settings, or rows that do not fit them.
        """
        missing = {"settings", "total", "case_ids", "case_rows"} - state.keys()
        if missing:
            raise ValueError(f"state lacks {sorted(missing)}")
        settings = dict(state["settings"])
        if settings != self._settings():
            raise ValueError(f"state has settings {settings}, expected {self._settings()}")
        total, case_rows = np.asarray(state["total"]), np.asarray(state["case_rows"])
        case_ids = [str(name) for name in state["case_ids"]]
        words = self._state.layout.words
        fits = total.shape == (words,) and case_rows.shape == (len(case_ids), words)
        if not fits or total.dtype != np.int64 or case_rows.dtype != np.int64:
            raise ValueError(
                f"state must have int64 rows of {words} words, got total {total.shape} and "
                f"{case_rows.shape} for {len(case_ids)} cases"
            )
        if len(set(case_ids)) < len(case_ids):
            raise ValueError("state repeats a case id")
        self._state.replace(total, case_rows, case_ids)

    def save(self, path: str | Path) -> None:
        """Write the state to ``.npz`` or ``.json``, whole or not at all, cases sorted by id.

        Raises:
            ValueError: The suffix is neither.
            OSError: The file cannot be written.
        """
        case_ids, case_rows = self._state.sorted_cases()
        state = {"total": self._state.total, "case_rows": case_rows, "case_ids": case_ids}
        file.write(Path(path), self._settings(), state)

    @classmethod
    def load(cls, path: str | Path) -> CalibrationStatistics:
        """The statistics that `save` wrote.

        Raises:
            DataError: The file is damaged or is something else.
            FileNotFoundError: There is no such file.
        """
        settings, state = file.read(Path(path))
        try:
            loaded = cls(**settings)
            loaded.load_state_dict({"settings": loaded._settings(), **state})
        except (TypeError, ValueError) as error:
            raise DataError(path, str(error)) from error
        return loaded


def _lacks_classes(values: Tensor, target: Array, class_dim: int) -> bool:
    if values.shape != getattr(target, "shape", None):
        return False
    return class_dim >= values.dim() or values.shape[class_dim] != 1


def _clipped(values: Tensor) -> Tensor:
    """What lies in [0, 1], clipped to [eps, 1 - eps] with the eps of its type."""
    eps = torch.finfo(values.dtype).eps
    inside = (values >= 0) & (values <= 1)
    return torch.where(inside, values.clamp(eps, 1 - eps), values)
