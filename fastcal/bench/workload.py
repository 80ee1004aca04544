"""The volume of a point with its float64 reference, and fastcal's call on it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

import fastcal
from fastcal.bench import plain
from fastcal.bench.device import Device
from fastcal.bench.points import DTYPES, OUTPUTS, Point
from fastcal.bench.reference import Scores64, map_error, maps_64, scores_64
from fastcal.bench.timing import Candidate
from fastcal.bench.volumes import make_case
from fastcal.results import EnsembleStatistics

MOST_SETS = 8
_PAD = 4
EXACT = 1e-12
"""How far calibration errors may be from float64 sums over the mean that the call itself wrote."""
NEAR_EDGES = 1e-5
"""The same without a mean to judge by. A probability beside an edge may fall on either side."""


class Workload:
    """Members, target, result buffers and float64 maps of a point, for several outputs.

    Args:
        point: The point. Its ``outputs`` are not used.
        outputs: Names of the `OUTPUTS` that will be computed.
        device: Where the tensors are.
        seed: Seed of the data.
    """

    def __init__(self, point: Point, outputs: Sequence[str], device: Device, seed: int) -> None:
        case = make_case(
            point.members,
            point.classes,
            point.volume,
            background=point.background,
            dtype=DTYPES[point.dtype],
            seed=seed,
            device=device.torch,
        )
        members = [lay_out(member, point.layout) for member in case.members]
        self.target = case.target
        del case
        self._sets = [members]
        for _ in range(n_sets(point, device) - 1):
            self._sets.append([lay_out(member, point.layout) for member in members])
        self._turn = 0
        names = {name for output in outputs for name in OUTPUTS[output].maps}
        self.want = maps_64(members, tuple(names))
        like = members[0]
        real = torch.promote_types(like.dtype, torch.float32)
        self.out = {
            name: torch.empty((1, *like.shape[2:]), dtype=real, device=device.torch)
            for name in names - {"mean", "label"}
        }
        if "mean" in names:
            self.out["mean"] = torch.empty_like(like, dtype=real)
        if "label" in names:
            self.out["label"] = torch.empty_like(self.target)
        self.tolerance = max(1e-6, 2 * map_error(_yardstick(members, names), self.want))

    def members(self) -> list[Tensor]:
        """Give the next of several equal sets of members, so that no input is in a cache."""
        self._turn = (self._turn + 1) % len(self._sets)
        return self._sets[self._turn]

    def wipe(self) -> None:
        """Fill the result buffers with a number that is never a result."""
        for values in self.out.values():
            values.fill_(-1)

    def given(self, outputs: str) -> dict[str, Tensor]:
        """Give the result buffers of some outputs."""
        return {name: self.out[name] for name in OUTPUTS[outputs].maps}

    def scores(self, mean: Tensor | None) -> Scores64:
        """Compute the scores of a mean, or of the float64 mean for None."""
        found = self.want["mean"].unsqueeze(0) if mean is None else mean
        return scores_64(found, self.target, plain.N_BINS)


def n_sets(point: Point, device: Device) -> int:
    """Choose the number of sets of members that exceeds the cache, as far as memory allows."""
    wanted = -(-4 * device.cache_bytes // point.member_bytes)
    allowed = device.free_bytes() // 8 // point.member_bytes
    return max(1, min(wanted, allowed, MOST_SETS))


def lay_out(tensor: Tensor, layout: str) -> Tensor:
    """Copy ``[1, C, D, H, W]`` into a memory layout of `points.LAYOUTS`."""
    if layout == "channels-last":
        return tensor.clone(memory_format=torch.channels_last_3d)
    if layout == "cropped":
        *outer, height, width = tensor.shape
        whole = tensor.new_zeros(*outer, height + 2 * _PAD, width + 2 * _PAD)
        view = whole[..., _PAD : _PAD + height, _PAD : _PAD + width]
        return view.copy_(tensor)
    return tensor.clone(memory_format=torch.contiguous_format)


def ours(volume: Workload, outputs: str, *, name: str = "fastcal", read: bool = False) -> Candidate:
    """Make the call of fastcal. With ``read``, the call also reads five scores, as peers do."""
    asked, out = OUTPUTS[outputs], volume.given(outputs)
    target = volume.target if asked.calibration else None

    def run() -> EnsembleStatistics:
        got = fastcal.ensemble_statistics(volume.members(), target, maps=asked.maps, out=out)
        if read:
            _scores(got)
        return got

    def error(result: object) -> float:
        assert isinstance(result, EnsembleStatistics)
        worst = map_error(out, volume.want)
        if not asked.calibration:
            return worst
        exact = "mean" in asked.maps
        want = volume.scores(out["mean"] if exact else None)
        scores = _scores(result)
        classwise = scores.classwise_ece.double() - torch.from_numpy(want.classwise_ece)
        off = max(abs(scores.ece.item() - want.ece), classwise.abs().max().item())
        if not off <= (EXACT if exact else NEAR_EDGES):
            return math.inf
        return max(worst, score_error(scores, want))

    tolerance = volume.tolerance if asked.maps else NEAR_EDGES
    return Candidate(name, run, error, tolerance, volume.wipe)


def forced(candidate: Candidate, backend: str) -> Candidate:
    """Make the same call on a backend, by name."""

    def run() -> object:
        with fastcal.backend(backend):
            return candidate.run()

    return Candidate(backend, run, candidate.error, candidate.tolerance, candidate.prepare)


def score_error(scores: plain.PlainScores, want: Scores64) -> float:
    """Find the largest error of NLL, Brier score and Dice."""
    dice = scores.dice.double().cpu() - torch.from_numpy(want.dice)
    off = [scores.nll.item() - want.nll, scores.brier.item() - want.brier]
    return max(*map(abs, off), dice.abs().max().item())


def _scores(got: EnsembleStatistics) -> plain.PlainScores:
    c = got.calibration
    assert c is not None
    values = (c.ece(), c.classwise_ece(), c.nll(), c.brier(), c.per_class("dice", "pooled"))
    return plain.PlainScores(*(torch.as_tensor(v, dtype=torch.float64) for v in values))


def _yardstick(members: list[Tensor], names: set[str]) -> dict[str, Tensor]:
    """Compute the maps of plain PyTorch, whose error sets the tolerance."""
    if not names:
        return {}
    if names == {"entropy"}:
        return {"entropy": plain.ensemble_entropy(members)}
    found: dict[str, Callable[[Sequence[Tensor]], dict[str, Tensor]]] = {
        "six": plain.six_maps,
        "all": plain.all_maps,
    }
    whole = found["all" if {"variance", "disagreement"} & names else "six"](members)
    return {name: whole[name] for name in names}
