"""Ctrl-C in the places where Python would print a traceback of it."""

from __future__ import annotations

import signal
import sys
import threading
from _thread import interrupt_main
from typing import Any

_SOON = 0.05
"""Seconds after which an interrupt that was lost comes again."""


def heard_everywhere() -> None:
    """Deliver an interrupt once more that came where no exception can pass.

    Such places are finalisers, callbacks of weak references (imports have one) and hooks: Python
    prints the traceback there and goes on as if nobody had pressed anything.
    """
    others = sys.unraisablehook

    def hook(found: Any) -> None:
        if issubclass(found.exc_type, KeyboardInterrupt):
            again = threading.Timer(_SOON, _interrupt)
            again.daemon = True
            again.start()
        else:
            others(found)

    sys.unraisablehook = hook


def _interrupt() -> None:
    """Send the main thread the signal itself, which also ends a sleep or another wait."""
    if hasattr(signal, "pthread_kill"):
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
    else:
        interrupt_main()


def quiet_end() -> None:
    """Let a further Ctrl-C end the process at once: what follows is Python's own end."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def was_interrupted(error: BaseException) -> bool:
    """Return whether an error is what became of Ctrl-C on its way.

    A compiled module that is interrupted while it is loaded reports an `ImportError`, and others
    have words of their own.
    """
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        one = waiting.pop()
        if one is None or id(one) in seen:
            continue
        if isinstance(one, KeyboardInterrupt):
            return True
        seen.add(id(one))
        waiting += [one.__cause__, one.__context__]
    return False
