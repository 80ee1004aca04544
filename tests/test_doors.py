"""Every gate gives a value or one `DataError` with the path, in bounded time and memory."""

from __future__ import annotations

import json
import os
import socket
import struct
import zipfile
from pathlib import Path
from typing import Any

import fuzzing
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from fastcal.core import doors
from fastcal.core.errors import DataError

ZIP = zipfile.ZIP_DEFLATED


def written(folder: Path, name: str, content: bytes | str) -> Path:
    path = folder / name
    path.parent.mkdir(exist_ok=True)
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
    fifo, folder, bound, endless = (tmp_path / f"{kind}{reader.suffix}" for kind in "pfse")
    for path in (fifo, folder, bound, endless):
        path.parent.mkdir(exist_ok=True)
    os.mkfifo(fifo)
    folder.mkdir()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(bound))
        refused(reader.read, fifo, "must be a regular file, got a named pipe")
        refused(reader.read, folder, "must be a regular file, got a folder")
        refused(reader.read, bound, "must be a regular file, got a socket")
    endless.symlink_to("/dev/zero")  # which lacks the names that some readers take
    refused(reader.read, endless, "must be a regular file, got a character device")


@pytest.mark.parametrize("name", fuzzing.READERS)
def test_a_missing_file_has_an_error_of_its_own(name: str, tmp_path: Path):
    reader = fuzzing.READERS[name]
    missing = tmp_path / f"x{reader.suffix}"
    if name == "execution":  # a run that has not yet chosen a strategy has no such file
        assert reader.read(missing) is None
        return
    with pytest.raises(doors.MissingFileError, match="no such file"):
        reader.read(missing)


@pytest.mark.parametrize("name", fuzzing.READERS)
@pytest.mark.parametrize("content", [b"", b"\0", b"\0" * 1000, b"[" * 100_000, b"\xff" * 700])
def test_rubbish_is_an_error_that_names_the_file(name: str, content: bytes, tmp_path: Path):
    reader = fuzzing.READERS[name]
    path = written(tmp_path, f"x{reader.suffix}", content)
    assert fuzzing.outcome(reader, path, content) in ("error", "value")
    if name not in ("yaml", "json_lines", "log"):  # nothing is a document of null, and no line
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
