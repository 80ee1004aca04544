"""Random ensembles out of a pool, whose means accumulate side by side.

A case's members are predicted once. Each is added to the sums of every ensemble it belongs to, and
an ensemble is finished, and its sums are freed, as soon as its last member has come.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import comb

import numpy as np
from torch import Tensor

from fastcal import EnsembleAccumulator


@dataclass(frozen=True, slots=True)
class Subset:
    """An ensemble: some members of a pool.

    Example:
        >>> Subset(2, 0, (3, 7)).name
        'm02_d00'
    """

    size: int
    draw: int
    """Its number among the ensembles of its size."""
    members: tuple[int, ...]
    """Positions in the pool, ascending."""

    @property
    def name(self) -> str:
        """A short name that sorts by size and draw."""
        return f"m{self.size:02d}_d{self.draw:02d}"


def draw_subsets(
    pool: int, sizes: Sequence[int], *, draws: int, seed: int = 0
) -> tuple[Subset, ...]:
    """Draw ensembles of several sizes from a pool of members.

    Ensembles of one size are consecutive parts of random orders of the pool. They share no member
    until every member has been used, so that they are as different as the pool allows.

    Args:
        pool: Number of members.
        sizes: Sizes of ensembles, from 1 to ``pool``.
        draws: Ensembles of each size. Where there are not more different ones, all of them.
        seed: Of the draws.

    Raises:
        ValueError: A number is out of range.

    Example:
        >>> [subset.members for subset in draw_subsets(3, (2, 3), draws=5)]
        [(0, 1), (0, 2), (1, 2), (0, 1, 2)]
    """
    if pool < 1:
        raise ValueError(f"pool must be at least 1, got {pool}")
    if draws < 1:
        raise ValueError(f"draws must be at least 1, got {draws}")
    found = []
    for size in sizes:
        if not 1 <= size <= pool:
            raise ValueError(f"sizes must be from 1 to {pool}, the members, got {size}")
        if comb(pool, size) <= draws:
            chosen = list(combinations(range(pool), size))
        else:
            chosen = _parts(pool, size, draws, np.random.default_rng([seed, size]))
        found += [Subset(size, draw, members) for draw, members in enumerate(chosen)]
    return tuple(found)


def _parts(pool: int, size: int, draws: int, random: np.random.Generator) -> list[tuple[int, ...]]:
    chosen: dict[tuple[int, ...], None] = {}
    while len(chosen) < draws:
        order = random.permutation(pool)
        for start in range(0, pool - size + 1, size):
            chosen.setdefault(tuple(sorted(order[start : start + size].tolist())))
    return list(chosen)[:draws]


class SubsetSums:
    """The sums of several ensembles while the members of a case come one after another.

    The statistics of an ensemble are bit-identical to those of `fastcal.ensemble_statistics` of its
    members alone.

    Args:
        subsets: The ensembles.
        make: Returns an empty accumulator for an ensemble.

    Example:
        >>> import torch
        >>> sums = SubsetSums(draw_subsets(3, (1, 2), draws=3), lambda _: EnsembleAccumulator())
        >>> found = []
        >>> for number in range(3):
        ...     member = torch.full((1, 2, 4), float(number))
        ...     for subset, accumulator in sums.add(number, member):
        ...         found.append((subset.name, accumulator.n_members))
        >>> found[:3]
        [('m01_d00', 1), ('m01_d01', 1), ('m02_d00', 2)]
    """

    def __init__(
        self, subsets: Sequence[Subset], make: Callable[[Subset], EnsembleAccumulator]
    ) -> None:
        self._of_member: dict[int, list[Subset]] = {}
        for subset in subsets:
            for member in subset.members:
                self._of_member.setdefault(member, []).append(subset)
        self._make = make
        self._open: dict[Subset, EnsembleAccumulator] = {}

    def add(
        self, number: int, member: Tensor, *, temperature: float = 1.0
    ) -> Iterator[tuple[Subset, EnsembleAccumulator]]:
        """Add a member to its ensembles, and give those that are complete.

        Args:
            number: Position of the member in the pool; members come in ascending order.
            member: ``[B, C, *S]``.
            temperature: Divides its logits.
        """
        for subset in self._of_member.get(number, ()):
            if subset not in self._open:
                self._open[subset] = self._make(subset)
            accumulator = self._open[subset]
            accumulator.update(member, temperature=temperature)
            if number == subset.members[-1]:
                yield subset, self._open.pop(subset)


def most_open(subsets: Sequence[Subset]) -> int:
    """Return the most ensembles whose sums are in memory at one time, members in order.

    Example:
        >>> most_open([Subset(2, 0, (0, 1)), Subset(2, 1, (2, 3)), Subset(4, 0, (0, 1, 2, 3))])
        2
    """
    members = {member for subset in subsets for member in subset.members}
    return max(
        sum(subset.members[0] <= member <= subset.members[-1] for subset in subsets)
        for member in members
    )
