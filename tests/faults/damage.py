"""Damages of files, by format: tables of a name and what it does to a path."""

from __future__ import annotations

import gzip
import io
import json
import os
import shutil
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

Damage: TypeAlias = Callable[[Path], None]

DEEP = 200_000
"""Levels of nesting, far beyond what recursive parsers bear."""


def remove(path: Path) -> None:
    """Remove whatever is at a path."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def replaced(content: bytes | str) -> Damage:
    """Other contents."""
    raw = content.encode() if isinstance(content, str) else content

    def damage(path: Path) -> None:
        remove(path)
        path.write_bytes(raw)

    return damage


def truncated(share: float) -> Damage:
    """Only the first part is left."""

    def damage(path: Path) -> None:
        content = path.read_bytes()
        path.write_bytes(content[: max(1, int(len(content) * share))])

    return damage


def flipped(share: float, bit: int = 4) -> Damage:
    """One bit is flipped."""

    def damage(path: Path) -> None:
        content = bytearray(path.read_bytes())
        content[min(int(len(content) * share), len(content) - 1)] ^= 1 << bit
        path.write_bytes(content)

    return damage


def zeros(path: Path) -> None:
    """As long as before, but all zero, as a power failure leaves it."""
    path.write_bytes(bytes(path.stat().st_size))


def fifo(path: Path) -> None:
    """A pipe that nobody writes to."""
    remove(path)
    os.mkfifo(path)


def folder(path: Path) -> None:
    """An empty folder."""
    remove(path)
    path.mkdir()


def device(path: Path) -> None:
    """A link to an endless device."""
    remove(path)
    path.symlink_to("/dev/zero")


def loop(path: Path) -> None:
    """A link to itself."""
    remove(path)
    path.symlink_to(path.name)


def dangling(path: Path) -> None:
    """A link to nothing."""
    remove(path)
    path.symlink_to("nowhere")


_GARBAGE = bytes(np.random.default_rng(0).integers(0, 256, 1000, dtype=np.uint8))

ANY: dict[str, Damage] = {
    "missing": remove,
    "empty": replaced(b""),
    "a FIFO": fifo,
    "a folder": folder,
    "a link to /dev/zero": device,
    "a link to itself": loop,
    "a dangling link": dangling,
    "random bytes": replaced(_GARBAGE),
    "a text": replaced("This is not the file that you are looking for.\n"),
    "truncated at 1/4": truncated(1 / 4),
    "truncated at 1/2": truncated(1 / 2),
    "truncated at 3/4": truncated(3 / 4),
}
"""Of any file."""

BINARY: dict[str, Damage] = ANY | {
    "zeros of its length": zeros,
    "a bit flipped at 1/10": flipped(0.1),
    "a bit flipped at 1/2": flipped(0.5),
    "a bit flipped at 9/10": flipped(0.9),
    "a bit flipped in the last byte": flipped(1.0),
}
"""Of formats with checksums."""

DIRECTORY_END = "a bit flipped at 9/10", "a bit flipped in the last byte"


# zip, npz, npy


def npy_bytes(header: str, body: bytes = b"", *, version: int = 1) -> bytes:
    """An npy file with a header of one's own."""
    text = header.encode("latin1") + b"\n"
    length = struct.pack("<H" if version == 1 else "<I", len(text))
    return b"\x93NUMPY" + bytes([version, 0]) + length + text + body


def with_member(content: bytes, *, name: str = "probabilities.npy") -> Damage:
    """An npz whose array is these bytes."""

    def damage(path: Path) -> None:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(name, content)

    return damage


def with_array(
    make: Callable[[np.ndarray[Any, Any]], Any], *, key: str = "probabilities"
) -> Damage:
    """An npz, or npy, whose array is changed."""

    def damage(path: Path) -> None:
        if path.suffix == ".npy":
            np.save(path, make(np.load(path)), allow_pickle=True)
            return
        with np.load(path) as content:
            arrays = {name: content[name] for name in content.files}
        arrays[key] = make(arrays[key])
        np.savez_compressed(path, **arrays)

    return damage


def patched_zip(offset_local: int, offset_central: int, value: int) -> Damage:
    """Two bytes of the first entry's headers."""

    def damage(path: Path) -> None:
        content = bytearray(path.read_bytes())
        central = content.index(b"PK\x01\x02")
        for start in (content.index(b"PK\x03\x04") + offset_local, central + offset_central):
            content[start : start + 2] = struct.pack("<H", value)
        path.write_bytes(content)

    return damage


def lzma_flipped(path: Path) -> None:
    """Compressed by LZMA, with a bit flipped in the middle of the data."""
    with np.load(path) as content:
        arrays = {name: content[name] for name in content.files}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as archive:
        for name, array in arrays.items():
            stream = io.BytesIO()
            np.save(stream, array)
            archive.writestr(f"{name}.npy", stream.getvalue())
    flipped(0.4)(path)


def zeros_deflated(megabytes: int, *, wbits: int = -15) -> bytes:
    """A deflate stream of many zeros, without compressing them all: one block, repeated."""
    packer = zlib.compressobj(9, zlib.DEFLATED, wbits)
    head = packer.compress(bytes(1 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)
    block = packer.compress(bytes(1 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)
    again = packer.compress(bytes(1 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)
    assert block == again
    return head + block * (megabytes - 1) + packer.flush(zlib.Z_FINISH)


def zip_bomb(name: str) -> Damage:
    """2 GB of zeros in 2 MB, under a name that is read: an array, but none of this image."""

    def damage(path: Path) -> None:
        megabytes = 2048
        header = npy_bytes(
            f"{{'descr': '<f4', 'fortran_order': False, 'shape': (4, 2, 2, {megabytes << 14}), }}"
        )
        packed = zlib.compressobj(9, zlib.DEFLATED, -15)
        body = packed.compress(header) + packed.flush(zlib.Z_FULL_FLUSH)
        body += zeros_deflated(megabytes)
        size = min(len(header) + (megabytes << 20), 0xFFFFFFFE)
        entry = name.encode()
        fields = struct.pack("<HHHHHIIIHH", 20, 0, 8, 0, 33, 0, len(body), size, len(entry), 0)
        local = b"PK\x03\x04" + fields + entry
        central = b"PK\x01\x02" + struct.pack("<H", 20) + fields
        central += struct.pack("<HHHII", 0, 0, 0, 0, 0) + entry
        end = struct.pack("<HHHHIIH", 0, 0, 1, 1, len(central), len(local) + len(body), 0)
        path.write_bytes(local + body + central + b"PK\x05\x06" + end)

    return damage


def renamed_to(suffix: str) -> Damage:
    """The contents under another ending."""

    def damage(path: Path) -> None:
        path.rename(path.with_suffix(suffix))

    return damage


def as_zip(path: Path) -> None:
    """An npz archive under the name of an npy."""
    array = np.load(path)
    with path.open("wb") as stream:
        np.savez(stream, probabilities=array)


_NESTED = "(" * 50_000
_HUGE = "{'descr': '<f4', 'fortran_order': False, 'shape': (3, 3, 10, 1000000000000), }"
_OBJECT = "{'descr': '|O', 'fortran_order': False, 'shape': (3, 3, 10, 12), }"
_NEGATIVE = "{'descr': '<f4', 'fortran_order': False, 'shape': (3, -3, 10, 12), }"
_BODY = bytes(3 * 3 * 10 * 12 * 4)

NPY_HEADERS: dict[str, bytes] = {
    "header deeply nested": npy_bytes(_NESTED, version=2),
    "header not closed": npy_bytes("{'descr': '<f4', 'fortran_order': False, 'shape': ("),
    "header claims terabytes": npy_bytes(_HUGE),
    "header claims 2 GB": npy_bytes(
        "{'descr': '<f4', 'fortran_order': False, 'shape': (3, 3, 10, 6000000), }", _BODY
    ),
    "header of an object array": npy_bytes(_OBJECT, b"cos\nsystem\n(S'touch pwned'\ntR."),
    "header with a negative extent": npy_bytes(_NEGATIVE, _BODY),
    "header without descr": npy_bytes("{'fortran_order': False, 'shape': (3, 3, 10, 12), }"),
    "header a number": npy_bytes("7"),
    "header of version 9": b"\x93NUMPY\x09\x00" + _BODY,
    "only the magic": b"\x93NUMPY",
}

ZIPS: dict[str, Damage] = {
    "method 99": patched_zip(8, 10, 99),
    "version needed 99": patched_zip(4, 6, 99),
    "encrypted": patched_zip(6, 8, 1),
    "lzma with a flipped bit": lzma_flipped,
}

# gzip and NIfTI


def inflated(change: Callable[[bytearray], bytes | bytearray | None]) -> Damage:
    """A NIfTI file's bytes are changed; it stays gzipped where it is."""

    def damage(path: Path) -> None:
        raw = path.read_bytes()
        zipped = raw[:2] == b"\x1f\x8b"
        content = bytearray(gzip.decompress(raw) if zipped else raw)
        made = bytes(change(content) or content)
        path.write_bytes(gzip.compress(made) if zipped else made)

    return damage


def header_field(offset: int, layout: str, *values: float) -> Damage:
    """Fields of the header, by offset and struct layout."""

    def change(content: bytearray) -> None:
        struct.pack_into("<" + layout, content, offset, *values)

    return inflated(change)


def gzip_bomb(path: Path) -> None:
    """A volume of 1.5 GB, all zero, in 2 MB."""
    header = bytearray(gzip.decompress(path.read_bytes())[:352])
    struct.pack_into("<8h", header, 40, 3, 1200, 1024, 1250, 1, 1, 1, 1)
    struct.pack_into("<2h", header, 70, 2, 8)
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    start = packer.compress(bytes(header)) + packer.flush(zlib.Z_FULL_FLUSH)
    block = packer.compress(bytes(1 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)
    same = packer.compress(bytes(1 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)
    path.write_bytes(start + block + same * 1535 + packer.flush())


def ungzipped(path: Path) -> None:
    """Not compressed, under a name that says so."""
    path.write_bytes(gzip.decompress(path.read_bytes()))


_NAN, _INF = float("nan"), float("inf")

NIFTI: dict[str, Damage] = {
    "header size 349": header_field(0, "i", 349),
    "no magic": header_field(344, "4s", b"xxxx"),
    "dim[0] = 0": header_field(40, "h", 0),
    "dim[0] = 9": header_field(40, "h", 9),
    "an extent of 0": header_field(42, "h", 0),
    "an extent of -5": header_field(42, "h", -5),
    "extents of 32000": header_field(42, "3h", 32000, 32000, 32000),
    "extents that claim 1.5 GB": header_field(42, "3h", 1200, 1100, 1000),
    "datatype 0": header_field(70, "h", 0),
    "datatype 999": header_field(70, "h", 999),
    "datatype RGB": header_field(70, "2h", 128, 24),
    "datatype complex": header_field(70, "2h", 32, 64),
    "voxels from byte 10^9": header_field(108, "f", 1e9),
    "voxels from byte NaN": header_field(108, "f", _NAN),
    "voxels from byte -352": header_field(108, "f", -352.0),
    "slope infinite": header_field(112, "2f", _INF, 0.0),
    "intercept NaN": header_field(112, "2f", 2.0, _NAN),
    "an extension of 2 GB": inflated(
        lambda c: c[:348] + b"\x01\0\0\0" + struct.pack("<2i", 2**31 - 16, 6) + c[352:]
    ),
}
"""Of any NIfTI file: refused."""

GZIPPED: dict[str, Damage] = {
    "a volume of 1.5 GB in 2 MB": gzip_bomb,
    "gzip of a text": replaced(gzip.compress(b"a text" * 100)),
    "bytes after the gzip stream": lambda path: path.write_bytes(path.read_bytes() + b"x" * 50),
}

PLACES: dict[str, Damage] = {
    "affine NaN": header_field(280, "f", _NAN),
    "affine infinite": header_field(280, "f", _INF),
    "affine of zeros": header_field(280, "12f", *[0.0] * 12),
    "affine singular": header_field(280, "4f", 0.0, 0.0, 0.0, 0.0),
    "affine of 10^30": header_field(280, "f", 1e30),
    "sform and qform off": header_field(252, "2h", 0, 0),
}
"""Of a NIfTI file's geometry."""

# JSON


def json_bytes(path: Path) -> Any:
    return json.loads(path.read_text())


def json_of(change: Callable[[Any], Any]) -> Damage:
    """Contents are changed in place, or replaced by what the function returns."""

    def damage(path: Path) -> None:
        content = json.loads(path.read_text())
        made = change(content)
        path.write_text(json.dumps(content if made is None else made, indent=1))

    return damage


JSON: dict[str, Damage] = ANY | {
    "nested 200,000 deep": replaced("[" * DEEP + "]" * DEEP),
    "objects nested 200,000 deep": replaced('{"a":' * DEEP + "1" + "}" * DEEP),
    "a list": replaced("[]"),
    "a number": replaced("7"),
    "a word": replaced('"text"'),
    "null": replaced("null"),
    "an empty object": replaced("{}"),
    "UTF-16": lambda path: path.write_bytes(path.read_text().encode("utf-16")),
    "Latin-1 beyond ASCII": replaced('{"name": "Gef\xe4\xdf"}'.encode("latin1")),
    "an integer of 5000 digits": replaced('{"name": ' + "9" * 5000 + "}"),
    "half a surrogate": replaced('{"name": "\\ud800"}'),
}
"""Of any JSON file; an empty object may be legal."""

WRONG_VALUES: dict[str, str] = {
    "missing": "",
    "null": "null",
    "a word": '"bogus"',
    "a number": "7",
    "-1": "-1",
    "1e400": "1e400",
    "a list": "[1, 2]",
    "an object": '{"bogus": 1}',
    "true": "true",
    "nested deep": "[" * DEEP + "]" * DEEP,
}
"""In place of a value, as JSON text; the empty text drops the key."""


def key_damage(place: tuple[str, ...], text: str) -> Damage:
    """Another value at a key, written as text (JSON of Python does not know it all)."""

    def damage(path: Path) -> None:
        content = json.loads(path.read_text())
        holder = content
        for key in place[:-1]:
            holder = holder[key]
        if not text:
            del holder[place[-1]]
            path.write_text(json.dumps(content))
            return
        holder[place[-1]] = "@@here@@"
        path.write_text(json.dumps(content).replace('"@@here@@"', text))

    return damage


def of_other_type(value: Any) -> list[str]:
    """Names in `WRONG_VALUES` that are not of a value's own JSON type."""
    own = {
        str: {"a word"},
        bool: {"true"},
        int: {"a number", "-1"},
        float: {"a number", "-1"},
        list: {"a list"},
        dict: {"an object"},
        type(None): {"null"},
    }[type(value)]
    return [name for name in WRONG_VALUES if name not in own]
