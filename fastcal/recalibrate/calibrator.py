"""The base class of all calibrators: fit, transform, and their JSON."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor

from fastcal.core.arrays import Array, real_dtype, to_tensor
from fastcal.core.atomic import write_json
from fastcal.core.doors import bounded, read_json
from fastcal.core.errors import DataError
from fastcal.core.members import check_member
from fastcal.core.problem import Activation
from fastcal.core.shown import as_html, as_text
from fastcal.recalibrate.fitted_to import FittedTo
from fastcal.recalibrate.stream import Stream, check_volumes
from fastcal.recalibrate.volumes import PredictionReading, Volumes, walk_pairs

FORMAT = "fastcal recalibration"
_MOST_CLASSES = 65_535
VERSION = 1

Self_ = TypeVar("Self_", bound="Calibrator")


class Calibrator(ABC):
    """A map from predictions to calibrated probabilities, fitted to targets.

    Subclasses define the map. All of them take these arguments.

    Args:
        from_logits: Whether predictions are logits or probabilities; this is never guessed.
        activation: ``"softmax"``, or ``"sigmoid"`` for exclusive classes whose probabilities do not
            sum to 1. In the latter case, each class is fitted on its own, against the rest.
        multilabel: Whether every class is a Bernoulli variable of its own, with targets
            ``[B, C, *S]``.
        eps: The number that replaces a probability of 0. By default, it is the smallest number that
            the type can hold (2^-24 for float16, 2^-126 for float32).

    Raises:
        TypeError, ValueError: An argument is out of range.
    """

    kind: ClassVar[str]
    """Name in files and on the command line."""

    def __init__(
        self,
        *,
        from_logits: bool = True,
        activation: Activation = "softmax",
        multilabel: bool = False,
        eps: float | None = None,
    ) -> None:
        for name, value in (("from_logits", from_logits), ("multilabel", multilabel)):
            if not isinstance(value, bool):
                raise TypeError(f"{name} must be True or False, got {value!r}")
        if activation not in ("softmax", "sigmoid"):
            raise ValueError(f"activation must be 'softmax' or 'sigmoid', got {activation!r}")
        if eps is not None and not (isinstance(eps, float) and 0 < eps < 0.5):
            raise ValueError(f"eps must be a float between 0 and 0.5, got {eps!r}")
        self.from_logits = from_logits
        self.activation: Activation = "sigmoid" if multilabel else activation
        self.multilabel = multilabel
        self.eps = eps
        self.num_classes_: int | None = None
        """Number of classes C; None before the fit."""
        self.fitted_to_: FittedTo | None = None
        """Cases of a fit to folders; None for a fit to arrays."""

    @property
    def reading(self) -> PredictionReading:
        """How predictions are read."""
        return PredictionReading(self.from_logits, self.activation, self.multilabel, self.eps)

    def fit(
        self: Self_,
        preds: Array,
        target: Array,
        *,
        mask: Array | None = None,
        ignore_index: int | None = None,
        class_dim: int = 1,
        nan_policy: str = "raise",
    ) -> Self_:
        """Fit to one batch, and forget any earlier fit.

        Args:
            preds: ``[B, C, *S]`` in float16, bfloat16, float32 or float64, with any strides.
            target: Integers in [0, C), ``[B, *S]``; ``[B, C, *S]`` of 0 and 1 if multilabel.
            mask: Bool ``[B, *S]``; True keeps a voxel.
            ignore_index: Voxels with this target are left out.
            class_dim: Axis of the classes in ``preds``: 1, or 0 for ``[C, *S]``.
            nan_policy: ``"raise"``, or ``"omit"`` to leave out voxels without valid values.

        Returns:
            The calibrator itself.

        Raises:
            TypeError, ValueError: An argument does not fit, no voxel is left, targets lie outside
                [0, C), or voxels have no valid values.
        """
        volumes = [(preds, target, mask)]
        return self.fit_stream(
            volumes, ignore_index=ignore_index, class_dim=class_dim, nan_policy=nan_policy
        )

    def fit_stream(
        self: Self_,
        volumes: Volumes,
        *,
        ignore_index: int | None = None,
        class_dim: int = 1,
        nan_policy: str = "raise",
    ) -> Self_:
        """Fit to volumes that are read one at a time, such as cases on disk.

        Nothing as large as a volume is kept. The result is that of `fit` on all of them at once, up
        to the rounding of sums.

        Args:
            volumes: ``(preds, target)`` or ``(preds, target, mask)`` of each volume, as in `fit`.
                They are iterated over several times and must be the same each time. A list will
                do, or an object whose ``__iter__`` reads them again; a generator is refused.
            ignore_index: Voxels with this target are left out.
            class_dim: Axis of the classes in ``preds``.
            nan_policy: ``"raise"``, or ``"omit"`` to leave out voxels without valid values.

        Returns:
            The calibrator itself.

        Raises:
            TypeError, ValueError: See `fit`.
        """
        check_volumes(volumes)
        stream = Stream(volumes, self.reading, class_dim, ignore_index, nan_policy)
        self._fit(stream)
        self.num_classes_, self.fitted_to_ = stream.num_classes, None
        return self

    def fit_transform(
        self,
        preds: Array,
        target: Array,
        *,
        mask: Array | None = None,
        ignore_index: int | None = None,
        class_dim: int = 1,
        nan_policy: str = "raise",
    ) -> Array:
        """Fit to one batch, and transform its predictions; see `fit` and `transform`."""
        self.fit(
            preds,
            target,
            mask=mask,
            ignore_index=ignore_index,
            class_dim=class_dim,
            nan_policy=nan_policy,
        )
        return self.transform(preds, class_dim=class_dim)

    def transform(self, preds: Array, *, class_dim: int = 1) -> Array:
        """Compute calibrated probabilities.

        Args:
            preds: ``[B, C, *S]``, of the kind that was fitted to.
            class_dim: Axis of the classes.

        Returns:
            Probabilities in the shape of ``preds``, as a NumPy array if that is one. They are
            float64 for float64 and float32 otherwise. Voxels without valid values get NaN.

        Raises:
            TypeError, ValueError: The calibrator is not fitted, or an argument does not fit.
        """
        num_classes = self._fitted()
        values = to_tensor(preds, "preds")
        real = real_dtype(values, "preds")
        axis = check_member(values, class_dim, "preds")
        if values.shape[axis] != num_classes:
            raise ValueError(
                f"preds must have {num_classes} classes along axis {axis}, "
                f"got shape {tuple(values.shape)}"
            )
        out = torch.empty_like(values, dtype=real)
        for block, place in walk_pairs(values.movedim(axis, 0), out.movedim(axis, 0)):
            flat = block.reshape(num_classes, -1)
            valid = self.reading.valid(flat)
            made = self._transform(flat, values.dtype)
            place.copy_(torch.where(valid, made, torch.nan).reshape(place.shape))
        return out.numpy() if _is_numpy(preds) else out

    def save(self, path: str | Path) -> None:
        """Write settings and fit as JSON, whole or not at all.

        Raises:
            ValueError: The calibrator is not fitted yet.
            OSError: The file cannot be written.
        """
        write_json(path, {"format": FORMAT, "version": VERSION, **self.to_dict()})

    def to_dict(self) -> dict[str, Any]:
        """Return settings and fit as plain values.

        Raises:
            ValueError: The calibrator is not fitted yet.
        """
        return {
            "kind": self.kind,
            "settings": self.settings(),
            "num_classes": self._fitted(),
            "fitted": self._state(),
            **({} if self.fitted_to_ is None else {"fitted_to": self.fitted_to_.to_dict()}),
        }

    @classmethod
    def from_dict(cls: type[Self_], content: Mapping[str, Any]) -> Self_:
        """Make the calibrator that `to_dict` described.

        Raises:
            ValueError, TypeError, KeyError: The content does not describe one of this class.
        """
        if content["kind"] != cls.kind:
            raise ValueError(f"kind must be {cls.kind!r}, got {content['kind']!r}")
        missing = [name for name in Calibrator.settings(cls()) if name not in content["settings"]]
        if missing:
            raise ValueError(f"settings must hold {', '.join(missing)}, got none")
        made = cls(**content["settings"])
        number = bounded(content["num_classes"], "num_classes", _MOST_CLASSES)
        made._restore(content["fitted"], number)
        made.num_classes_ = number
        if "fitted_to" in content:  # files of fits to arrays, and of older versions, have none
            made.fitted_to_ = FittedTo.from_dict(content["fitted_to"])
        return made

    @classmethod
    def load(cls: type[Self_], path: str | Path) -> Self_:
        """Read a calibrator that `save` wrote; `fastcal.recalibrate.load` reads any kind.

        Raises:
            DataError: The file is missing or damaged, or holds something else.
        """
        return build(Path(path), cls.from_dict)

    def settings(self) -> dict[str, Any]:
        """Return the arguments that it was made with."""
        return {
            "from_logits": self.from_logits,
            "activation": self.activation,
            "multilabel": self.multilabel,
            "eps": self.eps,
        }

    def __repr__(self) -> str:
        return as_text(self._heading, self._shown_rows())

    def _repr_html_(self) -> str:
        return as_html(self._heading, self._shown_rows())

    @property
    def _heading(self) -> str:
        usual = type(self)().settings()
        given = {name: value for name, value in self.settings().items() if value != usual[name]}
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in given.items())})"

    def _shown_rows(self) -> list[tuple[str, str]]:
        if self.num_classes_ is None:
            return [("fitted", "not yet")]
        voxels = getattr(self, "n_voxels_", None)
        where = [] if voxels is None else [f"{voxels:,} voxels"]
        if self.fitted_to_ is not None:
            where = [f"{len(self.fitted_to_.cases):,} cases", *where]
        rows = [*self._parameters(), ("classes", str(self.num_classes_))]
        return [*rows, ("fitted to", ", ".join(where) or "arrays")]

    def _parameters(self) -> list[tuple[str, str]]:
        """What was fitted, where a few numbers say it."""
        return []

    def _fitted(self) -> int:
        if self.num_classes_ is None:
            raise ValueError(f"{type(self).__name__} is not fitted yet: call fit first")
        return self.num_classes_

    @abstractmethod
    def _fit(self, stream: Stream) -> None: ...

    @abstractmethod
    def _transform(self, values: Tensor, dtype: torch.dtype) -> Tensor:
        """Compute probabilities of ``values`` ``[C, n]``; those of invalid voxels do not matter."""

    @abstractmethod
    def _state(self) -> dict[str, Any]:
        """Return the fit, for JSON."""

    @abstractmethod
    def _restore(self, state: Mapping[str, Any], num_classes: int) -> None:
        """Take what `_state` returned, or raise a ValueError where it does not fit."""


Made = TypeVar("Made")


def build(path: Path, make: Callable[[dict[str, Any]], Made]) -> Made:
    """Read a file that `Calibrator.save` wrote, and pass its content to ``make``.

    Raises:
        DataError: The file is missing or damaged, or holds something else.
    """
    try:
        content = read_json(path)
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise DataError(path, f"is not a file of {FORMAT}")
        if content.get("version") != VERSION:
            raise DataError(path, f"must have version {VERSION}, got {content.get('version')!r}")
        return make(content)
    except DataError:
        raise
    except Exception as error:  # whatever numbers out of range lead to
        what = " ".join(str(error).split())
        raise DataError(path, f"cannot be read as {FORMAT} ({what})") from error


def _is_numpy(preds: Array) -> bool:
    import numpy as np

    return isinstance(preds, np.ndarray)


def numbers(state: Mapping[str, Any], name: str, shape: tuple[int, ...]) -> Tensor:
    """Read a float64 tensor from a JSON state.

    Raises:
        ValueError: It has another shape, or holds something else than finite numbers.
    """
    if _holds_truth(state[name]):
        raise ValueError(f"{name} must be numbers, got true or false among them")
    tensor = torch.tensor(state[name], dtype=torch.float64)
    if tuple(tensor.shape) != shape:
        raise ValueError(f"{name} must have shape {shape}, got {tuple(tensor.shape)}")
    if not bool(tensor.isfinite().all()):
        raise ValueError(f"{name} must be finite numbers, got NaN or infinities")
    return tensor


def _holds_truth(value: object) -> bool:
    if isinstance(value, list | tuple):
        return any(_holds_truth(one) for one in value)
    return isinstance(value, bool)
