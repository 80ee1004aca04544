"""The verdict on a kind, by rules, from what the process left behind."""

from __future__ import annotations

import gzip
import hashlib
import json
import math
import re
import stat
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .kinds import Expected, Kind, Result, Verdict

BAD_INPUT, SOME_FAILED = 2, 1
MARK = "pwned"
"""A file that planted code leaves behind."""
MEMORY_WORTH = 700 << 20
"""Bytes that a tiny input may take beyond what the warm process has."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a process did."""

    code: int | None
    """Exit code; negative: the signal that ended it; None: it was still running."""
    stderr: str
    seconds: float
    taken: int
    """Bytes of memory beyond those of the warm process."""
    wrong: str | None = None
    """What the kind's own script found."""


def digests(folder: Path) -> dict[str, str]:
    """Every file below a folder, by relative path: its kind, and a digest of its contents."""
    found = {}
    for path in sorted(folder.rglob("*")):
        mode = path.lstat().st_mode
        if stat.S_ISLNK(mode):
            text = f"link {path.readlink()}"
        elif stat.S_ISREG(mode):
            text = hashlib.sha256(path.read_bytes()).hexdigest()
        elif stat.S_ISDIR(mode):
            continue
        else:
            text = f"mode {stat.S_IFMT(mode):o}"
        found[str(path.relative_to(folder))] = text
    return found


def verdict(
    kind: Kind, outcome: Outcome, folder: Path, before: Mapping[str, str], baseline: Path | None
) -> Result:
    """Judge what a process left in its working folder.

    Args:
        kind: what was done.
        outcome: of the process.
        folder: the working folder.
        before: its `digests` before the last command.
        baseline: a folder with the results of the undamaged input, where they are compared.
    """
    after = digests(folder)
    word, message = _judged(kind, outcome, folder, before, after, baseline)
    return Result(kind.name, word, message, outcome.seconds)


def _judged(
    kind: Kind,
    outcome: Outcome,
    folder: Path,
    before: Mapping[str, str],
    after: Mapping[str, str],
    baseline: Path | None,
) -> tuple[Verdict, str]:
    lines = [line for line in outcome.stderr.splitlines() if line.strip()]
    last = _short(lines[-1]) if lines else ""
    if MARK in after:
        return Verdict.EXECUTED, last
    if outcome.code is None:
        return Verdict.HANG, "no answer"
    if outcome.code < 0:
        return Verdict.CRASH, f"signal {-outcome.code}; {last}"
    lost = _lost(kind, before, after)
    if lost:
        return Verdict.DESTROYED, ", ".join(lost[:3])
    if "Traceback (most recent call last)" in outcome.stderr:
        return Verdict.TRACEBACK, last
    if kind.script is not None:
        if outcome.wrong is None:
            return Verdict.PASS, ""
        refused = outcome.wrong.startswith("refused")
        return (Verdict.WRONG if refused else Verdict.SILENTLY_WRONG), _short(outcome.wrong)
    left = _left_behind(folder, before, after)
    if left:
        return Verdict.HALF, f"{left}; {last}"
    if outcome.taken > MEMORY_WORTH:
        return Verdict.GREEDY, f"{outcome.taken / 2**30:.1f} GB; {last}"
    if outcome.code == 0:
        return _of_done(kind, lines, folder, baseline)
    return _of_refused(kind, outcome.code, lines)


def _of_done(
    kind: Kind, lines: list[str], folder: Path, baseline: Path | None
) -> tuple[Verdict, str]:
    if kind.expected is Expected.HANDLED:
        return Verdict.PASS, "done"
    wrong = None
    if kind.check is not None:
        wrong = kind.check(folder)
    elif baseline is not None and kind.command is not None:
        wrong = difference(folder / kind.command.out, baseline / kind.command.out)
    if kind.expected is Expected.TOLD and len(lines) == 1 and names_it(kind, lines[0]):
        return Verdict.PASS, _short(lines[0])
    if kind.expected in (Expected.SAME, Expected.RIGHT) and wrong is None:
        return Verdict.PASS, "done"
    if wrong is None:
        return Verdict.SILENT, "done" if not lines else _short(lines[-1])
    if kind.stale:
        return Verdict.STALE, _short(wrong)
    if kind.expected is Expected.RIGHT:
        return Verdict.WRONG, _short(wrong)
    return Verdict.SILENTLY_WRONG, _short(wrong)


def _of_refused(kind: Kind, code: int, lines: list[str]) -> tuple[Verdict, str]:
    last = _short(lines[-1]) if lines else ""
    if kind.expected is Expected.LISTED:
        listed = code == SOME_FAILED and len(lines) == 2 and lines[0].endswith("failed:")
        if not listed:
            return Verdict.NOISY, f"exit code {code}, {len(lines)} lines; {last}"
    elif kind.expected is Expected.RIGHT:
        return Verdict.WRONG, last
    if not any(names_it(kind, line) for line in lines):
        return Verdict.UNNAMED, last
    warned = all(names_it(kind, line) for line in lines[:-1]) and len(lines) <= 2
    if kind.expected is not Expected.LISTED and (code != BAD_INPUT or not warned):
        return Verdict.NOISY, f"exit code {code}, {len(lines)} lines; {last}"
    return Verdict.PASS, last


def names_it(kind: Kind, line: str) -> bool:
    """Whether a line holds one of the kind's names as a word of its own."""
    return any(
        re.search(rf"(?<![A-Za-z0-9]){re.escape(name)}(?![A-Za-z0-9])", line, re.IGNORECASE)
        for name in kind.names
    )


def _lost(kind: Kind, before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    """Files that were there and are not as they were, but for outputs that may be rewritten."""
    own: tuple[str, ...] = ()
    if kind.command is not None and kind.command.resumes:
        own = (kind.command.out,)
    return [
        name
        for name, digest in before.items()
        if after.get(name) != digest
        and not any(name == place or name.startswith(f"{place}/") for place in own)
    ]


def _left_behind(folder: Path, before: Mapping[str, str], after: Mapping[str, str]) -> str:
    """The first new or changed file that is temporary or cannot be read; empty: there is none."""
    for name, digest in after.items():
        if before.get(name) == digest:
            continue
        if Path(name).name.startswith(".tmp-"):
            return f"{name} is left"
        path = folder / name
        if path.is_symlink() or not path.is_file():
            continue
        try:
            _read_whole(path)
        except Exception as error:
            return f"{name} is half-written ({type(error).__name__})"
    return ""


def _read_whole(path: Path) -> None:
    name = path.name
    if name.endswith(".gz"):
        gzip.decompress(path.read_bytes())
    elif name.endswith(".json"):
        json.loads(path.read_text())
    elif name.endswith(".jsonl"):
        for line in path.read_text().splitlines():
            json.loads(line)
    elif name.endswith((".npz", ".pt", ".ts")):
        with zipfile.ZipFile(path) as archive:
            bad = archive.testzip()
        if bad is not None:
            raise ValueError(bad)
    elif name.endswith(".npy"):
        np.load(path)
    elif name.endswith(".safetensors"):
        from safetensors.numpy import load_file

        load_file(path)


def difference(made: Path, right: Path) -> str | None:
    """Say how results differ from right ones; None: in no number."""
    if right.is_file():
        if not made.is_file():
            return f"{made.name} is missing"
        return _file_difference(made, right)
    wanted = {path.relative_to(right) for path in right.rglob("*") if path.is_file()}
    for name in sorted(wanted):
        if _compared(name):
            place = made / name
            if not place.is_file():  # beside probabilities, which nnU-Net takes for cases
                place = place.parent / "calibration" / place.name
            if not place.is_file():
                return f"{name} is missing"
            found = _file_difference(place, right / name)
            if found is not None:
                return f"{name}: {found}"
    return None


def _compared(name: Path) -> bool:
    """Whether a file holds results, as opposed to settings, logs and pictures."""
    if name.name in ("last.pt", "results.json") or "prepared" in name.parts:
        return False
    return name.name.endswith((".nii.gz", ".npz", ".safetensors")) or name.name in (
        "calibration.json",
        "scores.json",
        "fitted.json",
        "quality.json",
        "quality_scores.json",
        "ood.json",
        "ood_scores.json",
    )


def _file_difference(made: Path, right: Path) -> str | None:
    try:
        return _content_difference(made, right)
    except Exception as error:
        return f"cannot be read ({type(error).__name__})"


def _content_difference(made: Path, right: Path) -> str | None:
    name = right.name
    if name.endswith(".nii.gz"):
        import nibabel as nib

        a, b = nib.load(made), nib.load(right)
        if a.shape != b.shape or not np.allclose(a.affine, b.affine, atol=1e-4):
            return "another grid"
        return _array_difference(np.asarray(a.dataobj), np.asarray(b.dataobj))
    if name.endswith(".npz"):
        with np.load(made) as a, np.load(right) as b:
            if "case_rows" in b.files:  # of statistics: calibration.json has their metrics
                return None if a["total"].shape == b["total"].shape else "other counts"
            return next(
                (f"{key} differs" for key in b.files if _array_difference(a[key], b[key])), None
            )
    if name.endswith(".safetensors"):
        from safetensors.numpy import load_file

        a, b = load_file(made), load_file(right)
        if set(a) != set(b):
            return "other tensors"
        return next((key for key in b if _array_difference(a[key], b[key])), None)
    if name.endswith(".json"):
        return _value_difference(json.loads(made.read_text()), json.loads(right.read_text()))
    return None if made.stat().st_size else "empty"


def _array_difference(made: np.ndarray[Any, Any], right: np.ndarray[Any, Any]) -> str | None:
    if made.shape != right.shape:
        return f"shape {made.shape} for {right.shape}"
    if made.dtype.kind in "fc":
        same = np.isclose(made, right, rtol=1e-5, atol=1e-6, equal_nan=True)
    else:
        same = np.asarray(made == right)
    return None if same.all() else f"{int((~same).sum())} of {same.size} values differ"


def _value_difference(made: Any, right: Any, place: str = "") -> str | None:
    """The first number of JSON content that differs; texts (paths, names) are not compared."""
    if isinstance(right, dict):
        if not isinstance(made, dict) or not set(right) <= set(made):
            return f"{place or 'top'}: other keys"
        pairs = [(made[key], value, f"{place}.{key}") for key, value in right.items()]
    elif isinstance(right, list):
        if not isinstance(made, list) or len(made) != len(right):
            return f"{place}: another length"
        pairs = [(a, b, f"{place}[{k}]") for k, (a, b) in enumerate(zip(made, right, strict=True))]
    else:
        if isinstance(right, float) and isinstance(made, int | float):
            both_nan = math.isnan(right) and math.isnan(made)
            close = math.isclose(made, right, rel_tol=1e-5, abs_tol=1e-7)
            return None if both_nan or close else f"{place}: {made} for {right}"
        if isinstance(right, str):
            return None
        return None if made == right else f"{place}: {made} for {right}"
    return next((d for d in (_value_difference(*pair) for pair in pairs) if d is not None), None)


def _short(text: str) -> str:
    text = " ".join(text.split()).removeprefix("fastcal: ")
    return text if len(text) <= 200 else f"{text[:120]} ... {text[-70:]}"
