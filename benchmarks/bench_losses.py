"""Fused losses, forward and backward, against MONAI's Dice + CE and plain PyTorch's mL1-ACE.

    python -m benchmarks.bench_losses --quick
    python -m benchmarks.bench_losses --threads 2
    python -m benchmarks.bench_losses --device cuda

A call is a loss and its gradient by the logits, which is freed again. Value and gradient are
compared with those in float64 before anything is timed. The floor is one reading of logits and
target. Memory is the peak of a call beyond both, including the gradient, which has the size of the
logits.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor

import fastcal
from benchmarks import harness
from benchmarks.harness import Candidate, Row
from fastcal.bench.device import Device, open_device
from fastcal.losses import DiceCELoss, SoftL1ACELoss

Loss = Callable[[Tensor, Tensor], Tensor]

TOLERANCE = {torch.float32: 2e-5, torch.bfloat16: 2e-2}
"""Relative tolerance of the gradient, in the Euclidean norm; bfloat16 has three digits. Twice the
error of the peer in the same type is allowed where that is more. The gradient of mL1-ACE jumps
where a probability crosses the centre of a bin, and a few of millions do so by rounding."""
OF_PEERS = 2e-2


@dataclass(frozen=True)
class Settings:
    """One run: a batch of volumes, and a batch of slices."""

    classes: int = 4
    volume: tuple[int, ...] = (2, 128, 128, 128)
    slices: tuple[int, ...] = (64, 192, 160)
    threads: int | None = None
    rounds: int = 9
    device: str = "cpu"
    seed: int = 0


class Batch:
    """Logits like those of a trained network, a target, and the gradient of a loss in float64."""

    def __init__(self, settings: Settings, size: tuple[int, ...], device: Device) -> None:
        generator = torch.Generator(device.torch).manual_seed(settings.seed)
        shape = (size[0], settings.classes, *size[1:])
        z = torch.randn(shape, generator=generator, device=device.torch)
        self.target = torch.randint(
            settings.classes, size, generator=generator, device=device.torch
        )
        self.target[..., : size[-1] // 2] = 0  # half is background, and known to be
        z[:, 0, ..., : size[-1] // 2] += 8
        self.logits = z

    def candidate(
        self, name: str, loss: Loss, expected: Tensor, dtype: torch.dtype, tolerance: float
    ) -> Candidate:
        z = self.logits.to(dtype).requires_grad_()

        def run() -> Tensor:
            (gradient,) = torch.autograd.grad(loss(z, self.target), z)
            return gradient

        def error(result: object) -> float:
            assert isinstance(result, Tensor)
            return float((result.double() - expected).norm() / expected.norm())

        return Candidate(name, run, error, tolerance)

    def gradient_64(self, loss: Loss) -> Tensor:
        z = self.logits.double().requires_grad_()
        (gradient,) = torch.autograd.grad(loss(z, self.target), z)
        return gradient


def plain_dice_ce(z: Tensor, target: Tensor) -> Tensor:
    """Dice + CE as MONAI computes it with its defaults, in plain PyTorch."""
    p, axes = z.softmax(1), tuple(range(2, z.ndim))
    y = torch.nn.functional.one_hot(target, z.shape[1]).movedim(-1, 1).to(p.dtype)
    overlap, sizes = (p * y).sum(axes), p.sum(axes) + y.sum(axes)
    dice = 1 - (2 * overlap + 1e-5) / (sizes + 1e-5)
    return dice.mean() + torch.nn.functional.cross_entropy(z, target)


def monais_dice_ce() -> Loss:
    from monai.losses import DiceCELoss as Theirs

    theirs = Theirs(to_onehot_y=True, softmax=True)

    def loss(z: Tensor, target: Tensor) -> Tensor:
        value: Tensor = theirs(z, target[:, None])
        return value

    return loss


def in_plain_torch(loss: Loss) -> Loss:
    """Make a loss of ours whose passes, also backward, run on the reference backend."""

    class Plain(torch.autograd.Function):
        @staticmethod
        def forward(ctx, z, target):  # type: ignore[no-untyped-def]
            with torch.enable_grad(), fastcal.backend("reference"):
                own = z.detach().requires_grad_()
                value = loss(own, target)
                (ctx.gradient,) = torch.autograd.grad(value, own)
            return value.detach()

        @staticmethod
        def backward(ctx, factor):  # type: ignore[no-untyped-def]
            return ctx.gradient * factor, None

    return lambda z, target: Plain.apply(z, target)


def run(settings: Settings) -> tuple[list[Row], list[str]]:
    """Rows and notes of a setting."""
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    device = open_device(settings.device)
    dice_ce, soft = DiceCELoss(), SoftL1ACELoss()
    # Without MONAI its column is that of the same loss in plain PyTorch.
    other = ("monai", monais_dice_ce()) if find_spec("monai") else ("plain", plain_dice_ce)
    workloads: list[tuple[str, tuple[int, ...], torch.dtype, Loss, tuple[str, Loss]]] = [
        ("Dice + CE, volumes", settings.volume, torch.float32, dice_ce, other),
        ("Dice + CE, slices", settings.slices, torch.float32, dice_ce, other),
        ("Dice + CE, volumes, bf16", settings.volume, torch.bfloat16, dice_ce, other),
        (
            "soft mL1-ACE, volumes",
            settings.volume,
            torch.float32,
            soft,
            ("plain", in_plain_torch(soft)),
        ),
    ]
    rows: list[Row] = []
    notes: list[str] = []
    for name, size, dtype, ours, (their_name, theirs) in workloads:
        batch = Batch(settings, size, device)
        expected = batch.gradient_64(theirs)
        # Half-precision logits are read in float32 by both.
        peer = batch.candidate(their_name, _in_float32(theirs), expected, dtype, OF_PEERS)
        allowed = max(TOLERANCE[dtype], 2 * peer.error(peer.run()))
        candidates = [batch.candidate("fastcal", ours, expected, dtype, allowed), peer]
        cpu = device.torch.type == "cpu"
        readers = harness.readers([batch.logits.to(dtype), batch.target]) if cpu else []
        timings = harness.measure(
            [*candidates, *readers], rounds=settings.rounds, clock=device.seconds
        )
        read = harness.floor(timings) if readers else None
        rows.append(Row(name, timings["fastcal"], read, {their_name: timings[their_name]}))
        sizes = [(it.name, device.peak_bytes(it.run)) for it in candidates]
        own = batch.logits.numel() * dtype.itemsize
        notes.append(
            f"{name}, {own / 1e6:.0f} MB of logits: peak "
            + ", ".join(f"{who} {_megabytes(peak)}" for who, peak in sizes)
        )
    return rows, notes


def _in_float32(loss: Loss) -> Loss:
    return lambda z, target: loss(z if z.dtype == torch.float64 else z.float(), target)


def _megabytes(peak: int | None) -> str:
    return "not told" if peak is None else f"{peak / 1e6:.0f} MB"


def parse(arguments: Sequence[str] | None) -> tuple[Settings, Path | None]:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.bench_losses",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    default = Settings()
    parser.add_argument("--classes", type=int, default=default.classes)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--rounds", type=int, default=default.rounds)
    parser.add_argument("--device", default=default.device)
    parser.add_argument("--quick", action="store_true", help="small batches, three rounds")
    parser.add_argument("-o", "--out", type=Path, help="folder; benchmarks/results without --quick")
    given = parser.parse_args(arguments)
    settings = Settings(
        classes=given.classes, threads=given.threads, rounds=given.rounds, device=given.device
    )
    if given.quick:
        settings = replace(settings, volume=(1, 64, 64, 64), slices=(8, 192, 160), rounds=3)
    return settings, given.out or (None if given.quick else harness.RESULTS)


def main(arguments: Sequence[str] | None = None) -> None:
    settings, folder = parse(arguments)
    rows, notes = run(settings)
    title = f"Losses, forward and backward: C = {settings.classes}, {settings.device}"
    harness.show(title, rows, notes)
    if folder is not None:
        gpu = settings.device != "cpu"
        path = harness.write("losses", title, asdict(settings), rows, notes, folder=folder, gpu=gpu)
        print(f"written: {path} and .md")


if __name__ == "__main__":
    main()
