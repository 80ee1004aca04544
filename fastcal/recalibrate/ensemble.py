"""Calibrated ensembles, whose members are pooled and then calibrated, or the other way round."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from fastcal.core.arguments import real_number
from fastcal.core.arrays import Array
from fastcal.core.atomic import write_json
from fastcal.core.shown import as_html, as_text
from fastcal.ensemble import ensemble_mean
from fastcal.recalibrate.calibrator import FORMAT, VERSION, Calibrator
from fastcal.recalibrate.fitted_to import FittedTo
from fastcal.recalibrate.stream import check_volumes
from fastcal.recalibrate.volumes import Volumes

EnsembleOrder = Literal["pool-then-calibrate", "member-then-pool"]
ORDERS = ("pool-then-calibrate", "member-then-pool")


class EnsembleCalibration:
    """One calibrator for the mean of an ensemble, or one for each member.

    ``"pool-then-calibrate"`` fits to the mean of the members. ``"member-then-pool"`` fits each
    member on its own and averages the calibrated probabilities. The mean of calibrated members is
    underconfident, so that pooling first is usually better (Rahaman and Thiery, NeurIPS 2021).

    Args:
        calibrator: A calibrator to copy, which is not fitted. Its ``from_logits``, ``activation``
            and ``multilabel`` describe the members.
        order: ``"pool-then-calibrate"`` or ``"member-then-pool"``.
        weights: One weight per member; equal by default.
        space: Whether to average probabilities (``"prob"``) or logits (``"logit"``).

    Raises:
        TypeError, ValueError: An argument is out of range.

    Example:
        >>> import torch
        >>> from fastcal.recalibrate import TemperatureScaling
        >>> generator = torch.Generator().manual_seed(0)
        >>> members = 3 * torch.randn(2, 1, 3, 1000, generator=generator)
        >>> target = torch.randint(3, (1, 1000), generator=generator)
        >>> ensemble = EnsembleCalibration(TemperatureScaling(), order="member-then-pool")
        >>> ensemble.fit(members, target).transform(members).shape
        torch.Size([1, 3, 1000])
    """

    kind = "ensemble"

    def __init__(
        self,
        calibrator: Calibrator,
        *,
        order: EnsembleOrder = "pool-then-calibrate",
        weights: Sequence[float] | None = None,
        space: Literal["prob", "logit"] = "prob",
    ) -> None:
        if not isinstance(calibrator, Calibrator):
            raise TypeError(f"calibrator must be a Calibrator, got {type(calibrator).__name__}")
        if order not in ORDERS:
            raise ValueError(
                f"order must be {' or '.join(repr(known) for known in ORDERS)}, got {order!r}"
            )
        if space not in ("prob", "logit"):
            raise ValueError(f"space must be 'prob' or 'logit', got {space!r}")
        self.calibrator = calibrator
        self.order: EnsembleOrder = order
        self.weights = None if weights is None else _weights(weights)
        self.space: Literal["prob", "logit"] = space
        self.calibrators_: list[Calibrator] | None = None
        """One calibrator per member, or the one of their mean; None before the fit."""

    def fit(
        self,
        preds: Array | Sequence[Array],
        target: Array,
        *,
        mask: Array | None = None,
        ignore_index: int | None = None,
        class_dim: int = 1,
        nan_policy: str = "raise",
    ) -> EnsembleCalibration:
        """Fit to one batch.

        Args:
            preds: A list of M members ``[B, C, *S]``, or one tensor ``[M, B, C, *S]``.
            target: See `Calibrator.fit`.
            mask: Bool ``[B, *S]``; True keeps a voxel.
            ignore_index: Voxels with this target are left out.
            class_dim: Axis of the classes in a member.
            nan_policy: ``"raise"``, or ``"omit"`` to leave out voxels without valid values.

        Returns:
            The calibration itself.

        Raises:
            TypeError, ValueError: An argument does not fit.
        """
        volumes = [(preds, target, mask)]
        return self.fit_stream(
            volumes, ignore_index=ignore_index, class_dim=class_dim, nan_policy=nan_policy
        )

    def fit_stream(
        self,
        volumes: Volumes,
        *,
        ignore_index: int | None = None,
        class_dim: int = 1,
        nan_policy: str = "raise",
    ) -> EnsembleCalibration:
        """Fit to volumes that are read one at a time.

        Args:
            volumes: ``(members, target)`` or ``(members, target, mask)`` of each volume; they are
                iterated over several times. ``members`` is a sequence. A fit of single members
                takes one of them at a time, so that the sequence may read them lazily.
            ignore_index: Voxels with this target are left out.
            class_dim: Axis of the classes in a member.
            nan_policy: ``"raise"``, or ``"omit"`` to leave out voxels without valid values.

        Returns:
            The calibration itself.

        Raises:
            TypeError, ValueError: See `fit`.
        """
        check_volumes(volumes)
        if self.order == "pool-then-calibrate":
            streams: list[Volumes] = [_Pooled(volumes, self, class_dim)]
        else:
            streams = [_OneMember(volumes, m) for m in range(self._members_of(volumes))]
        return self.fit_each(
            streams, ignore_index=ignore_index, class_dim=class_dim, nan_policy=nan_policy
        )

    def fit_each(
        self,
        streams: Sequence[Volumes],
        *,
        ignore_index: int | None = None,
        class_dim: int = 1,
        nan_policy: str = "raise",
    ) -> EnsembleCalibration:
        """Fit each calibrator to a stream of its own.

        This is for members whose held-out cases differ, such as the folds of a cross-validation.
        With ``order="pool-then-calibrate"`` there is one stream, of mean probabilities.

        Args:
            streams: Volumes ``(preds, target)`` or ``(preds, target, mask)`` for each calibrator.
            ignore_index: Voxels with this target are left out.
            class_dim: Axis of the classes in a member.
            nan_policy: ``"raise"``, or ``"omit"`` to leave out voxels without valid values.

        Returns:
            The calibration itself.

        Raises:
            TypeError, ValueError: See `Calibrator.fit_stream`; or the number of streams does not
                fit ``order`` or ``weights``.
        """
        pooled = self.order == "pool-then-calibrate"
        if not streams or (pooled and len(streams) != 1):
            wanted = "one stream" if pooled else "at least one stream"
            raise ValueError(f"streams must hold {wanted} for {self.order!r}, got {len(streams)}")
        if not pooled and self.weights is not None and len(self.weights) != len(streams):
            raise ValueError(
                f"weights must hold one number per member: {len(streams)}, got {len(self.weights)}"
            )
        fitted = []
        for stream in streams:
            own = copy.deepcopy(self.calibrator)
            own.from_logits = own.from_logits and not pooled
            fitted.append(
                own.fit_stream(
                    stream, ignore_index=ignore_index, class_dim=class_dim, nan_policy=nan_policy
                )
            )
        self.calibrators_ = fitted
        return self

    def transform(self, preds: Array | Sequence[Array], *, class_dim: int = 1) -> Array:
        """Compute calibrated mean probabilities.

        Args:
            preds: Members, as in `fit`.
            class_dim: Axis of the classes in a member.

        Returns:
            Probabilities ``[B, C, *S]``.

        Raises:
            TypeError, ValueError: The calibration is not fitted, or an argument does not fit.
        """
        fitted = self._fitted()
        if self.order == "pool-then-calibrate":
            return fitted[0].transform(self.pooled(preds, class_dim=class_dim), class_dim=class_dim)
        if len(preds) != len(fitted):
            raise ValueError(f"preds must hold {len(fitted)} members, got {len(preds)}")
        made = [
            one.transform(member, class_dim=class_dim)
            for one, member in zip(fitted, preds, strict=True)
        ]
        return self._mean(made, class_dim, from_logits=False)

    def pooled(self, preds: Array | Sequence[Array], *, class_dim: int = 1) -> Array:
        """Compute mean probabilities ``[B, C, *S]`` of the members without calibration."""
        return self._mean(preds, class_dim, from_logits=self.calibrator.from_logits)

    def _mean(self, preds: Any, class_dim: int, *, from_logits: bool) -> Array:
        return ensemble_mean(
            preds,
            class_dim=class_dim,
            from_logits=from_logits,
            activation=self.calibrator.activation,
            multilabel=self.calibrator.multilabel,
            space=self.space,
            weights=self.weights,
        )

    def save(self, path: str | Path) -> None:
        """Write settings and fits as JSON, whole or not at all.

        Raises:
            ValueError: The calibration is not fitted yet.
            OSError: The file cannot be written.
        """
        write_json(path, {"format": FORMAT, "version": VERSION, **self.to_dict()})

    def to_dict(self) -> dict[str, Any]:
        """Return settings and fits as plain values."""
        return {
            "kind": self.kind,
            "order": self.order,
            "weights": self.weights,
            "space": self.space,
            "from_logits": self.calibrator.from_logits,
            "calibrators": [one.to_dict() for one in self._fitted()],
        }

    def __repr__(self) -> str:
        return as_text(self._heading, self._shown_rows())

    def _repr_html_(self) -> str:
        return as_html(self._heading, self._shown_rows())

    @property
    def _heading(self) -> str:
        weights = "" if self.weights is None else f", weights={self.weights!r}"
        kind = type(self.calibrator).__name__
        return f"EnsembleCalibration({kind}, order={self.order!r}{weights}, space={self.space!r})"

    def _shown_rows(self) -> list[tuple[str, str]]:
        if self.calibrators_ is None:
            return [("fitted", "not yet")]
        rows = []
        for number, one in enumerate(self.calibrators_):
            lines = [" ".join(line.split()) for line in repr(one).splitlines()[1:]]
            of_mean = self.order == "pool-then-calibrate"
            rows.append(("mean" if of_mean else f"member {number}", "; ".join(lines)))
        return rows

    @property
    def fitted_to_(self) -> tuple[FittedTo, ...]:
        """Cases of the fit of each calibrator; empty for a fit to arrays."""
        found = (one.fitted_to_ for one in self.calibrators_ or ())
        return tuple(one for one in found if one is not None)

    def _fitted(self) -> list[Calibrator]:
        if self.calibrators_ is None:
            raise ValueError("EnsembleCalibration is not fitted yet: call fit first")
        return self.calibrators_

    @staticmethod
    def _members_of(volumes: Volumes) -> int:
        counts = {len(item[0]) for item in volumes}
        if len(counts) != 1:
            raise ValueError(f"volumes must agree in their number of members, got {sorted(counts)}")
        return counts.pop()


class _Pooled:
    """Volumes of members, seen as volumes of their mean."""

    def __init__(self, volumes: Volumes, owner: EnsembleCalibration, class_dim: int) -> None:
        self._volumes, self._owner, self._class_dim = volumes, owner, class_dim

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        for members, *rest in self._volumes:
            yield (self._owner.pooled(members, class_dim=self._class_dim), *rest)


class _OneMember:
    """Volumes of members, seen as volumes of one of them."""

    def __init__(self, volumes: Volumes, member: int) -> None:
        self._volumes, self._member = volumes, member

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        for members, *rest in self._volumes:
            yield (members[self._member], *rest)


def _weights(weights: Sequence[float]) -> list[float]:
    """Check that members can be averaged with these weights."""
    found = [real_number(weight, "weights") for weight in weights]
    if not all(0 <= weight < math.inf for weight in found) or not any(found):
        raise ValueError(f"weights must be finite, at least 0 and not all 0, got {found}")
    return found


def from_dict(content: Mapping[str, Any], calibrators: Sequence[Calibrator]) -> EnsembleCalibration:
    """Make the calibration that `EnsembleCalibration.to_dict` described, from its calibrators.

    Raises:
        TypeError, ValueError, KeyError: The content does not describe one.
    """
    prototype = copy.copy(calibrators[0])
    prototype.from_logits = content["from_logits"]
    prototype.num_classes_ = None
    made = EnsembleCalibration(
        prototype, order=content["order"], weights=content["weights"], space=content["space"]
    )
    pooled = made.order == "pool-then-calibrate"
    if pooled and len(calibrators) != 1:
        raise ValueError(f"calibrators must be one for {made.order!r}, got {len(calibrators)}")
    if len(numbers := {one.num_classes_ for one in calibrators}) != 1:
        raise ValueError(f"calibrators must agree in their number of classes, got {numbers}")
    if not pooled and made.weights is not None and len(made.weights) != len(calibrators):
        raise ValueError(
            f"weights must hold one number per calibrator, {len(calibrators)}, got "
            f"{len(made.weights)}"
        )
    if len(read := {(one.multilabel, one.activation) for one in calibrators}) != 1:
        raise ValueError(f"calibrators must agree in what they calibrate, got {sorted(read)}")
    made.calibrators_ = list(calibrators)
    return made
