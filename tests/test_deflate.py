"""gzip and ZIP at full speed: the same bytes through isal and through zlib, and the same errors."""

from __future__ import annotations

import gzip
import io
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from fastcal.core.doors import deflate, open_npz
from fastcal.core.errors import DataError
from fastcal.data import nifti, predictions

ENGINES = ("isal", "zlib")


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Each engine in turn; isal is hidden for the other."""
    name: str = request.param
    if name == "zlib":
        monkeypatch.setitem(sys.modules, "isal", None)
        monkeypatch.setitem(sys.modules, "isal.igzip", None)
    else:
        pytest.importorskip("isal")
    deflate.engine.cache_clear()
    yield name
    deflate.engine.cache_clear()


def stack() -> np.ndarray:
    values = np.random.default_rng(3).random((3, 9, 8, 7), np.float32)
    values[:, 2:6] = 0.25
    return values / values.sum(0)


@pytest.fixture
def npz(tmp_path: Path, engine: str) -> Path:
    path = tmp_path / "case.npz"
    predictions.write_npz(path, stack(), activation="sigmoid")
    assert deflate.engine() == engine
    return path


def test_an_archive_is_what_numpy_reads(npz: Path) -> None:
    with np.load(npz) as found:
        assert sorted(found) == ["activation", "probabilities"]
        assert np.array_equal(found["probabilities"], stack().transpose(0, 3, 2, 1))
        assert found["activation"] == "sigmoid"
    with zipfile.ZipFile(npz) as archive:
        assert archive.testzip() is None


def test_what_numpy_writes_is_read(tmp_path: Path, engine: str) -> None:
    values = stack()
    for name, array in {"c": values, "f": np.asfortranarray(values), "empty": values[:0]}.items():
        np.savez_compressed(tmp_path / f"{name}.npz", probabilities=array)
        with open_npz(tmp_path / f"{name}.npz") as arrays:
            assert np.array_equal(arrays.array("probabilities"), array)
    assert deflate.engine() == engine


def test_equal_arrays_make_equal_files(npz: Path, tmp_path: Path) -> None:
    predictions.write_npz(tmp_path / "again.npz", stack(), activation="sigmoid")
    assert (tmp_path / "again.npz").read_bytes() == npz.read_bytes()
    like = nifti.Geometry.from_affine(np.eye(4), (9, 8, 7))
    for name in ("a", "b"):
        nifti.write(tmp_path / f"{name}.nii.gz", stack()[0], like)
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()


def test_a_damaged_byte_anywhere_in_the_stream_is_found(npz: Path) -> None:
    whole = npz.read_bytes()
    with zipfile.ZipFile(npz) as archive:
        info = archive.getinfo("probabilities.npy")
    for place in range(info.header_offset + 90, info.header_offset + info.compress_size, 997):
        damaged = bytearray(whole)
        damaged[place] ^= 0x10
        npz.write_bytes(damaged)
        with pytest.raises(DataError, match="damaged"), open_npz(npz) as arrays:
            arrays.array("probabilities")


def test_a_member_that_holds_another_number_of_bytes_is_refused(
    tmp_path: Path, engine: str
) -> None:
    del engine
    path = tmp_path / "case.npz"
    np.savez_compressed(path, probabilities=np.zeros(1000))
    whole = path.read_bytes()
    size = (8128).to_bytes(4, "little")
    for other in (8127, 8129, 8120, 9000):
        path.write_bytes(whole.replace(size, other.to_bytes(4, "little")))
        with pytest.raises(DataError), open_npz(path) as arrays:
            arrays.array("probabilities")


@pytest.mark.parametrize("dtype", ["float32", "uint8", "int"])
def test_a_gzip_file_of_either_engine_is_what_nibabel_reads(
    tmp_path: Path, engine: str, dtype: str
) -> None:
    del engine
    like = nifti.Geometry.from_affine(np.diag([2.0, 1.0, 1.0, 1.0]), (9, 8, 7))
    values = stack()[0] if dtype != "int" else (stack()[0] * 5).astype(np.int64)
    path = tmp_path / "map.nii.gz"
    nifti.write(path, values, like, dtype=dtype)
    theirs = np.asarray(nib.load(path).dataobj)
    step = 0 if dtype != "uint8" else values.max() / 255
    assert np.abs(theirs - values).max() <= step / 2 + 1e-7
    assert np.array_equal(nifti.read(path).data, theirs.astype(nifti.read(path).data.dtype))
    assert path.read_bytes()[3:8] == bytes(5)  # neither a name nor a time


def test_gzip_of_several_streams_and_a_damaged_one(tmp_path: Path, engine: str) -> None:
    del engine
    like = nifti.Geometry.from_affine(np.eye(4), (9, 8, 7))
    path = tmp_path / "map.nii.gz"
    nifti.write(path, stack()[0], like)
    raw = gzip.decompress(path.read_bytes())
    path.write_bytes(gzip.compress(raw[:500]) + gzip.compress(raw[500:]))
    assert np.array_equal(nifti.read(path).data, stack()[0])
    damaged = bytearray(gzip.compress(raw))
    damaged[-6] ^= 1  # of the checksum
    path.write_bytes(damaged)
    with pytest.raises(DataError, match="damaged"):
        nifti.read(path)


def test_two_members_of_an_archive_are_read_in_turn(npz: Path) -> None:
    raw = npz.read_bytes()
    with zipfile.ZipFile(npz) as archive:
        info = archive.getinfo("probabilities.npy")
        expected = archive.read(info)
    file = io.BytesIO(raw)
    name, extra = (int.from_bytes(raw[at : at + 2], "little") for at in (26, 28))
    place = {"start": 30 + name + extra, "length": info.compress_size}
    streams = [
        deflate.gzip_reader(deflate.framed(file, **place, size=info.file_size, checksum=info.CRC))
        for _ in range(2)
    ]
    pieces = [[stream.read(300) for stream in streams] for _ in range(3)]
    assert all(one == two for one, two in pieces)
    rest = [stream.read() for stream in streams]
    assert b"".join(one for one, _ in pieces) + rest[0] == expected
