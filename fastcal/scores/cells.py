"""Samples in the order of a score, as the cells that measures of order read."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fastcal.core.arrays import Floats, Integers


@dataclass(frozen=True, slots=True)
class Order:
    """The order of samples by a score, for any number of weightings of the samples.

    Example:
        >>> order = Order.of(np.array([0.3, 0.1, 0.3]))
        >>> order.cells(np.array([1.0, 0.0, 1.0]), np.ones((1, 3)))
        array([[[1., 0.],
                [2., 2.]]])
    """

    samples: Integers
    """``[n]``, the samples by ascending score."""
    starts: Integers
    """``[u]``, where each of the values that occur begins in ``samples``."""

    @classmethod
    def of(cls, score: Floats) -> Order:
        """Sort the scores ``[n]``, none of which is NaN."""
        samples = np.argsort(score, kind="stable")
        _, starts = np.unique(score[samples], return_index=True)
        return cls(samples, starts)

    def cells(self, hits: Floats, weights: Floats) -> Floats:
        """Return count and hits of each value that occurs, ``[R, u, 2]``.

        Args:
            hits: ``[n]``, from 0 to 1.
            weights: ``[R, n]``, how often each sample counts.
        """
        ordered = weights[:, self.samples]
        both = np.stack([ordered, ordered * hits[self.samples]], axis=-1)
        return np.add.reduceat(both, self.starts, axis=1)

    def ranks(self, weights: Floats) -> Floats:
        """Return the middle rank of each sample among the weighted samples, ``[R, n]``."""
        counts = np.add.reduceat(weights[:, self.samples], self.starts, axis=1)
        middle = counts.cumsum(1) - (counts - 1) / 2
        which = np.zeros(len(self.samples), np.int64)
        which[self.starts[1:]] = 1
        ranks = np.empty(weights.shape)
        ranks[:, self.samples] = middle[:, which.cumsum()]
        return ranks
