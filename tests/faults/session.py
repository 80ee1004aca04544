"""The caller's side of a warm process, and the list of kinds that are known to fail."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import IO

from .kinds import Result, Verdict

KNOWN = Path(__file__).with_name("known.txt")
_ROOT = Path(__file__).parents[2]


class Session:
    """A warm process of one's own; a context manager.

    Args:
        folder: for the world and the working folders; what is there is used again.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        environment = os.environ | {
            "OMP_NUM_THREADS": "1",
            "PYTHONHASHSEED": "0",
            "PYTHONPATH": str(_ROOT),
            "PYTHONWARNINGS": "ignore::DeprecationWarning,ignore::FutureWarning",
        }
        environment.pop("FASTCAL_DEBUG", None)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.zygote", str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=_ROOT,
            env=environment,
        )

    def judge(self, name: str) -> Result:
        """Do one kind.

        Raises:
            RuntimeError: the harness itself failed.
        """
        asked, answers = self._pipes()
        print(name, file=asked, flush=True)
        line = answers.readline()
        if not line:
            raise RuntimeError(f"the warm process ended at {name}")
        answer = json.loads(line)
        if "error" in answer:
            raise RuntimeError(f"{name}: {answer['error']}")
        return Result(
            answer["kind"], Verdict(answer["verdict"]), answer["message"], answer["seconds"]
        )

    def close(self) -> None:
        """End the process."""
        asked, answers = self._pipes()
        asked.close()
        self._process.wait()
        answers.close()

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _pipes(self) -> tuple[IO[str], IO[str]]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        return self._process.stdin, self._process.stdout


def known_failures() -> dict[str, Verdict]:
    """Kinds that are known to fail, by name, from ``known.txt``."""
    found = {}
    for line in KNOWN.read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            verdict, _, name = line.partition(": ")
            found[name] = Verdict(verdict)
    return found


def write_known(results: list[Result]) -> None:
    """Write the failures among results as the list of known ones."""
    failures = [one for one in results if one.verdict is not Verdict.PASS]
    lines = [f"{one.verdict}: {one.kind}" for one in sorted(failures, key=lambda r: r.kind)]
    head = (
        "# Kinds of bad input that fail today, as `VERDICT: kind`; see tests/faults/kinds.py.\n"
        "# A mend removes its line. `python -m tests.faults --write-known` writes the file anew.\n"
    )
    KNOWN.write_text(head + "".join(f"{line}\n" for line in lines), encoding="utf-8")
