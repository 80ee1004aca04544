"""Compiles what the Triton launchers launch, for a GPU that need not be there.

The launchers run as they are, on CPU tensors; a driver that only names a target stands in for
Triton's, and a launch ends when its kernel is compiled.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import triton
import triton.backends.nvidia
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import JITFunction


@dataclass(frozen=True)
class Compiled:
    """One kernel that would have been launched."""

    name: str
    ttir: str
    ptx: str
    cubin: bytes
    fusion: bool
    """Whether multiplications and additions may be contracted."""

    def global_loads(self) -> list[int]:
        """Bytes of every global load in the PTX."""
        widths = {"v2": 2, "v4": 4}
        loads = re.findall(r"ld\.global(?:\.[a-z_:0-9]+?)*?(?:\.(v[24]))?\.[a-z](\d+)\s", self.ptx)
        return [widths.get(vector, 1) * int(bits) // 8 for vector, bits in loads]

    def atomics(self) -> set[str]:
        """Every global atomic in the PTX."""
        return set(re.findall(r"\b((?:atom|red)\.global\.\S+)", self.ptx))

    def narrow_addresses(self) -> list[str]:
        """Block address computations of the Triton IR whose offsets are not 64 bits wide."""
        return [it for it in self._offsets() if not it.endswith("xi64>")]

    def block_addresses(self) -> int:
        """How many block address computations there are."""
        return len(self._offsets())

    def _offsets(self) -> list[str]:
        return re.findall(r"tt\.addptr .*? : tensor<[^,]*>, (tensor<[^>]*>)", self.ttir)

    def resources(self, folder: Path) -> dict[str, int]:
        """Registers, stack and local memory that ptxas gave a thread."""
        tools = Path(triton.backends.nvidia.__file__).parent / "bin"
        file = folder / f"{self.name}.cubin"
        file.write_bytes(self.cubin)
        listing = subprocess.run(
            [tools / "cuobjdump", "-res-usage", file], capture_output=True, text=True, check=True
        ).stdout
        return {key: int(value) for key, value in re.findall(r"(REG|STACK|LOCAL):(\d+)", listing)}


class NamedTarget:
    """What of a driver compiling needs."""

    def __init__(self, capability: int) -> None:
        self._capability = capability

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", self._capability, 32)

    def get_current_device(self) -> int:
        return self._capability

    def get_current_stream(self, device: int) -> int:
        del device
        return 0

    def get_active_torch_device(self) -> torch.device:
        return torch.device("cpu")


@contextmanager
def compiling_for(capability: int) -> Iterator[list[Compiled]]:
    """Collects the kernels launched inside the with-block, compiled for ``capability``."""
    compiled: list[Compiled] = []
    run = JITFunction.run

    def compile_only(self: Any, *args: Any, grid: Any, warmup: bool, **options: Any) -> Any:
        del warmup
        kernel = run(self, *args, grid=grid, warmup=True, **options)
        asm = kernel.asm
        fusion = kernel.metadata.enable_fp_fusion
        compiled.append(Compiled(self.__name__, asm["ttir"], asm["ptx"], asm["cubin"], fusion))
        return kernel

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(JITFunction, "run", compile_only)
        patch.setattr(driver, "_active", NamedTarget(capability))
        yield compiled


def compile_kernels(capability: int, launch: Callable[[], None]) -> list[Compiled]:
    with compiling_for(capability) as compiled:
        launch()
    return compiled
