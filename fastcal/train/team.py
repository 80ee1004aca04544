"""Processes under ``torchrun``: which one this is, and teams that train one member together."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Torchrun:
    """What ``torchrun`` tells this process; the defaults stand for a process without it."""

    rank: int = 0
    world: int = 1
    local_rank: int = 0

    @classmethod
    def from_environment(cls) -> Torchrun:
        """Read RANK, WORLD_SIZE and LOCAL_RANK.

        Raises:
            ValueError: They are not numbers, or do not go together.
        """
        names = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
        if "WORLD_SIZE" not in os.environ or "RANK" not in os.environ:
            return cls()
        rank, world, local = (_number(name) for name in names)
        if not 0 <= rank < world:
            raise ValueError(f"RANK must lie from 0 to {world - 1} (WORLD_SIZE - 1), got {rank}")
        return cls(rank, world, local)

    def check_several(self) -> None:
        """Raise a ValueError if this is the only process."""
        if self.world == 1:
            raise ValueError(
                "ddp must be False for a single process, got True: start several with torchrun"
            )

    def device(self, asked: torch.device) -> torch.device:
        """Return the GPU of this process where GPUs are asked for without a number."""
        if self.world > 1 and asked == torch.device("cuda"):
            return torch.device("cuda", self.local_rank % torch.cuda.device_count())
        return asked


@dataclass(frozen=True, slots=True)
class Team:
    """Processes that train one member together, by DistributedDataParallel.

    Every process makes the whole batch, which depends only on the step, and takes every
    ``world``-th image of it. The gradient is the mean of the gradients of the processes, each from
    the loss of its share.
    """

    rank: int = 0
    world: int = 1

    @property
    def writes(self) -> bool:
        """Whether this process writes the member's files."""
        return self.rank == 0

    @property
    def share(self) -> slice:
        """The images of a batch that this process takes."""
        return slice(self.rank, None, self.world)

    def parallel(self, network: nn.Module) -> nn.Module:
        """Wrap a network so that its gradients are averaged over the processes."""
        if self.world == 1:
            return network
        from torch.nn.parallel import DistributedDataParallel

        return DistributedDataParallel(network)

    def mean(self, value: Tensor) -> Tensor:
        """Return the mean of a number over the processes."""
        if self.world > 1:
            dist.all_reduce(value)
            value = value / self.world
        return value

    def same(self, compute: Callable[[], Result]) -> Result:
        """Return in every process what the first process computes."""
        if self.world == 1:
            return compute()
        found = [compute() if self.rank == 0 else None]
        dist.broadcast_object_list(found)
        result = found[0]
        assert result is not None
        return result


ALONE = Team()


@contextmanager
def team_of(torchrun: Torchrun, device: torch.device) -> Iterator[Team]:
    """Join all processes into one team, for the duration of a block.

    Raises:
        ValueError: There is only one process.
    """
    torchrun.check_several()
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield Team(torchrun.rank, torchrun.world)
    finally:
        dist.destroy_process_group()


def _number(variable: str) -> int:
    text = os.environ.get(variable, "0")
    if not text.isdecimal():
        raise ValueError(f"{variable} must be a number, as torchrun sets it, got {text!r}")
    return int(text)
