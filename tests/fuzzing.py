"""Mutated files for the doors: run as a program it tries one reader for some seconds.

    python tests/fuzzing.py json 30 1

It prints a JSON object: how many files were tried, how many gave a value, the slowest, and what
failed: anything but a value or a `DataError` of one line that begins with the path, more than ten
seconds, or more than 1 GiB beyond what the program has after its imports.
"""

from __future__ import annotations

import gzip
import io
import json
import pickle
import random
import resource
import signal
import struct
import sys
import tempfile
import time
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import fuzzed_files
import nibabel as nib
import numpy as np
import torch
import yaml
from safetensors.torch import save

from fastcal.core import doors
from fastcal.core.errors import DataError

LONGEST = 10.0
MOST_MEMORY = 1 << 30


class Hang(BaseException):
    """No answer in time; no `Exception`, which a door would take for the file's fault."""


@dataclass(frozen=True)
class Reader:
    """A door, files that it reads, and how what is inside them becomes a file."""

    suffix: str
    read: Callable[[Path], Any]
    seeds: Sequence[bytes]
    wrap: Callable[[bytes], bytes] = bytes
    tokens: Sequence[bytes] = ()


# --- seeds ----------------------------------------------------------------------------------------


def npy(array: Any) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=True)
    return stream.getvalue()


def zipped(method: int, **members: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return stream.getvalue()


def npz(array: Any, *, deflated: bool = True) -> bytes:
    stream = io.BytesIO()
    (np.savez_compressed if deflated else np.savez)(stream, probabilities=array)
    return stream.getvalue()


def nifti(array: Any, kind: Any = nib.Nifti1Image) -> bytes:
    content: bytes = kind(array, np.eye(4)).to_bytes()
    return content


def checkpoint(value: object) -> bytes:
    stream = io.BytesIO()
    torch.save(value, stream)
    return stream.getvalue()


def training_state() -> dict[str, Any]:
    network = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.BatchNorm2d(2))
    optimiser = torch.optim.AdamW(network.parameters())
    network(torch.zeros(2, 1, 5, 5)).sum().backward()
    optimiser.step()
    return {
        "model": network.state_dict(),
        "optimiser": optimiser.state_dict(),
        "course": {"epoch": 3, "best": 0.5, "history": [0.1, 0.2, None], "done": False},
    }


@cache
def _whole_checkpoint() -> bytes:
    return checkpoint(training_state())


def pickled_member(content: bytes) -> bytes:
    """A checkpoint with this ``data.pkl`` and the numbers of `training_state`."""
    made = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(_whole_checkpoint())) as old,
        zipfile.ZipFile(made, "w", zipfile.ZIP_STORED) as new,
    ):
        for name in old.namelist():
            new.writestr(name, content if name.endswith("data.pkl") else old.read(name))
    return made.getvalue()


def data_pkl(archive: bytes) -> bytes:
    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        return opened.read(next(name for name in opened.namelist() if name.endswith("data.pkl")))


def state() -> dict[str, Any]:
    return {
        "header": np.array(json.dumps({"format": "f", "version": 1, "settings": {"a": [1, 2]}})),
        "total": np.arange(6).reshape(2, 3),
        "case_rows": np.arange(12).reshape(2, 2, 3),
        "case_ids": np.array(["a", "b"]),
    }


def state_bytes() -> bytes:
    stream = io.BytesIO()
    np.savez_compressed(stream, **state())
    return stream.getvalue()


PROPERTIES = OrderedDict(
    sitk_stuff={"spacing": (1.0, 1.0, 3.0), "origin": (0.0, 0.0, 0.0), "direction": (1.0,) * 9},
    nibabel_stuff={"original_affine": np.eye(4), "reoriented_affine": np.eye(4)},
    spacing=[np.float64(3.0), 1.0, 1.0],
    shape_before_cropping=(10, 20, 30),
    bbox_used_for_cropping=[[0, 10], [0, 20], [0, 30]],
    class_locations={1: np.arange(12).reshape(3, 4), (1, 2): [], np.int64(3): None},
    names={"a", "b"},
)
DATASET = {
    "channel_names": {"0": "MRI"},
    "labels": {"background": 0, "left": [1, 2], "right": 2},
    "regions_class_order": [1, 2],
    "numTraining": 3,
    "file_ending": ".nii.gz",
    "spacing": [0.7, 1e-3, -1.5],
}
IMAGE = np.arange(60, dtype=np.int16).reshape(3, 4, 5)

READERS = {
    "json": Reader(
        ".json",
        doors.read_json,
        [json.dumps(DATASET).encode(), b'[1, 2.5, null, true, "\\u00e9\\ud83d\\ude00"]'],
        tokens=[b"[" * 50, b"{" * 50, b'{"a":', b"1e999", b"NaN", b"9" * 30, b"\\ud800", b"\xff"],
    ),
    "json_lines": Reader(
        ".jsonl",
        doors.read_json_lines,
        [b'{"epoch": 1, "loss": 0.5}\n{"epoch": 2, "loss": null}\n{"ep'],
        tokens=[b"\n", b"[" * 50, b"1e999", b"\r", b"\x00"],
    ),
    "yaml": Reader(
        ".yaml",
        doors.read_yaml,
        [
            yaml.safe_dump(DATASET).encode(),
            b"a: &a {x: 1, y: [2, 3]}\nb: {<<: *a, z: *a}\nc: 12:30:59\nd: 2001-12-31\ne: 0x1f\n",
        ],
        tokens=[
            b"&a ",
            b"*a",
            b"<<: ",
            b"[",
            b"{",
            b"- ",
            b"? ",
            b"!!int ",
            b"!!python/name:os ",
            b"1:" * 20 + b"1",
            b"9" * 50,
            b".inf",
            b"---\n",
            b"? [1]\n: 2\n",
            b"!!set {a}",
        ],
    ),
    "npy": Reader(
        ".npy",
        doors.read_npy,
        [npy(IMAGE), npy(np.asfortranarray(IMAGE)), npy(np.float32(1)), npy(np.zeros((0, 3)))],
        tokens=[b"((((", b"'descr': '|O'", b"99999999999", b"True", b"<U9", b"))", b"L"],
    ),
    "npz": Reader(
        ".npz",
        lambda path: doors.read_npz(path, ["probabilities"]),
        [npz(IMAGE), npz(IMAGE, deflated=False)],
    ),
    "npz_inside": Reader(
        ".npz",
        lambda path: doors.read_npz(path, ["probabilities"]),
        [npy(IMAGE), npy(np.float32(1))],
        wrap=lambda content: zipped(zipfile.ZIP_DEFLATED, **{"probabilities.npy": content}),
        tokens=[b"((((", b"'descr': '|O'", b"99999999999"],
    ),
    "pickle": Reader(
        ".pkl",
        doors.read_pickle,
        [
            *(pickle.dumps(PROPERTIES, protocol) for protocol in (2, 3, 4, 5)),
            pickle.dumps({"a": [1, 2.5, "x", b"y", (1, {2})], "b": 10**9}, 0),
        ],
        tokens=[
            b"2\x86",
            b"\x94",
            b"cos\nsystem\n",
            b"\x85R",
            b"r\xff\xff\xff\xff",
            b"(",
            b"t",
            b"s",
        ],
    ),
    "nifti": Reader(".nii", doors.nifti_header, [nifti(IMAGE), nifti(IMAGE, nib.Nifti2Image)]),
    "nifti_gz": Reader(
        ".nii.gz",
        lambda path: _voxels(path),
        [nifti(IMAGE), nifti(IMAGE, nib.Nifti2Image)],
        wrap=lambda content: gzip.compress(content, 1),
    ),
    "gzip": Reader(".nii.gz", lambda path: _voxels(path), [gzip.compress(nifti(IMAGE))]),
    "safetensors": Reader(
        ".safetensors",
        doors.read_safetensors,
        [
            save({"a": torch.arange(6.0), "b": torch.zeros(2, 0)}, metadata={"fastcal": "{}"}),
            save({"w": torch.ones(3, dtype=torch.bfloat16)}),
        ],
        tokens=[b"[" * 50, b'"__metadata__":{}', b"99999999999", b"-1", b'"F64"', b"{}"],
    ),
    "checkpoint": Reader(".pt", doors.read_checkpoint, [checkpoint(training_state())]),
    "checkpoint_inside": Reader(
        ".pt",
        doors.read_checkpoint,
        [data_pkl(_whole_checkpoint())],
        wrap=pickled_member,
        tokens=[
            b"2\x86",
            b"\x85R",
            b"cos\nsystem\n",
            b"r\xff\xff\xff\xff",
            b"Q",
            b"ctorch\nSize\n",
        ],
    ),
    "state": Reader(
        ".npz",
        lambda path: doors.read_state(path, format="f", version=1),
        [state_bytes()],
    ),
}


READERS |= {
    name: Reader(suffix, read, seeds, tokens=[b"1e999", b"NaN", b"true", b"null", b"[" * 50, b"-1"])
    for name, (suffix, read, seeds) in fuzzed_files.readers().items()
}


def _voxels(path: Path) -> Any:
    """As a reader of images uses the door."""
    with doors.open_nifti(path) as file:
        kind = nib.Nifti1Image if file.header.version == 1 else nib.Nifti2Image
        return np.asarray(kind.from_stream(file.stream).dataobj)


# --- mutations ------------------------------------------------------------------------------------

EXTREMES = [
    *(struct.pack("<I", n) for n in (0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)),
    *(struct.pack("<Q", n) for n in (0, 2**31, 2**63 - 1, 2**63, 2**64 - 1)),
    *(struct.pack("<d", n) for n in (float("nan"), float("inf"), 1e308, -1.0)),
    *(struct.pack("<h", n) for n in (-1, 0, 32767)),
]


def mutated(seeds: Sequence[bytes], tokens: Sequence[bytes], chance: random.Random) -> bytes:
    """A seed with one to eight changes."""
    content = bytearray(chance.choice(seeds))
    for _ in range(chance.choice((1, 1, 2, 3, 8))):
        place = chance.randrange(len(content) + 1)
        length = min(chance.choice((1, 2, 4, 8, 64)), len(content) - place)
        match chance.randrange(8):
            case 0 if length:
                content[place] ^= 1 << chance.randrange(8)
            case 1 if length:
                content[place] = chance.randrange(256)
            case 2:
                del content[place : place + length]
            case 3:
                content[place:place] = content[place : place + length] * chance.choice((1, 2, 100))
            case 4:
                del content[place:]
            case 5:
                value = chance.choice(EXTREMES)
                content[place : place + len(value)] = value
            case 6:
                other = chance.choice(seeds)
                content[place:] = other[chance.randrange(len(other) + 1) :]
            case _:
                content[place:place] = chance.choice(tokens or EXTREMES)
    return bytes(content)


def outcome(reader: Reader, path: Path, content: bytes) -> str:
    """``"value"`` or ``"error"``; an `AssertionError` where it is neither.

    Raises:
        AssertionError: Another exception, or a `DataError` that is not one line with the path.
    """
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    try:
        reader.read(path)
    except DataError as error:
        line = str(error)
        if not (line.startswith(f"{path}: ") and len(line) - len(str(path)) < 700):
            raise AssertionError(f"not one short line of the path: {line!r}") from error
        if not line.isprintable():
            raise AssertionError(f"steers the terminal: {line!r}") from error
        return "error"
    except Exception as error:
        raise AssertionError(f"{type(error).__name__}: {error}") from error
    return "value"


def fuzz(name: str, seconds: float, seed: int) -> dict[str, Any]:
    """Try mutated files until the time is over."""
    reader, chance = READERS[name], random.Random(f"{name}-{seed}")
    report: dict[str, Any] = {"reader": name, "tried": 0, "value": 0, "error": 0, "slowest": 0.0}
    failures: list[str] = []
    end = time.monotonic() + seconds
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"file{reader.suffix}"
        while time.monotonic() < end and len(failures) < 5:
            inside = mutated(reader.seeds, reader.tokens, chance)
            begin = time.monotonic()
            try:
                signal.setitimer(signal.ITIMER_REAL, LONGEST)
                report[outcome(reader, path, reader.wrap(inside))] += 1
            except (AssertionError, Hang) as error:
                failures.append(f"{type(error).__name__} {error} {inside[:4000].hex()}")
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
            report["tried"] += 1
            report["slowest"] = max(report["slowest"], time.monotonic() - begin)
    return {**report, "failures": failures}


def _hang(*_: object) -> None:
    raise Hang


def main(name: str, seconds: str, seed: str) -> None:
    torch.set_num_threads(1)
    for reader in READERS.values():  # what is imported lazily is loaded before memory is counted
        with tempfile.TemporaryDirectory() as folder:
            outcome(reader, Path(folder) / f"file{reader.suffix}", reader.wrap(reader.seeds[0]))
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + MOST_MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    signal.signal(signal.SIGALRM, _hang)
    print(json.dumps(fuzz(name, float(seconds), int(seed))))


if __name__ == "__main__":
    main(*sys.argv[1:])
