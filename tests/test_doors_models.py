"""Doors of pickles, images, weights, states and digests give a value or a DataError."""

from __future__ import annotations

import gzip
import json
import os
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any

import fuzzing
import nibabel as nib
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from fastcal.core import doors
from fastcal.core.errors import DataError

ZIP = zipfile.ZIP_DEFLATED


def written(folder: Path, name: str, content: bytes | str) -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def refused(read: Any, path: Path, *words: str) -> str:
    """The problem that a reader tells, which has all of these words."""
    with pytest.raises(DataError) as caught:
        read(path)
    line = str(caught.value)
    assert line.startswith(f"{path}: ")
    assert line.isprintable()
    for word in words:
        assert word in line
    return line


# --- pickles --------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_properties_of_nnunet_are_read_in_every_protocol(protocol: int, tmp_path: Path):
    path = written(tmp_path, "a.pkl", pickle.dumps(fuzzing.PROPERTIES, protocol))
    found = doors.read_pickle(path)
    assert found["sitk_stuff"] == fuzzing.PROPERTIES["sitk_stuff"]
    assert found["spacing"] == [3.0, 1.0, 1.0]
    assert found["bbox_used_for_cropping"] == [[0, 10], [0, 20], [0, 30]]
    assert found["names"] == {"a", "b"}
    np.testing.assert_array_equal(found["nibabel_stuff"]["original_affine"], np.eye(4))
    locations = found["class_locations"]
    np.testing.assert_array_equal(locations[1], np.arange(12).reshape(3, 4))
    assert locations[1, 2] == []
    assert locations[3] is None


@pytest.mark.parametrize("protocol", [2, 5])
@pytest.mark.parametrize(
    "array",
    [
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        *(np.arange(4, dtype=kind) for kind in (">f4", "<i8", "u1", "f2")),
        *(np.array([True, False]), np.zeros((0, 3))),
    ],
)
def test_arrays_in_pickles_come_back(protocol: int, array: Any, tmp_path: Path):
    found = doors.read_pickle(written(tmp_path, "a.pkl", pickle.dumps([array], protocol)))[0]
    np.testing.assert_array_equal(found, array)
    assert found.dtype == array.dtype.newbyteorder("=")


def doubled_key(levels: int) -> bytes:
    """A dict whose key is a tuple that holds itself twice, again and again."""
    return b"\x80\x04}" + b"K\x01" + b"\x94h\x00\x86" * 0 + b"2\x86" * levels + b"Ns."


def doubled_list(levels: int) -> bytes:
    return b"\x80\x04K\x01" + b"2\x86" * levels + b"."


class Runs:
    def __reduce__(self) -> Any:
        return os.system, ("echo ran",)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (pickle.dumps(Runs()), "asks for posix.system, which is not allowed"),
        (b"cbuiltins\neval\n(S'1'\ntR.", "asks for builtins.eval"),
        (doubled_key(45), "keys must be"),
        (doubled_list(45), "more than 1000000 values"),
        (b"\x80\x04]\x94h\x00a.", "nested more than 50 levels"),
        (b"\x80\x04]" + b"]" * 5000 + b"a" * 5000 + b".", "nested more than 50 levels"),
        (b"\x80\x04\x8b\xff\xff\xff\x7f.", ""),  # LONG4 of 2 GB
        (b"\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\x7f.", ""),  # BINUNICODE8
        (b"I" + b"9" * 5000 + b"\n.", ""),
        (b"\x80\x04\x8a\x40" + b"\x7f" * 64 + b".", "integers must have at most 64 bits"),
        (b"\x80\x04(.", "no value at its end"),
        (b"\x80\x04.", "pickle of plain data"),
        (b"\x80\x04N", "pickle"),
        (b"\x80\x04N\x93.", "pickle"),
        (b"\x80\x04P1\n.", "pickle"),
        (b"\x80\x04NQ.", "persistent id"),
        (b"\x80\x04\x8c\x02os\x8c\x06system\x93.", "asks for os.system"),
    ],
)
def test_pickles_that_are_refused(content: bytes, words: str, tmp_path: Path):
    refused(doors.read_pickle, written(tmp_path, "case.pkl", content), words)


def test_a_place_in_the_memo_costs_nothing(tmp_path: Path):
    """``pickle.load`` makes a table of four billion places of it."""
    assert doors.read_pickle(written(tmp_path, "a.pkl", b"\x80\x04Nr\xff\xff\xff\xff.")) is None


def test_copies_that_grow_beyond_the_file_are_refused(tmp_path: Path):
    """A list of 100,000 items, copied 10,000 times by calls of ``list``."""
    items = b"]\x94(" + b"K\x01" * 100_000 + b"e"
    calls = b"0" + b"cbuiltins\nlist\nh\x00\x85R0" * 10_000
    path = written(tmp_path, "a.pkl", b"\x80\x04" + items + calls + b"N.")
    refused(doors.read_pickle, path, "copies")


def test_a_pickle_of_objects_has_none_of_them(tmp_path: Path):
    array = np.array([{"a": 1}], object)
    assert doors.read_pickle(written(tmp_path, "a.pkl", pickle.dumps([array]))) == [None]


# --- NIfTI ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("dtype", ["u1", "i2", "f4", "f8", "u2", "i8"])
def test_the_claims_of_nifti_headers_are_read(
    kind: Any, order: str, suffix: str, dtype: str, tmp_path: Path
):
    array = np.arange(24).reshape(2, 3, 4).astype(dtype)
    header = kind.header_class(endianness=order)
    header.set_data_dtype(array.dtype)
    path = tmp_path / f"a{suffix}"
    nib.save(kind(array, np.eye(4), header), path)
    found = doors.nifti_header(path)
    assert found.shape == (2, 3, 4)
    assert found.nbytes == array.nbytes
    with doors.open_nifti(path) as file:
        image = kind.from_stream(file.stream)
        np.testing.assert_array_equal(np.asarray(image.dataobj), array)


def claiming(extents: tuple[int, ...], **fields: Any) -> bytes:
    header = nib.Nifti1Header()
    header["dim"] = [len(extents), *extents, *[1] * (7 - len(extents))]
    header["datatype"], header["bitpix"], header["vox_offset"] = 64, 64, 352
    header["magic"] = b"n+1"
    for name, value in fields.items():
        header[name] = value
    content: bytes = header.binaryblock + b"\0" * 4
    return content


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (claiming((32767, 32767, 32767)), "by its header, got 352 bytes"),
        (claiming((0, 3, 3)), "every extent must be at least 1"),
        (claiming((3, -1, 3)), "every extent must be at least 1"),
        (claiming((3, 3), dim=[9, *[1] * 7]), "number of axes must be from 1 to 7, got 9"),
        (claiming((3, 3), datatype=77), "datatype must be one of NIfTI's, got 77"),
        (claiming((3, 3), vox_offset=np.inf), "must begin within the first 16.0 MiB, got inf"),
        (claiming((3, 3), vox_offset=3e9), "must begin within"),
        (claiming((3, 3), vox_offset=np.nan), "must begin within"),
        (claiming((3, 3))[:300], "no NIfTI header"),
        (b"\x5c\x01", "no NIfTI header"),
    ],
)
def test_nifti_headers_that_are_refused(content: bytes, words: str, tmp_path: Path):
    refused(doors.nifti_header, written(tmp_path, "a.nii", content), words)
    packed = words if "by its header" not in words else "the voxels must be at most 1032 times"
    refused(doors.nifti_header, written(tmp_path, "a.nii.gz", gzip.compress(content)), packed)


def test_the_size_that_is_expected_of_an_image_bounds_it(tmp_path: Path):
    path = written(
        tmp_path, "a.nii.gz", gzip.compress(claiming((300, 300, 300)) + os.urandom(300_000))
    )
    read = lambda p: doors.nifti_header(p, most_bytes=10**8)  # noqa: E731
    refused(read, path, "the voxels must take at most 95.4 MiB, got 206.0 MiB")


def test_a_gzip_stream_is_read_to_its_checksum_and_no_further_than_twice_its_voxels(
    tmp_path: Path,
):
    def drained(path: Path) -> None:
        with doors.open_nifti(path) as file:
            assert file.header.shape == (3, 4, 5)

    content = gzip.compress(fuzzing.nifti(fuzzing.IMAGE))
    drained(written(tmp_path, "a.nii.gz", content))
    refused(drained, written(tmp_path, "b.nii.gz", content[:-9]), "NIfTI")
    flipped = content[:-8] + bytes([content[-8] ^ 1]) + content[-7:]
    refused(drained, written(tmp_path, "c.nii.gz", flipped), "CRC")
    bomb = gzip.compress(fuzzing.nifti(fuzzing.IMAGE) + bytes(5 << 20))
    refused(drained, written(tmp_path, "d.nii.gz", bomb), "goes on behind")
    short = gzip.compress(fuzzing.nifti(fuzzing.IMAGE)[:-10])
    refused(drained, written(tmp_path, "e.nii.gz", short), "ends before its last voxel")


# --- safetensors and checkpoints ------------------------------------------------------------------


def test_safetensors_come_back_with_their_metadata(tmp_path: Path):
    tensors = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(3, dtype=torch.bfloat16)}
    save_file(tensors, tmp_path / "a.safetensors", metadata={"fastcal": "{}"})
    found = doors.read_safetensors(tmp_path / "a.safetensors")
    assert found.metadata == {"fastcal": "{}"}
    assert all(torch.equal(found.tensors[name], tensors[name]) for name in tensors)
    assert doors.state_digest(found.tensors) == doors.state_digest(tensors)


def test_a_flipped_bit_changes_the_digest_of_a_state():
    state = {"a": torch.zeros(3), "b": torch.zeros(2, 2)}
    other = {"a": torch.zeros(3), "b": torch.tensor([[0.0, 0.0], [0.0, -0.0]])}
    assert doors.state_digest(state) != doors.state_digest(other)
    assert doors.state_digest(state) == doors.state_digest(dict(reversed(state.items())))
    assert doors.state_digest(state) != doors.state_digest({**state, "b": torch.zeros(4)})


def safetensors_header(header: Any, content: bytes = b"") -> bytes:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw)) + raw + content


def entry(begin: int, end: int, shape: Any = (1,), dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (struct.pack("<Q", 2**63) + b"{}", "header must have at most 2 bytes, got"),
        (safetensors_header(b"[" * 200_000), "nested more than 100 levels"),
        (safetensors_header({"a": entry(0, 4, (10**12,))}, b"1234"), "the bytes of a must be"),
        (safetensors_header({"a": entry(0, 4), "b": entry(0, 4)}, b"1234"), "the bytes of b must"),
        (safetensors_header({"a": entry(4, 8)}, b"12345678"), "the bytes of a must be from 0"),
        (safetensors_header({"a": entry(0, 4)}, b"12345678"), "must take 4 bytes by its header"),
        (safetensors_header({"a": entry(0, 4, dtype="F4")}, b"1234"), "must be a plain number"),
        (safetensors_header({"a": [1]}), "a must be a valid dictionary"),
        (safetensors_header({"a": entry(0, 4, (-1,))}, b"1234"), "a.shape.0 must be"),
        (safetensors_header({"__metadata__": {"a": 3}}), "a must be a valid string, got 3"),
        (safetensors_header([1]), "the header must be a JSON object"),
        (b"\0\0", "too short"),
    ],
)
def test_safetensors_that_are_refused(content: bytes, words: str, tmp_path: Path):
    refused(doors.read_safetensors, written(tmp_path, "best.safetensors", content), words)


def test_a_checkpoint_of_a_training_comes_back(tmp_path: Path):
    state = fuzzing.training_state()
    torch.save(state, tmp_path / "last.pt")
    found = doors.read_checkpoint(tmp_path / "last.pt", dict[str, Any])
    assert found["course"] == state["course"]
    assert found["model"].keys() == state["model"].keys()
    assert found["model"]._metadata == state["model"]._metadata
    for name, tensor in state["model"].items():
        assert torch.equal(found["model"][name], tensor)
    assert found["optimiser"]["param_groups"] == state["optimiser"]["param_groups"]


@pytest.mark.parametrize("place", [0.2, 0.4, 0.6, 0.8])
def test_a_flipped_bit_in_a_checkpoint_is_found(place: float, tmp_path: Path):
    content = bytearray(fuzzing.checkpoint({"w": torch.zeros(100_000)}))
    content[int(place * len(content))] ^= 1
    refused(doors.read_checkpoint, written(tmp_path, "last.pt", bytes(content)), "CRC")


def test_every_cut_of_a_checkpoint_names_the_file(tmp_path: Path):
    content = fuzzing.checkpoint(fuzzing.training_state())
    for length in range(0, len(content), 97):
        refused(doors.read_checkpoint, written(tmp_path, "last.pt", content[:length]))


STORAGE = (
    b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpu%stQ"
)
TENSOR = b"ctorch._utils\n_rebuild_tensor_v2\n(%sK\x00%s%s\x89ccollections\nOrderedDict\n)RtR."


def tensor(numel: bytes, shape: bytes, stride: bytes) -> bytes:
    return b"\x80\x02" + TENSOR % (STORAGE % numel, shape, stride)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (pickle.dumps(Runs(), 2), "asks for posix.system, which is not allowed"),
        (b"\x80\x02ctorch.hub\nload\n)R.", "asks for torch.hub.load"),
        (doubled_key(45), "keys must be"),
        (doubled_list(45), "more than 1000000 values"),
        (tensor(b"J\xff\xff\xff\x7f", b"K\x01\x85", b"K\x01\x85"), "must have 8589934588 bytes"),
        (tensor(b"K\x12", b"K\x63\x85", b"K\x01\x85"), "shape (99,) out of 18 numbers"),
        (tensor(b"K\x12", b"J\xff\xff\xff\x7f\x85", b"K\x00\x85"), "out of 18 numbers"),
    ],
)
def test_checkpoints_that_are_refused(content: bytes, words: str, tmp_path: Path):
    path = written(tmp_path, "last.pt", fuzzing.pickled_member(content))
    refused(doors.read_checkpoint, path, words)


def test_a_checkpoint_of_the_old_format_or_a_script_is_refused(tmp_path: Path):
    torch.save({"a": 1}, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    refused(doors.read_checkpoint, tmp_path / "old.pt")


# --- state files ----------------------------------------------------------------------------------


def saved_state(folder: Path, **changes: Any) -> Path:
    np.savez_compressed(folder / "state.npz", **{**fuzzing.state(), **changes})
    return folder / "state.npz"


def read_state(path: Path) -> doors.StateFile:
    return doors.read_state(path, format="f", version=1)


def test_a_state_file_comes_back(tmp_path: Path):
    found = read_state(saved_state(tmp_path))
    assert found.settings == {"a": [1, 2]}
    assert found.case_ids == ["a", "b"]
    np.testing.assert_array_equal(found.total, fuzzing.state()["total"])
    np.testing.assert_array_equal(found.case_rows, fuzzing.state()["case_rows"])


def header(**changes: Any) -> Any:
    return np.array(json.dumps({"format": "f", "version": 1, "settings": {}, **changes}))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"header": header(format="g")}, "not a file of f"),
        ({"header": header(version=2)}, "the version must be 1, got 2"),
        ({"header": header(version=True)}, "version must be a valid integer, got True"),
        ({"header": header(more=1)}, "more is not known"),
        ({"header": np.array("[" * 10_000)}, "its header is not JSON"),
        ({"header": np.zeros(3)}, "dtype must be of the kind U"),
        ({"total": np.zeros((2, 3))}, "dtype must be of the kind i"),
        ({"total": np.zeros((2, 3), np.int32)}, "total must be int64, got int32"),
        ({"case_rows": np.zeros((2, 3), np.int64)}, "case_rows must have the shape (2, 2, 3)"),
        ({"case_ids": np.array(["a", "a"])}, "a case stands twice"),
        ({"case_ids": np.array(["a"])}, "case_rows must have the shape (1, 2, 3)"),
    ],
)
def test_state_files_that_are_refused(changes: dict[str, Any], words: str, tmp_path: Path):
    refused(read_state, saved_state(tmp_path, **changes), words)


# --- digests --------------------------------------------------------------------------------------


def test_a_digest_sees_both_ends_the_size_and_the_time(tmp_path: Path):
    content = bytes(5 << 20)
    path = written(tmp_path, "a.npz", content)
    first = doors.digest(path)
    assert doors.Digest(**first.to_json()) == first
    for changed in (b"x" + content[1:], content[:-1] + b"x", content + b"\0", content[:-1]):
        assert not doors.digest(written(tmp_path, "a.npz", changed)).same_content(first)
    copy = doors.digest(written(tmp_path, "b.npz", content))
    assert copy.same_content(first)
    os.utime(path, ns=(1, 1))
    assert doors.digest(path).mtime_ns == 1


@pytest.mark.parametrize("length", [0, 1, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, 2 << 20, 3 << 20])
def test_a_digest_reads_small_files_whole(length: int, tmp_path: Path):
    import hashlib

    content = np.random.default_rng(0).bytes(length)
    found = doors.digest(written(tmp_path, "a", content))
    ends = content if length <= 2 << 20 else content[: 1 << 20] + content[-(1 << 20) :]
    assert found.sha256 == hashlib.sha256(ends).hexdigest()
