"""The sum of calibration statistics over the processes of a torch.distributed group."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.distributed as dist

from fastcal.calibration import values
from fastcal.calibration.limits import MOST_SUM, check_room, largest_word
from fastcal.calibration.settings import CalibrationSettings, first_difference
from fastcal.calibration.state import CalibrationState
from fastcal.calibration.values import Integers

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup


@dataclass(frozen=True, slots=True)
class _Offer:
    """What a process tells the others before any integer is summed."""

    settings: CalibrationSettings
    case_ids: tuple[str, ...]
    largest: int
    """Largest absolute value among its integers."""
    problem: str | None
    """Why its statistics cannot be read."""


def sum_over_group(state: CalibrationState, group: ProcessGroup | None) -> None:
    """Make ``state`` the sum of the states of all processes of ``group``, on each of them.

    Every process learns of a problem that one of them has, so that none is left waiting.

    Raises:
        ValueError: There is no process group, this process is not in it, settings differ, or a
            process counted bad data, or the sum is more than a state can hold.
    """
    if not (dist.is_available() and dist.is_initialized()):
        raise ValueError(
            "group must be a process group, got none: torch.distributed.init_process_group() "
            "comes first"
        )
    if dist.get_rank(group) < 0:
        raise ValueError("group must hold this process, got one that does not")
    offers: list[_Offer] = [None] * dist.get_world_size(group)  # type: ignore[list-item]
    held = _held(state)
    dist.all_gather_object(offers, _offer(state.settings, held), group=group)
    for rank, offer in enumerate(offers):
        if offer.problem is not None:
            raise ValueError(f"rank {rank}: {offer.problem}")
        difference = first_difference(state.settings, offer.settings)
        if difference is not None:
            raise ValueError(
                f"settings must be the same on all processes, got {difference} (rank {rank})"
            )
    if sum(offer.largest for offer in offers) >= MOST_SUM:
        raise ValueError("sums over the group must be below 2^62, got more")
    names = tuple(dict.fromkeys(name for offer in offers for name in offer.case_ids))
    rows = np.zeros((1 + len(names), *state.shape), np.int64)
    assert not isinstance(held, str)  # a problem was raised
    rows[0], case_ids, groups = held
    position = {name: index for index, name in enumerate(names, 1)}
    rows[[position[name] for name in case_ids]] = groups
    nccl = dist.get_backend(group) == "nccl"
    device = torch.device("cuda", torch.cuda.current_device()) if nccl else torch.device("cpu")
    shared = torch.from_numpy(rows).to(device)
    dist.all_reduce(shared, group=group)
    rows = values.carried(shared.cpu().numpy(), state.layout)
    check_room(rows[0], state.settings)
    state.replace(rows[0], rows[1:], names)


def _held(state: CalibrationState) -> tuple[Integers, tuple[str, ...], Integers] | str:
    """The integers of one moment, or why they cannot be read."""
    try:
        return state.snapshot()
    except ValueError as error:
        return str(error)


def _offer(
    settings: CalibrationSettings, held: tuple[Integers, tuple[str, ...], Integers] | str
) -> _Offer:
    if isinstance(held, str):
        return _Offer(settings, (), 0, held)
    totals, case_ids, _ = held
    return _Offer(settings, case_ids, largest_word(totals), None)
