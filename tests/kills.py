"""Command lines in children of a warm process, which are killed at a rename of their choice.

``python tests/kills.py`` answers lines of JSON on stdin, ``{"folder", "words", "at"}``, each by
one on stdout: the exit code, the number of renames, and what was said. ``at`` is the rename before
which the child is killed, from 0; None lets it end.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
_MOST_SECONDS = 300
"""Of a command."""


@dataclass(frozen=True)
class Ended:
    """How a child ended."""

    code: int
    renames: int
    said: str

    @property
    def killed(self) -> bool:
        return self.code == -signal.SIGKILL


class Killer:
    """The caller's side of the warm process; a context manager."""

    def __enter__(self) -> Killer:
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).resolve())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        )
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()

    def run(self, folder: Path, words: tuple[str, ...], at: int | None = None) -> Ended:
        """Run a command line in a folder."""
        asked, answers = self._process.stdin, self._process.stdout
        assert asked is not None
        assert answers is not None
        print(json.dumps({"folder": str(folder), "words": words, "at": at}), file=asked, flush=True)
        return Ended(**json.loads(answers.readline()))


def _child(folder: str, words: list[str], at: int | None, said: int, count: int) -> int:
    """In the child: the command, killed before the rename ``at``."""
    from fastcal.cli import main

    replace, renames = os.replace, 0

    def counted(source: Any, target: Any, **options: Any) -> None:
        nonlocal renames
        if renames == at:
            os.kill(os.getpid(), signal.SIGKILL)
        renames += 1
        os.pwrite(count, str(renames).encode(), 0)
        replace(source, target, **options)

    signal.alarm(_MOST_SECONDS)  # a command that hangs ends here, with its signal
    os.replace = counted  # type: ignore[assignment]
    os.dup2(said, 1)
    os.dup2(said, 2)
    os.chdir(folder)
    code = main(words)
    sys.stdout.flush()
    sys.stderr.flush()
    return code


def _answer(folder: str, words: list[str], at: int | None) -> dict[str, Any]:
    said, count = (os.memfd_create(name) for name in ("said", "count"))
    child = os.fork()
    if child == 0:
        code = 1
        try:
            code = _child(folder, words, at, said, count)
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    text = os.pread(said, 10_000, 0).decode(errors="replace")
    renames = int(os.pread(count, 20, 0) or b"0")
    os.close(said)
    os.close(count)
    return {"code": os.waitstatus_to_exitcode(status), "renames": renames, "said": text}


def serve() -> None:
    """Answer until stdin ends."""
    import torch

    import fastcal.convert
    import fastcal.evaluate
    import fastcal.ood
    import fastcal.predict
    import fastcal.quality
    import fastcal.recalibrate
    import fastcal.study.demo
    import fastcal.train  # noqa: F401
    from fastcal.cli import main  # noqa: F401

    torch.set_num_threads(1)
    for line in sys.stdin:
        print(json.dumps(_answer(**json.loads(line))), flush=True)


if __name__ == "__main__":
    serve()
