"""Programs in processes that begin with the large packages imported, and with nothing else done.

They are forked from one process that has imported them, which costs seconds once and not for every
program.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["torch", "fastcal", "monai.transforms", "torchmetrics", "fresh"])


@dataclass(frozen=True)
class Outcome:
    code: int | None
    output: str
    errors: str


def run_fresh(program: str, folder: Path) -> Outcome:
    """Run a program in `folder`, where a `UserWarning` is an error and a figure opens no window."""
    streams = folder / ".stdout", folder / ".stderr"
    process = _CONTEXT.Process(target=_run, args=(program, folder, streams))
    process.start()
    process.join(300)
    if process.exitcode is None:
        process.kill()
    return Outcome(process.exitcode, *(stream.read_text() for stream in streams))


def _run(program: str, folder: Path, streams: tuple[Path, Path]) -> None:
    for stream, number in zip(streams, (1, 2), strict=True):
        os.dup2(os.open(stream, os.O_WRONLY | os.O_CREAT), number)
    os.chdir(folder)
    os.environ["MPLBACKEND"] = "Agg"
    warnings.simplefilter("error", UserWarning)
    sys.argv = [""]
    exec(compile(program, "<program>", "exec"), {"__name__": "__main__"})
    sys.stdout.flush()
