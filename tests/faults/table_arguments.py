"""Every option that takes a number, a name or a path, with values that it cannot have."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from . import commands as c
from .kinds import Command, Expected, Kind

OK = Expected.HANDLED
BILLION, BEYOND = "1000000000", "10000000000000000000000"
"""Of 10^9, and of 10^22, which no 64-bit integer holds."""
NUMBERS = ("0", "-1", "nan", "inf", BILLION, BEYOND, "many")
INTEGERS = ("0", "-1", "nan", BILLION, BEYOND)
ENORMOUS = (BILLION, BEYOND)


@dataclass(frozen=True, slots=True)
class Option:
    """An option of a command.

    Args:
        command: that has it.
        words: with ``{}`` in place of the value.
        legal: values that may be accepted, or are left out where None.
        values: that are tried.
        names: that the message may call it, beside the flag.
    """

    command: Command
    words: str
    legal: Mapping[str, Expected | None] = field(default_factory=dict)
    values: tuple[str, ...] = NUMBERS
    names: tuple[str, ...] = ()

    def kinds(self, group: str) -> Iterator[Kind]:
        """A kind for each value."""
        # With several flags, the one before the place of the value is meant.
        before = self.words.split("{}", maxsplit=1)[0].split()
        flag = next(word for word in reversed(before) if word.startswith("--")).removeprefix("--")
        for value in self.values:
            expected = self.legal.get(value, Expected.REFUSED)
            if expected is None:
                continue
            given = (word.replace("{}", value) for word in self.words.split())
            words = [part for word in given for part in (word.split() or [word])]
            shown = self.words.replace("{}", value or "''")
            yield Kind(
                name=f"{self.command.name}: {shown}",
                group=group,
                command=self.command.with_options(*words),
                expected=expected,
                names=(flag, f"{flag}s", flag.replace("-", "_"), *self.names),
                check=accepted,
            )


def accepted(_: Path) -> str | None:
    """Nothing to compare: the value has no meaning."""
    return None


_ZERO = {"0": OK}
_HUGE: Mapping[str, Expected | None] = dict.fromkeys(ENORMOUS, OK)
_LEFT_OUT: Mapping[str, Expected | None] = dict.fromkeys(ENORMOUS)
"""Legal, but nobody waits for it."""
_REGIONS = (
    *("bogus", "box:-1", "box:nan", "box:inf", "box:1:-1", "box:1:1.5", "box:1:2:3", "box:"),
    *("box:1:9999999999999999999999", "box:1e308", "band:0", "band:-1", "band:nan", "band:inf"),
    *("band:1e308", "band", "foreground:1", "mask", ":", "box:1000000000"),
)
_REGION_LEGAL = {"box:1e308": OK, "box:1000000000": OK, "band:1e308": OK, "box:inf": OK}
_REGION_LEGAL |= {"band:inf": OK, "box:1:9999999999999999999999": OK}
_DEVICES = ("bogus", "cuda:99", "cpu:1000000000000", "cpu:-1", "meta", "cuda:x")
_CASES = ("nobody", ".", "../case_a", "/etc/passwd", "case_?", "case_a.npz")
_SPLITS = ("0,0,0", "-1,1,1", "1000000000,1,1", "a,b,c", "1,1", "nan,1,1", "1.5,1,1", "1,1,1,1")


def _counting(command: Command) -> Iterator[Option]:
    """What is counted, and which part of the cases."""
    yield Option(command, "--bins {}", {}, INTEGERS, ("n_bins",))
    yield Option(command, "--fine-bins {}", _ZERO, (*INTEGERS, "1073741824", "3"))
    yield Option(command, "--num-parts {}", _HUGE, INTEGERS)
    yield Option(command, "--num-parts 2 --part-id {}", _ZERO, INTEGERS)
    yield Option(command, "--region {}", _REGION_LEGAL, _REGIONS)
    yield Option(command, "--case {}", values=_CASES, names=_CASES)
    yield Option(command, "--map {}", values=("bogus", "0"))
    yield Option(command, "--dtype {}", values=("bogus", "int8"))
    yield Option(command, "--bin-edge {}", values=("both",))


def _counting_in_brief(command: Command) -> Iterator[Option]:
    """The same options of another command: are they checked here too?"""
    yield Option(command, "--bins {}", {}, ("0", BILLION), ("n_bins",))
    yield Option(command, "--fine-bins {}", values=("-1", BILLION, "1073741824"))
    yield Option(command, "--num-parts {}", values=("0", "-1"))
    yield Option(command, "--num-parts 2 --part-id {}", values=("-1", "2"))
    yield Option(command, "--region {}", _REGION_LEGAL, _REGIONS[:3] + _REGIONS[8:10])
    yield Option(command, "--case {}", values=("nobody", "../case_a"), names=_CASES)


def _ensemble() -> Iterator[Option]:
    command = c.ENSEMBLE
    yield from _counting(command)
    yield Option(command, "--temperature {}", _HUGE)
    yield Option(command, "--temperature 1 1 {}", values=("1",))
    yield Option(command, "--weight {} 1", _ZERO | _HUGE)
    yield Option(command, "--weight {}", values=("1", "0 0", "1 1 1"))
    yield Option(command, "--space {}", values=("log",))
    yield Option(command, "--device {}", values=_DEVICES)
    yield Option(command, "--dataset-json {}", values=("nowhere.json", "labels", "pipe"))
    yield Option(command, "--labels {}", values=("nowhere", "labels/case_a.nii.gz", "folds"))
    yield Option(command, "--input {}", values=("nowhere", "labels", "folds/fold_0/case_a.npz"))


def _predict() -> Iterator[Option]:
    command = c.PREDICT
    yield from _counting_in_brief(command)
    yield Option(command, "--member {}", _ZERO, INTEGERS, ("members",))
    yield Option(command, "--mc-dropout {}", _ZERO, INTEGERS)
    yield Option(command, "--seed {}", _ZERO | _HUGE | {"-1": OK}, INTEGERS)
    yield Option(command, "--mirror {}", _ZERO, (*NUMBERS, "3"))
    yield Option(command, "--noise {}", _ZERO | _HUGE)
    yield Option(command, "--noise 0.1 --draws {}", values=INTEGERS)
    yield Option(command, "--temperature {}", _HUGE)
    yield Option(command, "--overlap {}", _ZERO)
    yield Option(command, "--batch-size {}", _HUGE, INTEGERS)
    yield Option(command, "--device {}", values=_DEVICES)
    yield Option(command, "--labels {}", values=("nowhere", "labels/case_a.nii.gz"))
    yield Option(command, "--precision {}", values=("float8",))


def _evaluate() -> Iterator[Option]:
    command = c.EVALUATE
    yield Option(command, "--bins {}", {}, INTEGERS, ("n_bins",))
    yield Option(command, "--fine-bins {}", _ZERO, (*INTEGERS, "1073741824"))
    yield Option(command, "--num-classes {}", values=INTEGERS)
    other = ("1", "2", "65537")
    yield Option(command, "--num-classes {}", values=other, names=("case_a",))
    yield Option(command, "--tolerance {}", _ZERO | _HUGE | {"inf": OK})
    yield Option(command, "--region {}", _REGION_LEGAL, _REGIONS[::3])
    yield Option(command, "--bin-edge {}", values=("both",))
    yield Option(command, "--dataset-json {}", values=("nowhere.json", "labels"))
    yield Option(command, "--labels {}", values=("nowhere", "labels/case_a.nii.gz", "folds"))
    yield Option(command, "--predictions {}", values=("nowhere", "folds/fold_0/case_a.npz"))


def _recalibrate() -> Iterator[Option]:
    command = c.FIT
    yield Option(command, "--method histogram --bins {}", names=("n_bins",))
    yield Option(command, "--method dirichlet --odir {}", _ZERO | _HUGE)
    pooled = "-i folds/fold_1 --ensemble pool-then-calibrate"
    yield Option(command, f"{pooled} --weight {{}} 1", _ZERO | _HUGE)
    yield Option(command, f"{pooled} --weight {{}}", values=("1", "0 0", "1 1 1"))
    yield Option(command, "--method {}", values=("platt",))
    yield Option(command, "--case {}", values=_CASES, names=_CASES)
    yield Option(command, "--input {}", values=("nowhere", "labels/case_a.nii.gz"))
    yield Option(command, "--labels {}", values=("nowhere", "folds"))
    yield from _counting_in_brief(c.APPLY)
    yield Option(c.APPLY, "--calibrator {}", values=("nowhere.json", "labels"))


def _export() -> Iterator[Option]:
    command = c.EXPORT
    yield Option(command, "--member {}", _ZERO, INTEGERS, ("members",))
    yield Option(command, "--size {} {}", values=(*INTEGERS, "1000000"))
    yield Option(command, "--size {}", values=("12", "12 10 3", "12 -10"))
    yield Option(command, "--format {}", values=("pickle",))


def _train() -> Iterator[Option]:
    command = c.TRAIN
    yield Option(command, "--members {}", _LEFT_OUT, INTEGERS)
    yield Option(command, "--seed {}", _ZERO | _HUGE | {"-1": OK}, INTEGERS)
    yield Option(command, "--epochs {}", _LEFT_OUT, INTEGERS, names=("max_epochs",))
    yield Option(command, "--iterations {}", _LEFT_OUT, INTEGERS, names=("iterations_per_epoch",))
    yield Option(command, "--batch-size {}", values=INTEGERS)
    yield Option(command, "--learning-rate {}", _HUGE)
    yield Option(command, "--dropout {}", _ZERO, (*NUMBERS, "1"))
    yield Option(command, "--snapshots {}", values=(*INTEGERS, "2"), names=("cycles",))
    yield Option(command, "--jobs {}", _HUGE, INTEGERS)
    yield Option(command, "--dims {}", values=INTEGERS)
    yield Option(command, "--split {}", values=(*_SPLITS, "nowhere.json", "data"))
    yield Option(command, "--loss {}", values=("bogus", "ce+bogus", "+", ""))
    yield Option(command, "--device {}", values=_DEVICES)
    yield Option(command, "--strategy {}", values=("bogus",))
    yield Option(command, "--config {}", values=("nowhere.yaml", "data"))
    yield Option(command, "--prepared {}", values=("data/dataset.json", "/proc/nowhere"))
    yield Option(command, "--dataset {}", values=("nowhere", "data/dataset.json", "data/imagesTr"))
    yield Option(c.TRAIN_FOLD, "--fold {}", _ZERO, INTEGERS)
    for name, value in _SETTINGS:
        short = () if name == "network.name" else (name.rpartition(".")[2],)
        short = ("loss",) if name == "loss.name" else short
        yield Option(command, "--set {}", values=(f"{name}={value}",), names=(name, *short))


_SETTINGS = (
    *(("loop.ema", value) for value in ("0", "1", "nan", "-1", "x")),
    *(("loop.overlap", value) for value in ("1", "-1", "nan")),
    *(("loop.early_stopping", value) for value in ("0", "1.5")),
    *(("loop.checkpoint_steps", value) for value in ("0", "-1")),
    *(("optimiser.weight_decay", value) for value in ("-1", "nan", ".inf")),
    *(("optimiser.momentum", value) for value in ("1", "nan")),
    *(("optimiser.clip_norm", value) for value in ("0", "nan")),
    *(("optimiser.betas", value) for value in ("1", "0.9,2", "0.9")),
    *(("optimiser.name", value) for value in ("bogus",)),
    *(("schedule.factor", value) for value in ("0", "2", "nan")),
    *(("schedule.patience", value) for value in ("0",)),
    *(("schedule.floor", value) for value in ("1", "nan")),
    *(("sampling.oversample", value) for value in ("2", "-1", "nan")),
    *(("sampling.patch", value) for value in ("0,0", "-8,8", "8,8,8", "1000000,1000000", "x")),
    *(("augmentation.rotation", value) for value in ("7", "-1", "nan")),
    *(("preprocessing.percentiles", value) for value in ("99,1", "-1,101", "nan,99", "5")),
    *(("preprocessing.spacing", value) for value in ("0,0", "-1,1", "1e-7,1e-7", "1")),
    *(("preprocessing.size", value) for value in ("0,0", "-8,8", "1000000,1000000")),
    *(("preprocessing.slice_axis", value) for value in ("7", "-1")),
    *(("network.name", value) for value in ("os:system", "bogus", "torch.nn:Identity", "7")),
    *(("network.widths", value) for value in ("[100000,100000]", "0,0", "-4,8", "[]", "x")),
    *(("network.bogus", value) for value in ("1",)),
    *(("network.dropout", value) for value in ("2", "nan", "-1")),
    *(("loss.name", value) for value in ("bogus",)),
    *(("loss.class_weights", value) for value in ("-1,1,1", "nan,1,1", "1,1", "0,0,0")),
    *(("bogus", value) for value in ("1",)),
    *(("loop", value) for value in ("1",)),
    *(("loop.max_epochs", value) for value in ("*x", "!!python/name:os.system", "[1")),
)


_FEW = ("0", "-1", "nan")


def _demo() -> Iterator[Option]:
    command = c.DEMO_DATASET
    yield Option(command, "--members {}", values=_FEW)
    yield Option(command, "--epochs {}", values=_FEW, names=("max_epochs",))
    yield Option(command, "--iterations {}", values=_FEW, names=("iterations_per_epoch",))
    yield Option(command, "--batch-size {}", values=(*_FEW, BILLION))
    yield Option(command, "--learning-rate {}", values=(*_FEW, "inf"))
    yield Option(command, "--jobs {}", values=_FEW)
    yield Option(command, "--fine-bins {}", values=("-1", BILLION))
    yield Option(command, "--region {}", values=("bogus", "box:nan", "band:-1"))
    yield Option(command, "--split {}", values=_SPLITS)
    yield Option(command, "--loss {}", values=("bogus", "ce"), names=("losses",))
    yield Option(command, "--kind {}", values=("bogus", "heart"))
    yield Option(command, "--device {}", values=_DEVICES[:2])


def _bench() -> Iterator[Option]:
    command = Command("bench", ("bench", "--quick", "--no-peers", "-q"), (), "out")
    yield Option(command, "--classes {}", values=("0", "-1", BILLION))
    yield Option(command, "--volume 8 --members {}", values=("0", "-1", BILLION))
    yield Option(command, "--volume {}", values=("0", "-1", BEYOND, "8x8", "0x8x8", "x"))
    yield Option(command, "--threads {}", values=("0", "-1"))
    yield Option(command, "--seconds {}", values=("-1", "nan"))
    yield Option(command, "--background {}", values=("-1", "nan", "2"))
    yield Option(command, "--device {}", values=_DEVICES[:2])


def _pipe(folder: Path) -> None:
    os.mkfifo(folder / "pipe")


def kinds() -> Iterator[Kind]:
    """Of all options."""
    for group, options in (
        ("ensemble", _ensemble()),
        ("predict", _predict()),
        ("evaluate", _evaluate()),
        ("recalibrate", _recalibrate()),
        ("export", _export()),
        ("train_options", _train()),
        ("demo", [*_demo(), *_bench()]),
    ):
        for option in options:
            for kind in option.kinds(group):
                if "pipe" in kind.name:
                    kind = replace(kind, damage=_pipe)
                yield named_by_value(kind)


def named_by_value(kind: Kind) -> Kind:
    """A word or a path that is given is named by itself too."""
    words = () if kind.command is None else kind.command.argv
    last = words[-1] if words else ""
    if last in NUMBERS or not any(letter.isalpha() for letter in last):
        return kind
    return replace(kind, names=(*kind.names, last))
