"""Every kind of kernel and reading on small volumes that end inside a tile: what sanitizers watch.

    python tests/kernel_cases.py DEVICE BACKEND [--few]

Run by test_cuda_sanitizers.py on the kernels built for the CPU, and by sanitize_gpu.sh on a GPU.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import torch
from members import DTYPES, arranged, labels, logits, pairwise, probabilities
from torch import Tensor

import fastcal
from fastcal import ops
from fastcal.core.problem import MAPS, LossReading, TemperatureLayout, TemperatureProblem

CLASSES = (2, 3, 4, 5, 8, 11, 16, 31, 52, 60, 130, 210)
SIZES = {"contiguous": 264, "odd": 133, "channels_last": 37, "cropped": 67}
KINDS: tuple[dict[str, Any], ...] = (
    {"activation": "sigmoid", "multilabel": True},
    {"from_logits": False},
    {"from_logits": False, "temperature": 2.0, "normalise": True},
)


def run(device: str, *, few: bool = False) -> int:
    """Run the cases; gives how many."""
    cases = list(_cases(device, few))
    if device == "cuda":
        torch.cuda.synchronize()
    return len(cases)


def _cases(device: str, few: bool) -> Iterator[None]:
    for n_classes, dtype, layout in pairwise(CLASSES, DTYPES[: 2 if few else 4], tuple(SIZES)):
        shape = (2, SIZES[layout] if n_classes < 16 else 36)
        members = [
            arranged(member.to(device), layout)
            for member in logits(2, n_classes, shape, dtype=dtype)
        ]
        target = labels(n_classes, (2, *shape)).to(device)
        fastcal.ensemble_statistics(
            members, target, maps=MAPS, n_bins=n_classes, case_id=["a", "b"]
        )
        yield
    classes = (2, 9) if few else (2, 9, 40)
    for dtype, n_classes, space, kind in pairwise(
        DTYPES[: 2 if few else 4], classes, ("prob", "logit"), KINDS
    ):
        _stream_and_one_shot(device, dtype, n_classes, space, kind)
        yield
    # Tables of members and thresholds.
    members = [member.to(device) for member in logits(60, 3, (40,))]
    target = labels(3, (2, 40)).to(device)
    for n_bins in (100, 6000):
        fastcal.ensemble_statistics(members, target, n_bins=n_bins)
        yield
    regions = {name: target >= at for at, name in enumerate(("all", "some", "few"))}
    extras = {"moments": True, "fine_bins": 64, "entropy_bins": 5}
    fastcal.ensemble_statistics(
        members,
        target,
        regions=regions,
        **extras,  # type: ignore[arg-type]
    )
    yield
    yield from _sums(device, few)
    # Tiles in the workspace, and more cases than it has room for at once.
    wide = [member.to(device) for member in logits(1, 1000, (33,), batch=70)]
    target = labels(1000, (70, 33)).to(device)
    fastcal.ensemble_statistics(
        wide, target, maps=("disagreement",), case_id=list(range(70)), calibration="top-label"
    )
    yield


def _sums(device: str, few: bool) -> Iterator[None]:
    """Losses, their gradients, and temperature scaling."""
    classes = (1, 5) if few else (1, 4, 5, 33)
    for dtype, n_classes, layout in pairwise(DTYPES[: 2 if few else 4], classes, tuple(SIZES)):
        shape = (2, SIZES[layout])
        (made,) = logits(1, n_classes, shape, dtype=dtype)
        z = arranged(made.to(device), layout)[None]
        target = labels(max(n_classes, 2), (1, 2, *shape)).to(device)
        reading = LossReading("sigmoid" if n_classes == 1 else "softmax", 1)
        sums = torch.empty(1, 2, 6, n_classes, dtype=torch.float64, device=device)
        given = (z, target, *reading.flatten(), True, True, True)
        ops.class_sums(*given, sums)
        ops.class_gradient(*given, sums, torch.empty_like(z))
        for n_bins, soft in ((20, True), (40, False)):
            gaps = torch.empty(1, 2, n_classes, 2 * n_bins + 1, dtype=torch.float64, device=device)
            binned = (z, target, *reading.flatten(), n_bins, soft)
            ops.bin_gaps(*binned, gaps)
            ops.bin_gradient(*binned, gaps, torch.empty_like(z))
        for inverse in ([0.7], [0.7] * n_classes):
            per_class = len(inverse) > 1
            problem = TemperatureProblem(
                *(z[0].movedim(1, 0), target[0] % max(n_classes, 2), None, 1, True),
                *(n_classes == 1, False, 1e-30, 1e-8),
            )
            words = TemperatureLayout(len(inverse)).words
            found = torch.zeros(words, dtype=torch.float64, device=device)
            counts = torch.zeros(3, dtype=torch.int64, device=device)
            ops.temperature_sums(*problem.flatten(), inverse, per_class, counts, found)
        yield


def _stream_and_one_shot(
    device: str, dtype: torch.dtype, n_classes: int, space: str, kind: dict[str, Any]
) -> None:
    maps = MAPS[:4] + (MAPS[7:] if space == "logit" else MAPS[4:])
    made = logits if kind.get("from_logits", True) else probabilities
    members = [member.to(device) for member in made(3, n_classes, (77,), dtype=dtype)]
    target: Tensor = labels(n_classes, (2, 77))
    if kind.get("multilabel"):
        target = (probabilities(1, n_classes, (77,))[0] > 0.5).int()
    target = target.to(device)
    reading = {name: kind[name] for name in kind if name not in ("temperature", "normalise")}
    stream = fastcal.EnsembleAccumulator(maps=maps, space=space, **reading)  # type: ignore[arg-type]
    for member in members:
        stream.update(member, temperature=kind.get("temperature", 1.0))
    mask = (torch.arange(154) % 5 > 0).reshape(2, 77).to(device)
    stream.finalize(target, mask=mask, nan_policy="omit")
    fastcal.ensemble_statistics(
        members,
        target,
        maps=maps,
        space=space,
        nan_policy="omit",
        **kind,  # type: ignore[arg-type]
    )


if __name__ == "__main__":
    with fastcal.backend(sys.argv[2]):
        print(f"{run(sys.argv[1], few='--few' in sys.argv)} cases")
