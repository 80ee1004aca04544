"""The members of an ensemble, streamed one at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from fastcal import ops
from fastcal.calibration import NOTHING_COUNTED, CalibrationKind
from fastcal.core import bins, outputs
from fastcal.core.arguments import flag, whole_number
from fastcal.core.arrays import Array, real_dtype, to_tensor
from fastcal.core.members import check_member, check_reading, check_temperature, check_weight
from fastcal.core.problem import Activation, Space, StateLayout
from fastcal.core.region_bits import Regions
from fastcal.core.targets import CaseId
from fastcal.ensemble import EnsembleStatistics, gather, open_count, read_by


class EnsembleAccumulator:
    """`ensemble_statistics` for members that arrive one after the other.

    The state is a few planes of the size of one member, whatever the number of members, and the
    results are those of the one-shot call: the same bits for the same weights in the same order.

    Args:
        maps: Which maps `finalize` gives; may be empty where it will be given a target.
        class_dim: See `ensemble_entropy`, as for ``from_logits``, ``activation``, ``multilabel``
            and ``space``.
        from_logits: Members are logits; False: probabilities.
        activation: ``"softmax"`` or ``"sigmoid"``.
        multilabel: Every class is a Bernoulli of its own.
        space: ``"prob"`` or ``"logit"``.

    Raises:
        ValueError: An argument is not one of these.

    Example:
        >>> import torch
        >>> ensemble = EnsembleAccumulator(maps=("entropy", "label"))
        >>> for seed in range(3):
        ...     generator = torch.Generator().manual_seed(seed)
        ...     ensemble.update(torch.randn(1, 4, 8, 8, generator=generator))
        >>> ensemble.n_members, ensemble.finalize().entropy.shape
        (3, torch.Size([1, 8, 8]))
    """

    def __init__(
        self,
        maps: str | Sequence[str] = ("entropy",),
        *,
        class_dim: int = 1,
        from_logits: bool = True,
        activation: Activation = "softmax",
        multilabel: bool = False,
        space: Space = "prob",
    ) -> None:
        self._activation = check_reading(from_logits, activation, multilabel, space)
        self._maps = outputs.check_maps(maps, space)
        self._class_dim = whole_number(class_dim, "class_dim")
        self._from_logits = from_logits
        self._multilabel = multilabel
        self._space = space
        self._n_members = 0
        self._total_weight = 0.0
        self._state: Tensor | None = None
        self._shape = torch.Size()
        self._dtype: torch.dtype | None = None
        self._numpy = False

    @property
    def n_members(self) -> int:
        """Members added so far; those of weight 0 do not count."""
        return self._n_members

    def update(self, member: Array, *, weight: float = 1.0, temperature: float = 1.0) -> None:
        """Add one member.

        Args:
            member: ``[B, C, *S]``, of the shape, type and device of the first one.
            weight: Not negative; 0 leaves the member out.
            temperature: Divides its logits (the logarithms of its probabilities).

        Raises:
            TypeError, ValueError: An argument does not fit; nothing was added.
        """
        tensor = to_tensor(member, "member")
        weight, temperature = (
            check_weight(weight, "weight"),
            check_temperature(temperature, "temperature"),
        )
        state = self._state
        if state is None:
            real = real_dtype(tensor, "member")
            check_member(tensor, self._class_dim, "member")
        elif tensor.shape != self._shape:
            raise ValueError(
                f"member {self._n_members} has shape {tuple(tensor.shape)}, "
                f"expected {tuple(self._shape)} as the first"
            )
        elif tensor.dtype != self._dtype or tensor.device != state.device:
            raise ValueError(
                f"member {self._n_members} is {tensor.dtype} on {tensor.device}, "
                f"expected {self._dtype} on {state.device} as the first"
            )
        if weight == 0:
            return
        axis = self._class_dim % tensor.dim()
        layout = StateLayout.for_maps(tensor.shape[axis], self._maps)
        if state is None:
            voxels = (*tensor.shape[:axis], *tensor.shape[axis + 1 :])
            state = torch.zeros(layout.planes, *voxels, dtype=real, device=tensor.device)
            self._state, self._shape, self._dtype = state, tensor.shape, tensor.dtype
            self._numpy = isinstance(member, np.ndarray)
        ops.ensemble_accumulate(
            tensor,
            weight,
            temperature,
            axis,
            self._from_logits,
            self._activation,
            self._multilabel,
            self._space,
            layout.entropy,
            layout.square,
            layout.votes,
            state,
        )
        self._n_members += 1
        self._total_weight += weight

    def finalize(
        self,
        target: Array | None = None,
        *,
        normalise: bool = False,
        calibration: CalibrationKind = "both",
        n_bins: int = 15,
        closed: bins.Closed = "right",
        mask: Array | None = None,
        ignore_index: int | None = None,
        case_id: CaseId | Sequence[CaseId] | None = None,
        nan_policy: str = "raise",
        eps: float | None = None,
        fine_bins: int = 0,
        moments: bool = False,
        entropy_bins: int = 0,
        regions: Regions | Mapping[str, Array] | None = None,
        out: Mapping[str, Array] | Array | None = None,
    ) -> EnsembleStatistics:
        """The maps of the members so far, and their calibration when a target is given.

        The state stays: more members may follow, and `finalize` may be called again. Arguments
        and errors are those of `ensemble_statistics`.

        Raises:
            RuntimeError: No member was added.
        """
        state = self._state
        if state is None:
            raise RuntimeError("finalize needs a member: none was added with update")
        if flag(normalise, "normalise") and self._multilabel:
            raise ValueError("normalise=True is not defined with multilabel=True")
        axis = self._class_dim % len(self._shape)
        layout = StateLayout.for_maps(self._shape[axis], self._maps)
        tensors = outputs.map_tensors(
            self._maps, out, self._shape, state.device, axis, state.dtype, self._multilabel
        )
        count = open_count(
            target,
            self._maps,
            shape=self._shape,
            device=state.device,
            class_dim=axis,
            real=state.dtype,
            multilabel=self._multilabel,
            calibration=calibration,
            n_bins=n_bins,
            closed=closed,
            eps=eps,
            mask=mask,
            ignore_index=ignore_index,
            case_id=case_id,
            nan_policy=nan_policy,
            fine_bins=fine_bins,
            moments=moments,
            entropy_bins=entropy_bins,
            regions=regions,
        )
        if out is not None:
            outputs.check_apart(self._maps, tensors, read_by(count))
        ops.ensemble_finalize(
            state,
            layout.num_classes,
            self._n_members,
            self._total_weight,
            layout.entropy,
            layout.square,
            layout.votes,
            axis,
            self._from_logits,
            self._activation,
            self._multilabel,
            self._space,
            list(self._maps),
            tensors,
            normalise,
            *(NOTHING_COUNTED if count is None else count.arguments),
        )
        statistics = None if count is None else count.close()
        return gather(self._maps, tensors, out, self._numpy, statistics)
