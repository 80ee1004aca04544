"""Processes under ``torchrun``: which members are whose, and several that train one together."""

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
class Launch:
    """What ``torchrun`` tells a process; without it, the only process there is."""

    rank: int = 0
    world: int = 1
    local_rank: int = 0

    @classmethod
    def from_environment(cls) -> Launch:
        """Read RANK, WORLD_SIZE and LOCAL_RANK.

        Raises:
            ValueError: they are no numbers that go together.
        """
        names = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
        if "WORLD_SIZE" not in os.environ or "RANK" not in os.environ:
            return cls()
        rank, world, local = (_number(name) for name in names)
        if not 0 <= rank < world:
            raise ValueError(f"RANK: got {rank}, expected 0 to WORLD_SIZE - 1 ({world - 1})")
        return cls(rank, world, local)

    def device(self, asked: torch.device) -> torch.device:
        """This process's GPU, where GPUs are asked for without a number."""
        if self.world > 1 and asked == torch.device("cuda"):
            return torch.device("cuda", self.local_rank % torch.cuda.device_count())
        return asked


@dataclass(frozen=True, slots=True)
class Team:
    """Processes that train one member together, by DistributedDataParallel.

    Every process makes the whole batch, a function of the step alone, and takes every ``world``-th
    of its images: the gradient is the mean over the processes of those of their shares' losses.
    """

    rank: int = 0
    world: int = 1

    @property
    def writes(self) -> bool:
        """Whether this process writes the member's files."""
        return self.rank == 0

    @property
    def share(self) -> slice:
        """This process's part of a batch."""
        return slice(self.rank, None, self.world)

    def parallel(self, network: nn.Module) -> nn.Module:
        if self.world == 1:
            return network
        from torch.nn.parallel import DistributedDataParallel

        return DistributedDataParallel(network)

    def mean(self, value: Tensor) -> Tensor:
        """The mean over the processes of a number of each."""
        if self.world > 1:
            dist.all_reduce(value)
            value = value / self.world
        return value

    def same(self, compute: Callable[[], Result]) -> Result:
        """What the first process computes, in all of them."""
        if self.world == 1:
            return compute()
        found = [compute() if self.rank == 0 else None]
        dist.broadcast_object_list(found)
        result = found[0]
        assert result is not None
        return result


ALONE = Team()


@contextmanager
def team_of(launch: Launch, device: torch.device) -> Iterator[Team]:
    """All processes of a launch as one team.

    Raises:
        ValueError: there is only one.
    """
    if launch.world == 1:
        raise ValueError("ddp: got one process, expected several, started by torchrun")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield Team(launch.rank, launch.world)
    finally:
        dist.destroy_process_group()


def _number(variable: str) -> int:
    text = os.environ.get(variable, "0")
    if not text.isdecimal():
        raise ValueError(f"{variable}: got {text!r}, expected a number, as torchrun sets it")
    return int(text)
