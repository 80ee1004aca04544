"""Statistics that add up: merged, reduced over processes, written to files and read back."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from fastcal.calibration import file, values
from fastcal.calibration.curves import CurveMetrics
from fastcal.calibration.state import CalibrationState
from fastcal.calibration.values import Integers
from fastcal.core.errors import DataError
from fastcal.core.targets import CaseId

if TYPE_CHECKING:
    from typing import Self

    from torch.distributed import ProcessGroup


class MergeableStatistics(CurveMetrics):
    """How the states of several `CalibrationStatistics` become one."""

    def merge(self, other: Self) -> None:
        """Add everything ``other`` has counted, in place; rows of equal case ids add up.

        Raises:
            TypeError: ``other`` is something else.
            ValueError: ``other`` has other classes, bins, calibration, eps, extras or regions.
        """
        if not isinstance(other, MergeableStatistics):
            raise TypeError(f"other must be CalibrationStatistics, got {type(other).__name__}")
        mine, theirs = self._settings(), other._settings()
        name = values.first_difference(mine, theirs)
        if name is not None:
            raise ValueError(
                f"statistics differ in {name}: {mine.get(name)!r} here, "
                f"{theirs.get(name)!r} in the other"
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

    def __add__(self, other: Self) -> Self:
        if not isinstance(other, MergeableStatistics):
            return NotImplemented
        both = self._empty()
        both.merge(self)
        both.merge(other)
        return both

    def __radd__(self, other: object) -> Self:
        """``0 + statistics``, so that ``sum`` takes a list of them."""
        return self + self._empty() if other == 0 else NotImplemented

    def __eq__(self, other: object) -> bool:
        """Equal settings and integers, the cases in any order."""
        if not isinstance(other, MergeableStatistics):
            return NotImplemented
        mine, theirs = self._state, other._state
        return (
            self._settings() == other._settings()
            and np.array_equal(mine.totals, theirs.totals)
            and set(mine.case_ids) == set(theirs.case_ids)
            and all(np.array_equal(mine.case_group(i), theirs.case_group(i)) for i in mine.case_ids)
        )

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        settings = ", ".join(f"{name}={value!r}" for name, value in self._settings().items())
        return f"CalibrationStatistics({settings})"

    def _settings(self) -> dict[str, Any]:
        """Arguments of the class that make statistics like these; extras where there are some."""
        extras = {
            "fine_bins": self.fine_bins,
            "moments": self.moments,
            "entropy_bins": self.entropy_bins,
            "regions": list(self.regions),
        }
        return {
            "num_classes": self.num_classes,
            "n_bins": self.n_bins,
            "closed": self.closed,
            "calibration": self.calibration,
            "multilabel": self.multilabel,
            "eps": self.eps,
            "convention": self.convention,
        } | {name: value for name, value in extras.items() if value}

    def _empty(self) -> Self:
        return type(self)(**self._settings())

    def _alone(self, group: Integers, case_ids: list[str], case_groups: Integers) -> Self:
        """Statistics like these of one region's rows, or of one case."""
        settings = self._settings()
        if len(group) == 1:
            settings.pop("regions", None)
        alone = type(self)(**settings)
        alone._state.replace(group, case_groups, case_ids)
        return alone

    def case(self, case_id: CaseId) -> Self:
        """The statistics of one case alone.

        Raises:
            ValueError: There is no such case.
        """
        if str(case_id) not in self.case_ids:
            raise ValueError(f"case_id {case_id!r} was never given")
        group = self._state.case_group(str(case_id))
        return self._alone(group, [str(case_id)], group[None])

    def region(self, name: str) -> Self:
        """The statistics of one region alone, its cases included.

        Raises:
            ValueError: There is no such region.

        Example:
            >>> import torch
            >>> from fastcal import CalibrationStatistics
            >>> statistics = CalibrationStatistics(num_classes=2, regions=["box"])
            >>> probs, target = torch.tensor([[[0.25, 0.5], [0.75, 0.5]]]), torch.tensor([[1, 1]])
            >>> statistics.update(probs, target, regions={"box": torch.tensor([[True, False]])})
            >>> statistics.brier(), statistics.region("box").brier()
            (0.3125, 0.125)
        """
        if name not in self.regions:
            raise ValueError(f"region must be one of {self.regions}, got {name!r}")
        row = slice(1 + self.regions.index(name), 2 + self.regions.index(name))
        state = self._state
        return self._alone(state.totals[row], list(state.case_ids), state.case_groups[:, row])

    def reset(self) -> None:
        """Forget everything counted, bad data that wait for a read included."""
        self._state = CalibrationState(self._state.layout, self.multilabel, len(self.regions))

    def state_dict(self) -> dict[str, Any]:
        """Settings and integers as plain values and int64 tensors, for ``torch.save``.

        Cases are sorted by id, so that equal statistics give equal states.
        """
        case_ids, case_rows = self._state.sorted_cases()
        return {
            "settings": self._settings(),
            "total": torch.from_numpy(self._state.totals.reshape(self._row_shape).copy()),
            "case_ids": case_ids,
            "case_rows": torch.from_numpy(case_rows.reshape(-1, *self._row_shape)),
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
        shape = self._row_shape
        fits = total.shape == shape and case_rows.shape == (len(case_ids), *shape)
        if not fits or total.dtype != np.int64 or case_rows.dtype != np.int64:
            raise ValueError(
                f"state must have int64 rows of {shape} words, got total {total.shape} and "
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
        state = {
            "total": self._state.totals.reshape(self._row_shape),
            "case_rows": case_rows.reshape(-1, *self._row_shape),
            "case_ids": case_ids,
        }
        file.write(Path(path), self._settings(), state)

    @property
    def _row_shape(self) -> tuple[int, ...]:
        """``[W]``, and ``[1 + R, W]`` where there are regions."""
        shape = self._state.shape
        return shape if self.regions else shape[1:]

    @classmethod
    def load(cls, path: str | Path) -> Self:
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
