"""A warm process that forks a child for every kind: a hang or a crash ends only the child.

``python -m tests.faults.zygote FOLDER`` builds the world in FOLDER, then answers names of kinds,
one per line on stdin, each by one line of JSON on stdout.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import resource
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from . import world
from .judge import BAD_INPUT, Outcome, digests, verdict
from .kinds import Command, Expected, Kind
from .registry import all_kinds

TIME_LIMIT = 20.0
"""Seconds of computing. On a busy machine they are more on the clock."""
IDLE_LIMIT = 6.0
"""Seconds without any computing, as of one who waits at a pipe."""
SETUP_LIMIT = 120.0
MEMORY_LIMIT = 3 << 30
"""Of address space, beyond what the warm process has."""
_STDERR, _BEFORE, _WRONG, _READY = "stderr", "before.json", "wrong.json", "ready"


def warm() -> None:
    """Import what commands import lazily; start no thread."""
    import gc
    import gzip  # noqa: F401
    import lzma  # noqa: F401

    import matplotlib
    import monai.metrics
    import monai.transforms  # noqa: F401
    import nibabel  # noqa: F401
    import PIL.JpegImagePlugin  # noqa: F401
    import pydantic  # noqa: F401
    import safetensors.torch  # noqa: F401
    import scipy.ndimage  # noqa: F401
    import sklearn.linear_model  # noqa: F401
    import torch
    import torch._dynamo
    import torchmetrics  # noqa: F401
    import yaml  # noqa: F401

    import fastcal.backends.cpu
    import fastcal.convert
    import fastcal.evaluate
    import fastcal.monai
    import fastcal.ood
    import fastcal.predict
    import fastcal.quality
    import fastcal.recalibrate
    import fastcal.report.builder
    import fastcal.study.demo
    import fastcal.study.experiment
    import fastcal.torchmetrics
    import fastcal.train  # noqa: F401
    from fastcal.cli import main  # noqa: F401

    matplotlib.use("agg")
    torch.set_num_threads(1)
    _draw()
    gc.collect()
    gc.freeze()  # children then copy fewer pages


def _draw() -> None:
    """Draw once: fonts are then in memory."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots()
    axes.plot([0.0, 1.0], [1.0, 0.0], label="line")
    axes.legend()
    figure.savefig(io.BytesIO(), format="png")
    plt.close(figure)


class Zygote:
    """Runs kinds in children of this process.

    Args:
        folder: where the world is, and where working folders are made and removed.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.world = folder / "world"
        self._kinds = all_kinds()
        self._resident = _status("VmRSS")
        self._size = _status("VmSize")
        if not (self.world / "ready").exists():
            outcome = self._in_child(folder / "making", _world_maker(self.world), limited=False)
            if outcome.code != 0:
                raise RuntimeError(f"the world cannot be made: {outcome.stderr}")
            (self.world / "ready").touch()

    def judge(self, name: str) -> dict[str, object]:
        """Do a kind; its result as JSON has it."""
        kind = self._kinds[name]
        place = self.folder / f"work-{os.getpid()}"
        shutil.rmtree(place, ignore_errors=True)
        (place / "w").mkdir(parents=True)
        baseline = self._baseline(kind)
        outcome = self._in_child(place, lambda: self._do(kind, place))
        if not (place / _READY).exists():
            raise RuntimeError(f"the kind cannot be arranged: {outcome.stderr[-1000:]}")
        before = {}
        if (place / _BEFORE).exists():
            before = json.loads((place / _BEFORE).read_text())
        if (place / _WRONG).exists():
            wrong = json.loads((place / _WRONG).read_text())
            outcome = Outcome(
                outcome.code, outcome.stderr, outcome.seconds, outcome.taken, str(wrong)
            )
        result = verdict(kind, outcome, place / "w", before, baseline)
        shutil.rmtree(place, ignore_errors=True)
        return {
            "kind": result.kind,
            "verdict": str(result.verdict),
            "message": result.message.replace(str(place / "w"), "."),
            "seconds": round(result.seconds, 2),
        }

    def _baseline(self, kind: Kind) -> Path | None:
        """Results of the kind's command on undamaged input; made when first needed."""
        compared = kind.expected in (Expected.SAME, Expected.RIGHT, Expected.REFUSED, Expected.TOLD)
        if kind.command is None or kind.check is not None or kind.stale or not compared:
            return None
        place = self.folder / "baseline" / f"{abs(hash(kind.command.key)):x}"
        if not (place / "made").exists():
            shutil.rmtree(place, ignore_errors=True)
            (place / "w").mkdir(parents=True)
            command = kind.command
            outcome = self._in_child(place, lambda: self._plain(command, place), limited=False)
            if outcome.code != 0:
                raise RuntimeError(f"{command.key} fails undamaged: {outcome.stderr}")
            (place / "made").touch()
        return place / "w"

    def _plain(self, command: Command, place: Path) -> int:
        self._copy(command, place / "w")
        if command.arrange is not None:
            command.arrange(place / "w")
        return _command(place, command.argv)

    def _do(self, kind: Kind, place: Path) -> int:
        folder = place / "w"
        if kind.script is not None:
            (place / _READY).touch()
            os.chdir(folder)
            wrong = kind.script(folder)
            if wrong is not None:
                (place / _WRONG).write_text(json.dumps(wrong))
            return 0
        assert kind.command is not None
        self._copy(kind.command, folder)
        if kind.command.arrange is not None:
            kind.command.arrange(folder)
        for words, change in kind.steps:
            code = 0
            if words and kind.stops:
                _ready_to_judge(place)
            if words:
                code = _command(place, words)
            if code == BAD_INPUT and kind.stops:
                return code
            if code:
                (place / _READY).unlink(missing_ok=True)
                raise RuntimeError(f"step {' '.join(words)} failed")
            if change is not None:
                change(folder)
        if kind.damage is not None:
            kind.damage(folder)
        _ready_to_judge(place)
        return _command(place, kind.command.argv)

    def _copy(self, command: Command, folder: Path) -> None:
        for name in command.needs:
            source = self.world / name
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            if source.is_dir():
                shutil.copytree(source, folder / name)
            else:
                shutil.copy2(source, folder / name)

    def _in_child(self, place: Path, work: Callable[[], int], *, limited: bool = True) -> Outcome:
        place.mkdir(parents=True, exist_ok=True)
        (place / _READY).unlink(missing_ok=True)
        sys.stdout.flush()
        sys.stderr.flush()
        child = os.fork()
        if child == 0:
            _child(place, work, self._size + MEMORY_LIMIT if limited else None)
        watch = _Watch(child, place / _READY if limited else None)
        while True:
            pid, status, usage = os.wait4(child, os.WNOHANG)
            if pid:
                break
            if watch.expired():
                os.killpg(child, signal.SIGKILL)
                os.wait4(child, 0)
                return Outcome(None, _said(place), watch.seconds, 0)
            time.sleep(0.004)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)  # what it started and did not end
        code = os.waitstatus_to_exitcode(status)
        taken = max(0, (usage.ru_maxrss << 10) - self._resident)
        return Outcome(code, _said(place), watch.seconds, taken)


class _Watch:
    """Says when a child has had its time: of computing, or of waiting.

    Args:
        child: its process.
        ready: a file that it makes when the command begins; None: it has the time of a setup.
    """

    def __init__(self, child: int, ready: Path | None) -> None:
        self._stat = Path(f"/proc/{child}/stat")
        self._ready = ready
        self._begun = self._moved = self._looked = time.monotonic()
        self._start: float | None = None
        self._first = self._last = 0.0

    @property
    def seconds(self) -> float:
        """Since the command began, on the clock."""
        return time.monotonic() - (self._begun if self._start is None else self._start)

    def expired(self) -> bool:
        """Whether it should end; looks ten times a second."""
        now = time.monotonic()
        if self._start is None and self._ready is not None and self._ready.exists():
            self._start = self._moved = now
            self._first = self._computed()
        if now - self._looked < 0.1:
            return False
        self._looked = now
        computed = self._computed()
        if computed != self._last:
            self._last, self._moved = computed, now
        if self._start is None:
            return now - self._begun > SETUP_LIMIT
        return now - self._moved > IDLE_LIMIT or computed - self._first > TIME_LIMIT

    def _computed(self) -> float:
        """Seconds of computing so far."""
        try:
            fields = self._stat.read_text().rpartition(")")[2].split()
        except OSError:
            return self._last
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _child(place: Path, work: Callable[[], int], memory: int | None) -> NoReturn:
    """In the child: no terminal, no input, no more memory than allowed."""
    code = 1
    try:
        os.setsid()
        for number, target, flags in (
            (0, "/dev/null", os.O_RDONLY),
            (1, "/dev/null", os.O_WRONLY),
            (2, str(place / _STDERR), os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND),
        ):
            opened = os.open(target, flags, 0o600)
            os.dup2(opened, number)
        if memory is not None:
            resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        signal.signal(signal.SIGINT, signal.default_int_handler)
        code = work()
    except SystemExit as leaving:
        code = leaving.code if isinstance(leaving.code, int) else 1
    except BaseException:
        # As the interpreter does it: what gets this far is a fault of the command, or of a kind.
        traceback.print_exc()
        code = 1
    finally:
        with contextlib.suppress(BaseException):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _ready_to_judge(place: Path) -> None:
    """What comes from here on is judged."""
    (place / _BEFORE).write_text(json.dumps(digests(place / "w")))
    (place / _READY).touch()
    sys.stderr.flush()
    os.ftruncate(2, 0)
    os.lseek(2, 0, os.SEEK_SET)


def _command(place: Path, words: tuple[str, ...]) -> int:
    from fastcal.cli import main

    os.chdir(place / "w")
    sys.path.insert(0, "")  # as `python -m fastcal` has it: modules of the folder can be imported
    return main(list(words))


def _world_maker(folder: Path) -> Callable[[], int]:
    def make() -> int:
        world.build(folder)
        return 0

    return make


def _said(place: Path) -> str:
    return (place / _STDERR).read_text(errors="replace")


def _status(field: str) -> int:
    """A line of /proc/self/status, in bytes."""
    text = Path("/proc/self/status").read_text()
    line = next(line for line in text.splitlines() if line.startswith(field))
    return int(line.split()[1]) << 10


def serve(folder: Path) -> None:
    """Answer names of kinds until stdin ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # a stray print is no answer
    warm()
    zygote = Zygote(folder)
    for line in sys.stdin:
        name = line.rstrip("\n")
        try:
            answer = zygote.judge(name)
        except Exception as error:
            answer = {"kind": name, "error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
