"""Metrics whose state is a vector of integers."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from fastcal.calibration import CalibrationStatistics, Measure
from fastcal.calibration.values import carried
from fastcal.core.arguments import flag, whole_number
from fastcal.core.arrays import to_tensor
from fastcal.core.targets import VALIDATING, GivenTarget
from fastcal.core.whole import Whole

try:
    from torchmetrics import Metric
except ImportError as error:
    raise ImportError(
        "fastcal.torchmetrics needs torchmetrics: pip install 'fastcal[torchmetrics]'"
    ) from error

Task = Literal["binary", "multiclass", "multilabel"]


class IntegerMetric(Metric):
    """A metric whose state is the int64 vector ``counts``, which is summed over processes.

    A second state, ``configuration``, is a digest of the settings that decide what is counted. A
    `MetricCollection` lets metrics share a state where their states are equal after the first
    batch, which two metrics of different settings can be by chance.

    ``update`` and ``forward`` may be called from several threads, and Ctrl-C leaves no batch half
    counted.
    """

    is_differentiable = False
    full_state_update = False
    plot_lower_bound = 0.0

    # For type checkers alone: torch.jit.script cannot read an annotation that is a string.
    if TYPE_CHECKING:
        counts: Tensor
        configuration: Tensor

    def _add_counts(self, words: int, *settings: object) -> None:
        self.add_state("counts", torch.zeros(words, dtype=torch.int64), dist_reduce_fx="sum")
        digest = list(hashlib.sha256(repr(settings).encode()).digest())
        # One byte per word: states are compared with a relative tolerance.
        self.add_state("configuration", torch.tensor(digest), dist_reduce_fx="max")
        self._whole = Whole()

    def _count(self, counts: Tensor) -> None:
        with self._whole:
            # Not in place: a state that was reset under inference_mode cannot be written to.
            self.counts = self.counts + counts.to(self.counts.device)
            self._computed = None  # another thread may have computed since this update began

    @torch.jit.unused
    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Count one batch, and return the metric of this batch alone."""
        with self._whole:  # torchmetrics counts the batch in the metric itself, emptied meanwhile
            return super().forward(*args, **kwargs)

    def plot(self, val: Tensor | Sequence[Tensor] | None = None, ax: Any | None = None) -> Any:
        """Plot one value (``compute()`` when None) or several; returns the figure and its axes."""
        return self._plot(val, ax)

    def _value(self, number: Any) -> Tensor:
        # A module in half precision (Lightning's "bf16-true") converts its metrics, too: their
        # results are never rounded further than to float32.
        dtype = torch.promote_types(self.dtype, torch.float32)
        return torch.as_tensor(number, dtype=dtype, device=self.device)

    def _apply(
        self, fn: Callable[[Tensor], Tensor], exclude_state: Sequence[str] = ""
    ) -> nn.Module:
        # Counts move with the metric, but stay integers: ``set_dtype`` is for the results.
        integers = ("counts", "configuration")
        module = super()._apply(fn, exclude_state=(*integers, *exclude_state))
        device = fn(torch.zeros(1, device=self.counts.device)).device
        for name in integers:
            setattr(self, name, getattr(self, name).to(device))
            self._defaults[name] = self._defaults[name].to(device)  # type: ignore[union-attr]
        return module


class CalibrationMetric(IntegerMetric):
    """A metric read from `CalibrationStatistics`.

    Args:
        empty: Statistics with the settings to count with.
        measure: What `compute` reads from them.
        ignore_index: Target value that is left out.
        validate_args: False leaves voxels without valid probabilities (NaN) out instead of raising.
        from_logits: ``preds`` are logits; False: probabilities. Never guessed.
        kwargs: Arguments of `torchmetrics.Metric`.
    """

    def __init__(
        self,
        empty: CalibrationStatistics,
        measure: Measure,
        ignore_index: int | None,
        validate_args: bool,
        from_logits: bool,
        kwargs: dict[str, Any],
    ) -> None:
        super().__init__(**kwargs)
        self._empty = empty
        self._measure = measure
        self.ignore_index = (
            None if ignore_index is None else whole_number(ignore_index, "ignore_index")
        )
        self.validate_args = flag(validate_args, "validate_args")
        self.from_logits = flag(from_logits, "from_logits")
        self._add_counts(
            len(empty.state_dict()["total"]),
            empty.settings.arguments(),
            self.ignore_index,
            self.validate_args,
            self.from_logits,
        )

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Count one batch.

        Raises:
            TypeError, ValueError: Shapes or types that do not fit; targets outside [0, C); with
                ``validate_args``, voxels without valid probabilities.
        """
        num_classes = self._empty.num_classes
        preds, target = to_tensor(preds, "preds"), to_tensor(target, "target")
        if num_classes == 1:
            if preds.shape != target.shape:
                raise ValueError(
                    f"preds must have the shape of target, {tuple(target.shape)}, "
                    f"got {tuple(preds.shape)}"
                )
            preds, target = preds.unsqueeze(-1), target.unsqueeze(-1)
        elif preds.dim() < 2 or preds.shape[1] != num_classes:
            raise ValueError(
                f"preds must have {num_classes} classes along axis 1, "
                f"got shape {tuple(preds.shape)}"
            )
        policy = "raise" if self.validate_args else "omit"
        given = GivenTarget(target, None, self.ignore_index, nan_policy=policy)
        axis = -1 if num_classes == 1 else 1
        counted = self._fresh()
        counted.count(preds, given, VALIDATING, class_dim=axis, from_logits=self.from_logits)
        self._count(counted.state_dict()["total"])

    def compute(self) -> Tensor:
        """Return the metric of everything counted; NaN where nothing was counted."""
        return self._value(self._statistics().measure(self._measure))

    def statistics(self) -> CalibrationStatistics:
        """Return everything counted, over all processes, as `compute` sees it.

        Every other metric, and reliability diagrams, can be read from it.
        """
        with self.sync_context(dist_sync_fn=self.dist_sync_fn, should_sync=self._to_sync):
            return self._statistics()

    def _statistics(self) -> CalibrationStatistics:
        # Sums over batches and processes have fractions beyond 1.
        total = carried(self.counts.cpu().numpy(), self._empty.settings.layout)
        summed = self._fresh()
        summed.load_state_dict({**summed.state_dict(), "total": torch.from_numpy(total)})
        return summed

    def _fresh(self) -> CalibrationStatistics:
        return CalibrationStatistics(**self._empty.settings.arguments())


def checked_task(task: str) -> str:
    """Return ``task``, which must be one of torchmetrics' three tasks."""
    if task not in ("binary", "multiclass", "multilabel"):
        raise ValueError(f"task must be 'binary', 'multiclass' or 'multilabel', got {task!r}")
    return task


def needed(number: int | None, name: str) -> int:
    """Return ``number``, which the task needs."""
    if number is None:
        raise ValueError(f"{name} must be given for this task, got None")
    return number


def check_several(number: int, name: str) -> None:
    """Raise an error where there are fewer than two classes."""
    if whole_number(number, name) < 2:
        raise ValueError(f"{name} must be at least 2, got {number}; one class is the binary task")
