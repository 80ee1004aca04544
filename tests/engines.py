"""The implementations a test can be sent to: backends, and instruction sets of the cpu backend."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

import fastcal

on_every_engine = pytest.mark.usefixtures("engine")
"""Run the test once for each of `ENGINES`."""


@dataclass(frozen=True)
class Engine:
    """A backend, and for the cpu backend the instruction set it runs with."""

    backend: str
    isa: str | None = None

    def __str__(self) -> str:
        return self.backend if self.isa is None else f"{self.backend}-{self.isa}"


def _engines() -> list[Engine]:
    engines = [Engine("reference")]
    available = {status.name for status in fastcal.backends.status(gpu=False) if status.available}
    if "cpu" in available:
        from fastcal import _cpu

        engines += [Engine("cpu", isa) for isa in _cpu.isa_levels()]
    return engines


ENGINES = _engines()


class using:
    """Send the calls inside a with-block to one `Engine`."""

    def __init__(self, chosen: Engine) -> None:
        self._chosen = chosen
        self._backend = fastcal.backend(chosen.backend)
        self._isa = ""

    def __enter__(self) -> None:
        if self._chosen.isa is not None:
            from fastcal import _cpu

            self._isa = _cpu.isa()
            _cpu.set_isa(self._chosen.isa)
        self._backend.__enter__()

    def __exit__(self, *exc: object) -> None:
        self._backend.__exit__(None, None, None)
        if self._chosen.isa is not None:
            from fastcal import _cpu

            _cpu.set_isa(self._isa)
