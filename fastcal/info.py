"""What this installation can do here: versions, processor, GPU, backends.

``python -m fastcal.info`` and ``fastcal info`` print it. With ``--json`` they print one JSON
object, for bug reports.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import sys
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path

import torch

import fastcal
from fastcal import backends

OPTIONAL_PACKAGES = (
    "numpy",
    "nibabel",
    "safetensors",
    "monai",
    "scipy",
    "matplotlib",
    "jinja2",
    "triton",
    "SimpleITK",
    "onnx",
    "onnxruntime",
    "torchmetrics",
)
"""Packages whose version is reported where they are installed. None of them is imported."""


@dataclass(frozen=True, slots=True)
class CpuInfo:
    """The processor, and how the ``cpu`` backend uses it."""

    model: str
    logical_cores: int
    threads: int
    """Threads a call uses: ``torch.get_num_threads()``."""
    isa: str | None
    """Instruction set that the kernels use; None where the native module is missing."""
    isa_levels: tuple[str, ...]
    """Instruction sets that this build contains and this processor has, best first."""


@dataclass(frozen=True, slots=True)
class GpuInfo:
    """The NVIDIA devices that torch sees, and their driver."""

    devices: tuple[str, ...]
    """Name, compute capability and memory of each."""
    driver: str | None
    """Version of the kernel driver, e.g. ``"580.65.06"``; None where there is none."""
    torch_cuda: str | None
    """CUDA version that torch was built with; None for a CPU build."""
    backend: str
    """The backend for CUDA tensors: the first of cuda, triton and reference that works."""


@dataclass(frozen=True, slots=True)
class BackendInfo:
    """One backend and, where it does not work, the reason."""

    name: str
    available: bool
    reason: str
    failed: dict[str, str]
    """Ops whose kernels could not be compiled or launched, with the reason of each."""


@dataclass(frozen=True, slots=True)
class Info:
    """Everything ``fastcal info`` shows."""

    fastcal: str
    python: str
    torch: str
    packages: dict[str, str]
    """Version of each installed package of `OPTIONAL_PACKAGES`."""
    system: str
    cpu: CpuInfo
    gpu: GpuInfo | None
    """None when it was not asked for."""
    backends: tuple[BackendInfo, ...]


def collect(*, gpu: bool = True, kernels: bool = False) -> Info:
    """Ask the installation and the machine what they have.

    Args:
        gpu: Ask torch and the driver for GPUs, and whether their backends work. This initialises
            the CUDA driver in the process, which a process that forks afterwards may not want.
        kernels: Run every op once on a small tensor, on a GPU where there is one, which shows the
            kernels that cannot be compiled or launched. Triton needs a minute for it.

    Example:
        >>> from fastcal.info import collect
        >>> collect(gpu=False).cpu.threads >= 1
        True
    """
    if kernels:
        _run_every_op("cuda" if gpu and torch.cuda.is_available() else "cpu")
    return Info(
        fastcal=fastcal.__version__,
        python=platform.python_version(),
        torch=torch.__version__,
        packages=_installed(OPTIONAL_PACKAGES),
        system=platform.platform(),
        cpu=_cpu(),
        gpu=_gpu() if gpu else None,
        backends=tuple(
            BackendInfo(status.name, status.available, status.reason, status.failed)
            for status in backends.status(gpu=gpu)
        ),
    )


def render(info: Info) -> str:
    """Format the report as aligned lines of text, without colour."""
    rows = [
        ("fastcal", info.fastcal),
        ("python", info.python),
        ("torch", info.torch),
        ("packages", ", ".join(f"{name} {version}" for name, version in info.packages.items())),
        ("system", info.system),
        ("processor", f"{info.cpu.model}, {info.cpu.logical_cores} logical cores"),
        ("instructions", _instructions(info.cpu)),
        ("threads", str(info.cpu.threads)),
    ]
    if info.gpu is not None:
        rows += [("gpu", device) for device in info.gpu.devices or ("none",)]
        rows += [
            ("driver", info.gpu.driver or "none"),
            ("torch's CUDA", info.gpu.torch_cuda or "none (a CPU build of torch)"),
        ]
    if info.gpu is not None and info.gpu.devices:
        rows.append(("CUDA tensors", f"take backend {info.gpu.backend}"))
    for status in info.backends:
        works = "works, but for" if status.failed else "works"
        rows.append(
            (f"backend {status.name}", works if status.available else f"no: {status.reason}")
        )
        rows += [(f"  {op}", reason) for op, reason in status.failed.items()]
    width = max(len(label) for label, _ in rows)
    return "\n".join(f"{label:<{width}}  {value}" for label, value in rows)


def to_json(info: Info) -> str:
    """Format the report as one JSON object."""
    return json.dumps(asdict(info), indent=2)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``python -m fastcal.info [--json] [--no-gpu] [--kernels]``."""
    parser = argparse.ArgumentParser(prog="python -m fastcal.info", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--no-gpu", action="store_true", help="do not touch the GPU driver")
    parser.add_argument("--kernels", action="store_true", help="run every op once")
    options = parser.parse_args(arguments)
    info = collect(gpu=not options.no_gpu, kernels=options.kernels)
    print(to_json(info) if options.json else render(info))
    return 0


def _run_every_op(device: str) -> None:
    """Call what reaches each op once. `backends.status` knows afterwards what failed."""
    from fastcal.losses import DiceCELoss, SoftL1ACELoss
    from fastcal.recalibrate import TemperatureScaling
    from fastcal.segments import segment_scores

    steps = torch.arange(48.0, device=device).view(1, 3, 4, 4)
    logits = steps.sin().requires_grad_()
    given = logits.detach()
    target = (steps[:, 0] % 3).to(torch.int64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fastcal.ensemble_statistics([given, given], target)
        stream = fastcal.EnsembleAccumulator()
        stream.update(given)
        stream.finalize(target)
        segment_scores(given.softmax(1), component_voxels=None)
        for loss in (DiceCELoss(), SoftL1ACELoss()):
            loss(logits, target).backward()
        TemperatureScaling().fit(given, target)


def _instructions(cpu: CpuInfo) -> str:
    if cpu.isa is None:
        return "no native kernels"
    chosen = " (FASTCAL_ISA)" if os.environ.get("FASTCAL_ISA") else ""
    return f"{cpu.isa}{chosen} of {', '.join(cpu.isa_levels)}"


def _installed(names: Sequence[str]) -> dict[str, str]:
    versions = {}
    for name in names:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def _cpu() -> CpuInfo:
    isa: str | None = None
    levels: tuple[str, ...] = ()
    try:
        from fastcal import _cpu as native
    except ImportError:
        pass  # backends.status() gives the reason
    else:
        isa, levels = native.isa(), tuple(native.isa_levels())
    return CpuInfo(
        model=_cpu_model(),
        logical_cores=os.cpu_count() or 1,
        threads=torch.get_num_threads(),
        isa=isa,
        isa_levels=levels,
    )


def _cpu_model() -> str:
    # platform.processor() is empty or only "x86_64" on Linux.
    listing = Path("/proc/cpuinfo")
    if listing.exists():
        model = re.search(r"^model name\s*:\s*(.+)$", listing.read_text(), re.MULTILINE)
        if model:
            return model[1]
    return platform.processor() or platform.machine()


def _gpu() -> GpuInfo:
    devices = []
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            device = torch.cuda.get_device_properties(index)
            memory = device.total_memory / 2**30
            devices.append(f"{device.name}, sm_{device.major}{device.minor}, {memory:.0f} GiB")
    backend = backends.preferred("cuda") or "none"
    return GpuInfo(tuple(devices), _driver_version(), torch.version.cuda, backend)


def _driver_version() -> str | None:
    version = Path("/proc/driver/nvidia/version")
    if not version.exists():
        return None
    number = re.search(r"\b\d{3,}\.\d+(\.\d+)?\b", version.read_text())
    return number[0] if number else None


if __name__ == "__main__":
    sys.exit(main())
