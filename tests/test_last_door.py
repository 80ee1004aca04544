"""What nobody expected ends in one line, a file with the traceback and the exit code 3."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from fastcal.cli.last_door import INTERRUPTED, PIPE_CLOSED, UNEXPECTED, guarded


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FASTCAL_DEBUG", raising=False)
    return tmp_path


def raising(error: BaseException):
    def main() -> int:
        raise error

    return guarded(main)


@pytest.mark.parametrize(("returned", "code"), [(None, 0), (0, 0), (2, 2), (1, 1)])
def test_the_code_of_the_command_passes(returned: int | None, code: int, folder: Path):
    assert guarded(lambda: returned)() == code
    assert list(folder.iterdir()) == []


def test_arguments_pass_the_door():
    assert guarded(lambda first, *, second: first + second)(1, second=2) == 3


def test_a_bug_is_one_line_and_a_file(folder: Path, capsys: pytest.CaptureFixture[str]):
    assert raising(ZeroDivisionError("a\n\x1b[31mb"))() == UNEXPECTED == 3
    (line,) = capsys.readouterr().err.splitlines()
    (file,) = folder.iterdir()
    assert line == (
        "fastcal: this is a bug; please report it (ZeroDivisionError: a ?[31mb); "
        f"the traceback is in {file.name}"
    )
    text = file.read_text()
    assert "Traceback (most recent call last)" in text
    assert "ZeroDivisionError" in text
    assert "fastcal   " in text
    assert "paths of your files" in text


def test_no_file_of_the_users_is_overwritten(folder: Path):
    for _ in range(3):
        raising(KeyError("x"))()
    assert len(list(folder.iterdir())) == 3


def test_where_the_folder_takes_no_file_the_temporary_folder_does(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    gone = folder / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(folder))
    assert raising(RuntimeError("x"))() == UNEXPECTED
    (file,) = folder.iterdir()
    assert f"the traceback is in {file}" in capsys.readouterr().err


def test_where_no_file_can_be_written_the_line_says_how_to_see_more(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    gone = folder / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(gone))
    assert raising(RuntimeError("x"))() == UNEXPECTED
    assert "FASTCAL_DEBUG=1 shows where" in capsys.readouterr().err


def test_errors_that_cannot_be_told_are_told(capsys: pytest.CaptureFixture[str]):
    class Mute(Exception):
        def __str__(self) -> str:
            raise ValueError

    assert raising(Mute())() == UNEXPECTED
    assert "(Mute)" in capsys.readouterr().err

    def deep() -> int:
        return deep()

    assert guarded(deep)() == UNEXPECTED


def test_no_memory_is_no_bug(capsys: pytest.CaptureFixture[str]):
    assert raising(MemoryError("7.3 TiB"))() == UNEXPECTED
    assert "fastcal: out of memory (MemoryError: 7.3 TiB); " in capsys.readouterr().err


def test_an_interrupt_is_one_line(folder: Path, capsys: pytest.CaptureFixture[str]):
    assert raising(KeyboardInterrupt())() == INTERRUPTED == 130
    assert capsys.readouterr().err == "fastcal: interrupted\n"
    assert list(folder.iterdir()) == []


def test_an_exit_passes():
    with pytest.raises(SystemExit):
        raising(SystemExit(4))()


def test_debugging_shows_the_exception(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("FASTCAL_DEBUG", "1")
    with pytest.raises(KeyError):
        raising(KeyError("x"))()


PRINTS = """
import sys
from fastcal.cli.last_door import guarded

def main():
    for number in range(100_000):
        print(number)

sys.exit(guarded(main)())
"""


def test_a_reader_that_has_enough_is_not_told_of(folder: Path):
    process = subprocess.Popen(
        [sys.executable, "-c", PRINTS], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "0\n"
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == ""
    process.stderr.close()
    assert process.wait() == PIPE_CLOSED
    assert list(folder.iterdir()) == []


def test_a_broken_pipe_that_is_not_the_output_is_a_bug(capfd: pytest.CaptureFixture[str]):
    assert raising(BrokenPipeError(32, "Broken pipe"))() == UNEXPECTED
    assert "this is a bug" in capfd.readouterr().err


def test_a_closed_stderr_changes_nothing(monkeypatch: pytest.MonkeyPatch, folder: Path):
    with (folder / "err").open("w") as stream:
        pass
    monkeypatch.setattr(sys, "stderr", stream)
    assert raising(RuntimeError("x"))() == UNEXPECTED
