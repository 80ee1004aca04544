"""Every gate gives a value or one `DataError` with the path, in bounded time and memory."""

from __future__ import annotations

import gzip
import json
import os
import pickle
import socket
import struct
import zipfile
from pathlib import Path
from typing import Any

import fuzzing
import nibabel as nib
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel
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


# --- opening --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", fuzzing.READERS)
def test_no_reader_waits_for_a_fifo_or_takes_a_folder_or_a_socket(name: str, tmp_path: Path):
    reader = fuzzing.READERS[name]
    fifo, folder, bound = (tmp_path / f"{kind}{reader.suffix}" for kind in ("p", "f", "s"))
    os.mkfifo(fifo)
    folder.mkdir()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(bound))
        refused(reader.read, fifo, "must be a regular file, got a named pipe")
        refused(reader.read, folder, "must be a regular file, got a folder")
        refused(reader.read, bound, "must be a regular file, got a socket")
    refused(reader.read, Path("/dev/zero"), "character device")


@pytest.mark.parametrize("name", fuzzing.READERS)
def test_a_missing_file_has_an_error_of_its_own(name: str, tmp_path: Path):
    reader = fuzzing.READERS[name]
    with pytest.raises(doors.MissingFileError, match="no such file"):
        reader.read(tmp_path / f"x{reader.suffix}")


@pytest.mark.parametrize("name", fuzzing.READERS)
@pytest.mark.parametrize("content", [b"", b"\0", b"\0" * 1000, b"[" * 100_000, b"\xff" * 700])
def test_rubbish_is_an_error_that_names_the_file(name: str, content: bytes, tmp_path: Path):
    reader = fuzzing.READERS[name]
    path = written(tmp_path, f"x{reader.suffix}", content)
    assert fuzzing.outcome(reader, path, content) in ("error", "value")
    if name not in ("yaml", "json_lines"):  # nothing is a document of null, and no line
        refused(reader.read, path)


def test_a_file_beyond_its_bound_is_not_read(tmp_path: Path):
    path = tmp_path / "large.json"
    with path.open("wb") as stream:
        stream.truncate(1 << 40)
    refused(doors.read_json, path, "must have at most 64.0 MiB, got 1.0 TiB")


def test_files_of_proc_which_say_that_they_are_empty_are_bounded_too():
    assert doors.read_bytes("/proc/self/status", most_bytes=1 << 20)
    with pytest.raises(DataError, match="at most 4 bytes"):
        doors.read_bytes("/proc/self/status", most_bytes=4)


def test_names_that_no_file_can_have_are_errors_of_the_path():
    for name in ("a\0b.json", "x" * 5000):
        with pytest.raises(DataError):
            doors.read_json(name)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_file_that_may_not_be_read_says_so(tmp_path: Path):
    path = written(tmp_path, "a.json", "{}")
    path.chmod(0)
    refused(doors.read_json, path, "Permission denied")


# --- any error becomes one line -------------------------------------------------------------------


@pytest.mark.parametrize(
    "error",
    [
        *(RecursionError("deep"), MemoryError(), OverflowError("x"), KeyError("label")),
        *(NotImplementedError("method 99"), struct.error("short"), zipfile.BadZipFile("bad\nzip")),
        *(RuntimeError("DefaultCPUAllocator: can't allocate memory"), ValueError("\x1b[31mred")),
        *(OSError(28, "No space left on device"), StopIteration(), IndexError(), EOFError()),
    ],
    ids=lambda error: type(error).__name__,
)
def test_whatever_a_parser_raises_is_one_printable_line(error: Exception):
    with pytest.raises(DataError) as caught, doors.one_error("a.x", "an x"):
        raise error
    assert str(caught.value).startswith("a.x: ")
    assert str(caught.value).isprintable()


def test_an_interrupt_passes_the_doors():
    with pytest.raises(KeyboardInterrupt), doors.one_error("a.x", "an x"):
        raise KeyboardInterrupt


def test_a_bounded_number_names_the_argument():
    assert doors.bounded(np.int64(3), "n", 3) == 3
    with pytest.raises(ValueError, match="--num-classes must be from 1 to 65535, got 1000000000"):
        doors.bounded(10**9, "--num-classes", 65535)
    with pytest.raises(ValueError, match="more than 30 digits"):
        doors.bounded(10**5000, "n", 3)
    with pytest.raises(TypeError, match="n must be an integer, got True"):
        doors.bounded(True, "n", 3)


# --- JSON -----------------------------------------------------------------------------------------

plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs", "Cc"])),
    lambda inner: st.lists(inner) | st.dictionaries(st.text('abc\\"[]{}', max_size=5), inner),
    max_leaves=20,
)


@given(plain)
def test_json_gives_back_what_was_written(value: Any):
    assert doors.parse_json(json.dumps(value)) == value
    assert doors.parse_json(json.dumps(value, ensure_ascii=False, indent=1)) == value


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[" * 200_000, "nested more than 100 levels"),
        ('{"a":' * 200_000, "nested more than 100 levels"),
        ('"' + '\\"' * 500_000 + "[" * 200, "Unterminated string"),
        ('{"a": 1e400}', "numbers must be finite"),
        ('{"a": Infinity}', "numbers must be finite, got Infinity"),
        ('{"a": NaN}', "numbers must be finite, got NaN"),
        ('{"a": 1' + "0" * 400 + "}", "at most 64 bits, got one of 401 digits"),
        ('{"a": ' + "9" * 5000 + "}", "at most 64 bits"),
        ('{"labels": 1, "labels": 2}', "'labels' stands twice"),
        ('"\\ud800"', "surrogate"),
        ("{} {}", "Extra data, line 1 column 4"),
        (b"\xff\xfe{}", "not UTF-8 text (byte 0)"),
    ],
)
def test_json_that_is_refused(text: Any, words: str, tmp_path: Path):
    refused(doors.read_json, written(tmp_path, "dataset.json", text), words)


def test_json_with_deep_brackets_inside_text_and_long_digits_inside_text_is_read(tmp_path: Path):
    value = {"a": "[{" * 1000, "b": "9" * 100, "c": 2**63, "d": [1e300]}
    assert doors.read_json(written(tmp_path, "a.json", json.dumps(value))) == value
    assert doors.read_json(written(tmp_path, "b.json", b"\xef\xbb\xbf{}")) == {}


def test_what_python_writes_for_nan_is_read_where_that_is_asked_for():
    value = doors.parse_json('{"a": NaN, "b": -Infinity, "c": 1e999}', finite=False)
    assert json.dumps(value) == '{"a": NaN, "b": -Infinity, "c": Infinity}'


class Split(BaseModel):
    """Names of cases."""

    train: list[str]
    val: list[str]


def read_split(path: Path) -> Any:
    return doors.read_json(path, Split)


def test_json_is_checked_against_a_model(tmp_path: Path):
    path = written(tmp_path, "splits.json", '{"train": ["a"], "val": []}')
    assert doors.read_json(path, Split) == Split(train=["a"], val=[])
    refused(lambda p: doors.read_json(p, dict[str, list[int]]), path, "train.0 must be a valid int")
    path = written(tmp_path, "splits.json", '{"train": null}')
    refused(read_split, path, "train must be", "got None", "val is missing")
    path = written(tmp_path, "splits.json", "3")
    refused(read_split, path, "the content must be", "got 3")


def test_json_lines_leave_out_the_line_still_being_written(tmp_path: Path):
    path = written(tmp_path, "log.jsonl", '{"epoch": 1}\n{"epoch": 2}\n{"ep')
    assert doors.read_json_lines(path, dict[str, int]) == [{"epoch": 1}, {"epoch": 2}]
    refused(doors.read_json_lines, written(tmp_path, "log.jsonl", "{}\nx\n"), "line 2: not JSON")
    path = written(tmp_path, "log.jsonl", '{"epoch": 1}\n{"epoch": "a"}\n')
    refused(lambda p: doors.read_json_lines(p, dict[str, int]), path, "line 2: epoch must be")


# --- YAML -----------------------------------------------------------------------------------------

LAUGHS = "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]\n" for i in range(1, 60))
MERGES = "a0: &a0 {x: 1}\n" + "".join(
    f"a{i}: &a{i}\n  <<: [*a{i - 1}, *a{i - 1}]\n  k{i}: 1\n" for i in range(1, 60)
)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (LAUGHS, "more than 20000 values"),
        (MERGES, "more than 20000 values"),
        ("a: &a [*a]", "alias 'a'"),
        ("&a a: {b: *a, <<: *b}", "alias 'b'"),
        ("[" * 5000, "nested more than 50 levels"),
        ("{a: " * 5000, "nested more than 50 levels"),
        ("- " * 5000, "nested more than 50 levels"),
        ("a: " + "9" * 5000, "integers must have at most 64 bits, line 1"),
        ("a: .inf", "numbers must be finite"),
        ("a: !!python/object/apply:os.system [x]", "could not determine a constructor"),
        ("a: !!binary aGk=", "could not determine a constructor"),
        ("a: !!set {x}", "could not determine a constructor"),
        ("1: a", "names must be text, got 1, line 1 column 1"),
        ("yes: a", "names must be text, got True"),
        ("? [a, b]\n: c", "names must be text, got a list or map"),
        ("a: 1\na: 2", "'a' stands twice, line 2"),
        ("a: [", "line 1"),
        ("a: !!int ''", "not YAML"),
        ("a: !!bool x", "not YAML"),
        ("a: !!float x", "not YAML"),
        ("a: !!int 0b" + "1" * 69, "integers must have at most 64 bits"),
        ("a\0b", "not YAML"),
        ("--- a\n--- b", "not YAML"),
    ],
)
def test_yaml_that_is_refused(text: str, words: str, tmp_path: Path):
    refused(doors.read_yaml, written(tmp_path, "config.yaml", text), words)


def test_yaml_gives_the_values_of_json_alone():
    text = "a: 1:30\nb: 2001-13-41\nc: !!int 1:30\nd: 0x10\ne: 1.5e+3\nf: [yes, ~, 010]\ng: " + (
        "1:" * 500 + "1"
    )
    values = doors.parse_yaml(text)
    assert values == {
        **{"a": "1:30", "b": "2001-13-41", "c": "1:30", "d": 16, "e": 1500.0},
        **{"f": [True, None, 8], "g": "1:" * 500 + "1"},
    }


@given(st.text(max_size=200) | st.text("&*<:[]{}-!?'\"a1 \n", max_size=60))
def test_yaml_text_of_an_option_is_a_value_or_a_value_error(text: str):
    try:
        json.dumps(doors.parse_yaml(text), allow_nan=False)
    except ValueError as error:
        assert "\n" not in str(error)  # noqa: PT017 - both outcomes are right


def test_yaml_anchors_and_merges_work():
    text = "base: &base {x: 1, y: 2}\nown:\n  <<: *base\n  y: 3\nlist: [*base]"
    assert doors.parse_yaml(text) == {
        "base": {"x": 1, "y": 2},
        "own": {"x": 1, "y": 3},
        "list": [{"x": 1, "y": 2}],
    }


@given(plain)
def test_yaml_gives_back_what_was_written(value: Any):
    import yaml

    text = yaml.safe_dump(value, allow_unicode=True)
    assert doors.parse_yaml(text) == value


# --- npy and npz ----------------------------------------------------------------------------------


def npy_header(text: str, content: bytes = b"") -> bytes:
    raw = text.encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(raw)) + raw + content


@pytest.mark.parametrize("dtype", ["<f2", "<f4", ">f8", "<i2", "|u1", "|b1", "<u8"])
@pytest.mark.parametrize("shape", [(), (3,), (2, 3, 4), (0, 5), (1,)])
@pytest.mark.parametrize("order", ["C", "F"])
def test_arrays_come_back_bit_for_bit(dtype: str, shape: Any, order: Any, tmp_path: Path):
    array = np.asarray(np.arange(int(np.prod(shape))).reshape(shape), dtype, order=order)
    np.save(tmp_path / "a.npy", array)
    np.savez(tmp_path / "stored.npz", a=array)
    np.savez_compressed(tmp_path / "deflated.npz", a=array)
    found = [doors.read_npy(tmp_path / "a.npy")]
    for name in ("stored", "deflated"):
        with doors.open_npz(tmp_path / f"{name}.npz") as arrays:
            assert arrays.names == {"a"}
            found += [arrays.array("a"), arrays.array("a", mapped=True)]
    for one in found:
        assert one.dtype == array.dtype
        np.testing.assert_array_equal(one, array)


def test_a_mapped_array_outlives_its_file_and_takes_writes(tmp_path: Path):
    np.savez(tmp_path / "a.npz", a=np.arange(5))
    with doors.open_npz(tmp_path / "a.npz") as arrays:
        mapped = arrays.array("a", mapped=True)
    mapped[0] = 7
    assert mapped.tolist() == [7, 1, 2, 3, 4]
    assert doors.read_npz(tmp_path / "a.npz", ["a"])["a"].tolist() == [0, 1, 2, 3, 4]


TERA = "{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000,), }"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (npy_header(TERA, b"\0" * 64), "must take 3.6 TiB by its header, got 64 bytes"),
        (npy_header("(" * 9000), "an array header that says"),
        (npy_header("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1,), }"), "says"),
        (npy_header("{'descr': '|O', 'fortran_order': False, 'shape': (1,), }"), "dtype must be"),
        (npy_header("{'descr': '<U99999999', 'fortran_order': False, 'shape': (1,), }"), "dtype"),
        (npy_header("{'shape': (1,), 'shape': (2,), 'shape': (3,)}"), "without dtype"),
        (npy_header("{'descr': '<f4', 'fortran_order': False, 'shape': (4 4 4 4), }"), "says"),
        (npy_header("{'descr': '<f4', 'fortran_order': False, 'shape': (-1,), }"), "says"),
        (b"\x93NUMPY\x02\x00\xff\xff\xff\xff", "at most 10000 bytes"),
        (b"\x93NUMPY\x09\x00", "version must be 1, 2 or 3, got 9"),
        (fuzzing.npz(fuzzing.IMAGE), "not an array in NumPy's format"),
        (fuzzing.npy(np.array([{}], object)), "dtype must be"),
        (fuzzing.npy(fuzzing.IMAGE) + b"\0", "must take"),
    ],
)
def test_npy_files_that_are_refused(content: bytes, words: str, tmp_path: Path):
    refused(doors.read_npy, written(tmp_path, "a.npy", content), words)
    archive = written(tmp_path, "a.npz", fuzzing.zipped(ZIP, **{"a.npy": content}))
    refused(lambda path: doors.read_npz(path, ["a"]), archive)


def test_an_npy_header_of_another_writer_is_read(tmp_path: Path):
    text = "{\"shape\": (2L, 1), \"fortran_order\": True,'descr':'<i4'}\n"
    path = written(tmp_path, "a.npy", npy_header(text, struct.pack("<2i", 5, 6)))
    assert doors.read_npy(path).tolist() == [[5], [6]]


@pytest.mark.parametrize("method", [zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
def test_compression_that_numpy_does_not_write_is_refused(method: int, tmp_path: Path):
    content = fuzzing.zipped(method, **{"a.npy": fuzzing.npy(fuzzing.IMAGE)})
    path = written(tmp_path, "a.npz", content)
    refused(lambda p: doors.read_npz(p, ["a"]), path, "must be stored or deflated")


def test_a_deflated_member_within_its_ratio_is_bounded_by_what_is_expected(tmp_path: Path):
    np.savez_compressed(tmp_path / "a.npz", a=np.zeros(10_000_000))
    read = lambda path: doors.read_npz(path, ["a"], most_bytes=1000)  # noqa: E731
    refused(read, tmp_path / "a.npz", "a must take at most 1000 bytes, got 76.3 MiB")


def patched(content: bytes, mark: bytes, offset: int, value: bytes) -> bytes:
    place = content.rindex(mark) + offset
    return content[:place] + value + content[place + len(value) :]


@pytest.mark.parametrize(
    ("mark", "offset", "value", "words"),
    [
        (b"PK\1\2", 10, struct.pack("<H", 99), "method 99"),  # compression method
        (b"PK\1\2", 6, struct.pack("<H", 99), "zip file version 9.9"),
        (b"PK\1\2", 24, struct.pack("<I", 2**31), "at most 1032 times"),  # uncompressed size
        (b"PK\1\2", 20, struct.pack("<I", 2**31), "beyond the archive's end"),  # compressed size
        (b"PK\1\2", 12, b"\1", "not what the archive's directory says"),  # time
        (b"PK\1\2", 16, b"\1\2", "not what the archive's directory says"),  # checksum
        (b"PK\1\2", 8, b"\1", "is encrypted"),
        (b"PK\5\6", 12, struct.pack("<I", 2**31), "directory must have at most 16.0 MiB"),
        (b"PK\5\6", 16, struct.pack("<I", 2**31), ""),
    ],
)
def test_archives_whose_directory_lies_are_refused(
    mark: bytes, offset: int, value: bytes, words: str, tmp_path: Path
):
    content = fuzzing.zipped(ZIP, **{"a.npy": fuzzing.npy(fuzzing.IMAGE)})
    if value[:1] == b"\1" and offset == 16:
        value = bytes([content[content.rindex(mark) + 16] ^ 1])
    path = written(tmp_path, "a.npz", patched(content, mark, offset, value))
    refused(lambda p: doors.read_npz(p, ["a"]), path, words)


def test_a_name_that_stands_twice_in_an_archive_is_refused(tmp_path: Path):
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("a.npy", fuzzing.npy(fuzzing.IMAGE))
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("a.npy", fuzzing.npy(fuzzing.IMAGE + 1))
    refused(lambda p: doors.read_npz(p, ["a"]), tmp_path / "a.npz", "'a.npy' stands twice")


@pytest.mark.parametrize("deflated", [True, False])
def test_a_flipped_bit_in_the_numbers_is_found(deflated: bool, tmp_path: Path):
    content = bytearray(fuzzing.npz(fuzzing.IMAGE, deflated=deflated))
    content[content.index(b"PK\1\2") - 20] ^= 4
    path = written(tmp_path, "a.npz", bytes(content))

    def mapped(path: Path) -> None:
        with doors.open_npz(path) as arrays:
            arrays.array("probabilities", mapped=True)

    refused(mapped, path)
    refused(lambda p: doors.read_npz(p, ["probabilities"]), path)


def test_an_array_that_is_missing_is_named(tmp_path: Path):
    np.savez(tmp_path / "a.npz", a=np.zeros(1))
    refused(lambda p: doors.read_npz(p, ["b"]), tmp_path / "a.npz", "'b.npy'")


def test_a_text_in_an_npz_is_read(tmp_path: Path):
    np.savez(tmp_path / "a.npz", activation=np.array("sigmoid"), many=np.array(["a", "b"]))
    with doors.open_npz(tmp_path / "a.npz") as arrays:
        assert arrays.text("activation") == "sigmoid"
        with pytest.raises(ValueError, match="many must be one text"):
            arrays.text("many")


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
