"""Scores of segments against NumPy and SciPy.

    python -m benchmarks.bench_segments --quick
    python -m benchmarks.bench_segments --threads 2

The sums are the fused pass over mean, labels, maps and votes. NumPy takes them class by class,
once as the formulas are written, and once with logarithms only where a class is. The scores of a
mean are all of `fastcal.segment_scores`, with the shape of the segments; the peers use SciPy's
distance transform, filter and components, once of whole volumes, and once in each box. The
scores of an ensemble start from the members' probabilities: mean, entropies, labels, and all scores
with the agreement of every pair. All are compared with float64 before they are timed. The floor is
one reading of everything that is read.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from scipy.special import xlogy
from torch import Tensor

import fastcal
from benchmarks import harness
from benchmarks.harness import Candidate, Row
from fastcal.core.segment_problem import SegmentProblem, SegmentWords
from fastcal.segments.measure import segment_sums

Table = NDArray[np.float64]

TOLERANCE = 1e-5
"""Relative error against float64. A float32 sum over millions of voxels is that far off."""

REAL_WORDS = {
    "soft": SegmentWords.SOFT,
    "confidence": SegmentWords.CONFIDENCE,
    "binary entropy": SegmentWords.BINARY_ENTROPY,
    "entropy": SegmentWords.ENTROPY,
    "mutual information": SegmentWords.INFORMATION,
    "interior entropy": SegmentWords.INTERIOR_ENTROPY,
}
COUNT_WORDS = {
    "voxels": SegmentWords.VOXELS,
    "votes": SegmentWords.VOTES,
    "pairs": SegmentWords.VOTE_PAIRS,
}


@dataclass(frozen=True)
class Settings:
    """One volume."""

    classes: int = 4
    members: int = 5
    volume: tuple[int, ...] = (240, 240, 155)
    threads: int | None = None
    rounds: int = 7
    seed: int = 0


class Volume:
    """A smooth prediction, with about 95 % background, and what belongs to it."""

    def __init__(self, settings: Settings) -> None:
        generator = torch.Generator().manual_seed(settings.seed)
        coarse = torch.randn(1, settings.classes, 8, 8, 8, generator=generator)
        coarse[:, 0] += 2
        z = 6 * torch.nn.functional.interpolate(coarse, settings.volume, mode="trilinear")
        z += torch.randn(z.shape, generator=generator)
        self.mean = z.softmax(1)
        self.label = self.mean.argmax(1).to(torch.uint8)
        self.entropy = -torch.xlogy(self.mean, self.mean).sum(1)
        self.information = self.entropy / 8
        # Members around that mean, as alike as those of an ensemble are.
        self.members = [
            (z + 0.5 * torch.randn(z.shape, generator=generator)).softmax(1)
            for _ in range(settings.members)
        ]
        self.votes = (self.mean * settings.members).round()
        self.interior = torch.rand(self.label.shape, generator=generator) < 0.8

    @property
    def problem(self) -> SegmentProblem:
        return SegmentProblem(
            *(self.mean, self.label, self.entropy, self.information, self.votes, self.interior),
            *(255, False, True, False),
        )

    def tensors(self) -> list[Tensor]:
        return [self.mean, self.label, self.entropy, self.information, self.votes, self.interior]


def our_sums(volume: Volume) -> Table:
    sums = segment_sums(volume.problem)[0]
    reals = [sums[:, w].double() + sums[:, w + 1].double() * 2.0**-40 for w in REAL_WORDS.values()]
    counts = [sums[:, w].double() for w in COUNT_WORDS.values()]
    return torch.stack([*reals, *counts]).numpy()


def numpy_sums(volume: Volume, dtype: Any = np.float32) -> Table:
    mean, label = volume.mean[0].numpy().astype(dtype, copy=False), volume.label[0].numpy()
    entropy, information, votes, interior = (
        it[0].numpy() for it in (volume.entropy, volume.information, volume.votes, volume.interior)
    )
    columns = []
    for k, p in enumerate(mean):
        member = label == k
        inside, h, v = p[member], entropy[member].astype(dtype, copy=False), votes[k]
        binary = -(xlogy(inside, inside) + xlogy(1 - inside, 1 - inside))
        deep = h[interior[member]]
        columns.append(
            [
                *(p.sum(), inside.sum(), binary.sum(), h.sum()),
                information[member].astype(dtype, copy=False).sum(),
                *(deep.sum(), member.sum(), v.sum(dtype=np.float64)),
                (v * (v - 1)).sum(dtype=np.float64),
            ]
        )
    return np.asarray(columns, np.float64).T


def numpy_sums_of_maps(volume: Volume) -> Table:
    """The same sums the way the formulas are written: maps of the whole volume, then a mask."""
    mean, label = volume.mean[0].numpy(), volume.label[0].numpy()
    entropy, information, votes, interior = (
        it[0].numpy() for it in (volume.entropy, volume.information, volume.votes, volume.interior)
    )
    columns = []
    for k, p in enumerate(mean):
        member, v = label == k, votes[k]
        binary = -(xlogy(p, p) + xlogy(1 - p, 1 - p))
        maps = (p, binary, entropy, information)
        columns.append(
            [
                p.sum(),
                *(values[member].sum() for values in maps),
                *(entropy[member & interior].sum(), member.sum(), v.sum(dtype=np.float64)),
                (v * (v - 1)).sum(dtype=np.float64),
            ]
        )
    return np.asarray(columns, np.float64).T


def our_scores(volume: Volume) -> Table:
    scores = fastcal.segment_scores(
        volume.mean, volume.label, entropy=volume.entropy, mutual_information=volume.information
    )
    return np.stack([scores[name][0].numpy() for name in scores.available])


def scipy_scores(volume: Volume, dtype: Any = np.float32) -> Table:
    """The scores in the order of `SegmentScores`, the way one would write them with SciPy."""
    mean, label = volume.mean[0].numpy(), volume.label[0].numpy()
    entropy, information = (it[0].numpy() for it in (volume.entropy, volume.information))
    return _scores_of_mean(mean.astype(dtype, copy=False), label, entropy, information, boxed=False)


def scipy_scores_in_boxes(volume: Volume, dtype: Any = np.float32) -> Table:
    """The same, with what depends on neighbours in the box of each structure alone."""
    mean, label = volume.mean[0].numpy(), volume.label[0].numpy()
    entropy, information = (it[0].numpy() for it in (volume.entropy, volume.information))
    return _scores_of_mean(mean.astype(dtype, copy=False), label, entropy, information, boxed=True)


def _scores_of_mean(
    mean: NDArray[Any],
    label: NDArray[Any],
    entropy: NDArray[Any],
    information: NDArray[Any],
    *,
    boxed: bool,
) -> Table:
    # SciPy's window of an even size begins size // 2 before the voxel, too. Away from the edges of
    # the volume its means are ours; structures there are moved in by the choice of `nearest` alone.
    around = _patch_means(entropy, 10)
    columns = []
    for k, p in enumerate(mean):
        member = label == k
        box: tuple[slice, ...] = (slice(None),) * 3
        grown = box
        if boxed:
            box = ndimage.find_objects(member.astype(np.uint8))[0]
            # One voxel of margin, or the edge of the box would be no boundary.
            grown = tuple(
                slice(max(0, at.start - 1), min(size, at.stop + 1))
                for at, size in zip(box, member.shape, strict=True)
            )
        part = member[box]
        deep = ndimage.distance_transform_edt(member[grown]) > 4
        inside = p[member]
        parts, _ = ndimage.label(part, np.ones((3, 3, 3)))
        deep_entropy = entropy[grown][deep]
        columns.append(
            [
                -(xlogy(inside, inside) + xlogy(1 - inside, 1 - inside)).mean(),
                entropy[member].mean(),
                information[member].mean(),
                inside.mean(),
                member.sum(),
                p.sum(),
                deep_entropy.mean() if deep_entropy.size else np.nan,
                around[member].max(),
                (np.bincount(parts.ravel())[1:] >= 10).sum(),
            ]
        )
    return np.asarray(columns, np.float64).T


def _patch_means(values: NDArray[Any], size: int) -> NDArray[Any]:
    means = ndimage.uniform_filter(values.astype(np.float64), size, mode="nearest")
    index = [
        np.clip(np.arange(extent), size // 2, extent - size + size // 2) for extent in values.shape
    ]
    return means[np.ix_(*index)]


def our_ensemble_scores(volume: Volume) -> Table:
    scores = fastcal.ensemble_statistics(
        volume.members,
        maps=(),
        from_logits=False,
        segments=fastcal.SegmentSettings(pairs=True),
    ).segments
    assert scores is not None
    return np.stack([np.asarray(scores[name][0]) for name in scores.available])


def scipy_ensemble_scores(volume: Volume, dtype: Any = np.float32) -> Table:
    """The same from the members, by NumPy, with SciPy in the box of each structure."""
    members = [member[0].numpy().astype(dtype, copy=False) for member in volume.members]
    mean = np.mean(members, axis=0)
    entropy = -xlogy(mean, mean).sum(0)
    expected = np.mean([-xlogy(p, p).sum(0) for p in members], axis=0)
    labels = [p.argmax(0).astype(np.uint8) for p in members]
    label = mean.argmax(0).astype(np.uint8)
    of_mean = _scores_of_mean(mean, label, entropy, entropy - expected, boxed=True)
    volumes, soft, pooled, pairwise = [], [], [], []
    for k in range(len(mean)):
        masks = [one == k for one in labels]
        sizes = [np.count_nonzero(mask) for mask in masks]
        volumes.append(np.std(sizes, ddof=1))
        soft.append(np.std([p[k].sum(dtype=np.float64) for p in members], ddof=1))
        pairs = [
            (2 * np.count_nonzero(masks[i] & masks[j]), sizes[i] + sizes[j])
            for i in range(len(masks))
            for j in range(i)
        ]
        pairwise.append(np.mean([both / size for both, size in pairs]))
        pooled.append(sum(both for both, _ in pairs) / sum(size for _, size in pairs))
    found: Table = np.vstack([of_mean[:6], volumes, soft, of_mean[6:], pooled, pairwise])
    return found


def candidate(
    name: str, function: Callable[[Volume], Table], volume: Volume, expected: Table
) -> Candidate:
    def error(result: object) -> float:
        assert isinstance(result, np.ndarray)
        different = np.isnan(result) != np.isnan(expected)
        size = np.maximum(np.abs(expected), 1e-12)
        return (
            float("inf") if different.any() else float(np.nanmax(np.abs(result - expected) / size))
        )

    return Candidate(name, lambda: function(volume), error, TOLERANCE)


def run(settings: Settings) -> tuple[list[Row], list[str]]:
    """Rows and notes of a setting."""
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    volume = Volume(settings)
    rows = []
    workloads: list[tuple[str, Callable[[Volume], Table], Table, dict[str, Any]]] = [
        (
            "sums over segments",
            our_sums,
            numpy_sums(volume, np.float64),
            {"numpy": numpy_sums_of_maps, "numpy in the segment": numpy_sums},
        ),
        (
            "all scores of a mean",
            our_scores,
            scipy_scores_in_boxes(volume, np.float64),
            {"scipy": scipy_scores, "scipy in boxes": scipy_scores_in_boxes},
        ),
        (
            "all scores of an ensemble",
            our_ensemble_scores,
            scipy_ensemble_scores(volume, np.float64),
            {"scipy in boxes": scipy_ensemble_scores},
        ),
    ]
    for workload, ours, expected, peers in workloads:
        timings = harness.measure(
            [
                candidate("fastcal", ours, volume, expected),
                *(candidate(name, peer, volume, expected) for name, peer in peers.items()),
                *harness.readers(volume.members if "ensemble" in workload else volume.tensors()),
            ],
            rounds=settings.rounds,
        )
        others = {name: timings[name] for name in peers}
        rows.append(Row(workload, timings["fastcal"], harness.floor(timings), others))
    background = float((volume.label == 0).double().mean())
    return rows, [f"{background:.0%} of the voxels are background"]


def parse(arguments: Sequence[str] | None) -> tuple[Settings, Path | None]:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.bench_segments",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    default = Settings()
    parser.add_argument("--classes", type=int, default=default.classes)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--rounds", type=int, default=default.rounds)
    parser.add_argument("--quick", action="store_true", help="a small volume, three rounds")
    parser.add_argument("-o", "--out", type=Path, help="folder; benchmarks/results without --quick")
    given = parser.parse_args(arguments)
    settings = Settings(classes=given.classes, threads=given.threads, rounds=given.rounds)
    if given.quick:
        settings = replace(settings, volume=(96, 96, 64), rounds=3)
    return settings, given.out or (None if given.quick else harness.RESULTS)


def main(arguments: Sequence[str] | None = None) -> None:
    settings, folder = parse(arguments)
    rows, notes = run(settings)
    volume = " x ".join(map(str, settings.volume))
    title = f"Scores of segments: C = {settings.classes}, {volume} voxels"
    harness.show(title, rows, notes)
    if folder is not None:
        path = harness.write("segments", title, asdict(settings), rows, notes, folder=folder)
        print(f"written: {path} and .md")


if __name__ == "__main__":
    main()
