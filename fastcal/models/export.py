"""Export of trained networks to TorchScript and ONNX, which other programs run."""

from __future__ import annotations

import io
import json
import logging
import math
import re
import warnings
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn

from fastcal import __version__
from fastcal.core import atomic
from fastcal.core.doors import check_claim
from fastcal.core.errors import DataError
from fastcal.core.places import check_outputs
from fastcal.models.ensemble import Ensemble, EnsembleOutput, load_ensemble
from fastcal.models.memory import OutOfMemoryError, is_out_of_memory
from fastcal.models.run import Run

ExportFormat: TypeAlias = Literal["torchscript", "onnx"]
_SUFFIXES: dict[str, ExportFormat] = {
    ".pt": "torchscript",
    ".pth": "torchscript",
    ".ts": "torchscript",
    ".onnx": "onnx",
}
_METADATA = "fastcal"
"""Name of the description inside the file."""
_CHECKPOINT = re.compile(r"(best|last|epoch_\d+)\.(pt|pth)")
"""Names of a member's files that have an ending of TorchScript."""
_ONNX_LIMIT = 2 * 1024**3
"""Largest size of a protobuf message in bytes."""


@dataclass(frozen=True, slots=True)
class Exported:
    """A file that `export_run` wrote."""

    path: Path
    format: ExportFormat
    outputs: tuple[str, ...]
    """Names of the outputs, in order."""
    size: tuple[int, ...] | None
    """Spatial extents that it takes; None for any."""
    difference: float | None
    """Largest difference from the networks of the run on random numbers; None where ONNX could not
    be run here."""


def export_run(
    run: str | Path | Run,
    out: str | Path,
    *,
    member: int | None = None,
    members: Sequence[int] | None = None,
    format: ExportFormat | None = None,
    size: Sequence[int] | None = None,
    trust: Collection[str] = (),
    allow_duplicates: bool = False,
) -> Exported:
    """Write the ensemble of a run, or one member, as TorchScript or ONNX.

    The ensemble returns ``mean`` ``[B, C, *S]``, ``entropy`` and ``mutual_information``
    ``[B, *S]``; a member returns its ``logits`` ``[B, C, *S]``. The input ``images`` is float32
    ``[B, Ch, *S]``, oriented, resampled and normalised like the training set of the run. The file
    describes this preprocessing, labels and channels as JSON (``fastcal`` among ONNX's
    ``metadata_props`` and TorchScript's extra files). Batch and spatial extents are free unless
    ``size`` fixes the latter.

    Before the file takes its place, it is loaded again and compared with the networks on random
    numbers: always for TorchScript, and for ONNX where onnxruntime is installed.

    Args:
        run: The folder that `fastcal.train.train_ensemble` wrote, or the `Run` opened from it.
        out: The file, ``.pt``, ``.pth`` or ``.ts`` for TorchScript and ``.onnx`` for ONNX.
        member: Number of the one member to export; None exports the ensemble.
        members: Numbers of the ensemble's members; None for all finished ones.
        format: The format, where the name of the file does not tell.
        size: Spatial extents, for networks that cannot be exported for every size.
        trust: Packages that networks may be imported from, see `fastcal.load_ensemble`.
        allow_duplicates: A number among ``members`` may be there twice, and counts twice.

    Returns:
        A description of the file.

    Raises:
        DataError: There is no run, no finished member, weights cannot be read, or ``out`` is a file
            of the run.
        UntrustedNetworkError: A network is not built in, nor of a trusted package.
        ValueError: An argument does not fit; the network cannot be exported, or computes something
            else once exported; or an ONNX file would exceed 2 GB.
        ImportError: onnx or onnxscript is missing.
        OSError: The disk reports an error.

    Example:
        >>> export_run("runs/ce", "ensemble.onnx").outputs  # doctest: +SKIP
        ('mean', 'entropy', 'mutual_information')
    """
    opened = run if isinstance(run, Run) else Run.open(run)
    path = Path(out)
    kind = _format_of(path, format)
    if member is not None and members is not None:
        raise ValueError(f"member must be None where members are given, got {member}")
    extents = None if size is None else tuple(size)
    if extents is not None:
        _check_size(extents, opened)
    check_outputs([path], opened.files)
    if path.exists() and _CHECKPOINT.fullmatch(path.name):
        raise DataError(path, "holds a checkpoint, which export did not write; out must be new")
    chosen = members if member is None else [member]
    ensemble = load_ensemble(
        opened, members=chosen, device="cpu", trust=trust, allow_duplicates=allow_duplicates
    )
    module = PlainEnsemble(ensemble) if member is None else ensemble.network(0)
    outputs = EnsembleOutput._fields if member is None else ("logits",)
    description = _description(opened, chosen, ensemble, outputs)
    traced, tried = _sizes(ensemble) if extents is None else (extents, extents)
    example = _image(ensemble, traced, batch=2)
    trial = _image(ensemble, tried, batch=1)
    try:
        with torch.no_grad():
            expected = module(trial)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise OutOfMemoryError(f"size must be smaller for this memory, got {tried}") from error
    with atomic.atomic_path(path) as temporary, _quiet():
        write = _write_torchscript if kind == "torchscript" else _write_onnx
        write(module, example, temporary, outputs, description, free=extents is None)
        read = _run_torchscript if kind == "torchscript" else _run_onnx
        made = read(temporary, trial)
        difference = None if made is None else _compare(made, expected, path)
    return Exported(path, kind, outputs, extents, difference)


class PlainEnsemble(nn.Module):
    """`Ensemble` in PyTorch's own operators, which other programs know; for whole images only."""

    def __init__(self, ensemble: Ensemble) -> None:
        super().__init__()
        self.members = ensemble.members
        self.head = ensemble.head
        self.eval()

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Compute mean, entropy and mutual information of images ``[B, Ch, *S]``."""
        first, *others = self.members
        mean, expected = self._read(first(images))
        for member in others:
            probabilities, entropy = self._read(member(images))
            mean, expected = mean + probabilities, expected + entropy
        mean, expected = mean / len(self.members), expected / len(self.members)
        entropy = _entropy(mean)
        return mean, entropy, (entropy - expected).clamp_min(0)

    def _read(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        probabilities = logits.softmax(1) if self.head == "softmax" else logits.sigmoid()
        return probabilities, _entropy(probabilities)


def _entropy(probabilities: Tensor) -> Tensor:
    # The smallest normal number replaces 0 inside the logarithm only, so that 0 ln 0 is 0.
    logarithms = probabilities.clamp_min(torch.finfo(torch.float32).tiny).log()
    return -(probabilities * logarithms).sum(1)


def _format_of(path: Path, wanted: str | None) -> ExportFormat:
    if wanted is None:
        if path.suffix not in _SUFFIXES:
            raise ValueError(f"out must be a name that ends in {_either(_SUFFIXES)}, got {path}")
        return _SUFFIXES[path.suffix]
    formats = {str(known): known for known in _SUFFIXES.values()}
    if wanted not in formats:
        raise ValueError(f"format must be {_either(formats)}, got {wanted!r}")
    return formats[wanted]


def _either(choices: Sequence[str] | dict[str, Any]) -> str:
    *first, last = choices
    return f"{', '.join(first)} or {last}"


def _description(
    run: Run, chosen: Sequence[int] | None, ensemble: Ensemble, outputs: Sequence[str]
) -> str:
    content = {
        "fastcal": __version__,
        "members": [folder.name for folder in run.chosen(chosen, allow_duplicates=True)],
        "outputs": list(outputs),
        "head": ensemble.head,
        "labels": run.labels,
        "channel_names": run.channel_names,
        "preprocessing": run.config["preprocessing"],
        "patch": run.patch,
    }
    return json.dumps(content)


def _sizes(ensemble: Ensemble) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return extents to trace with, and others to try the file with.

    They differ when padded, too, and leave more than one voxel at the deepest level.
    """
    multiples = [max(by, 8) for by in ensemble.network(0).multiples]
    traced = tuple(2 * by + 2 * axis + 1 for axis, by in enumerate(multiples))
    return traced, tuple(by + 7 - 2 * axis for axis, by in enumerate(multiples))


def _check_size(extents: tuple[int, ...], run: Run) -> None:
    """Refuse extents of another number, or ones whose images and results no memory holds."""
    if len(extents) != run.dims or min(extents) < 1:
        raise ValueError(f"size must be {run.dims} positive extents, got {extents}")
    channels = len(run.channel_names) + 2 * run.num_classes
    try:
        check_claim(2 * 4 * channels * math.prod(extents), what="images and logits of this size")
    except ValueError as error:
        raise ValueError(f"size must be smaller, got {extents}: {error}") from None


def _image(ensemble: Ensemble, extents: Sequence[int], *, batch: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(batch, ensemble.in_channels, *extents, generator=generator)


def _write_torchscript(
    module: nn.Module,
    example: Tensor,
    path: Path,
    outputs: Sequence[str],
    description: str,
    *,
    free: bool,
) -> None:
    del outputs, free  # sizes of a trace are free, and its outputs have no names
    with torch.no_grad():
        traced: Any = torch.jit.trace(module, example, check_trace=False)  # type: ignore[no-untyped-call]
    # Through memory, because torch's own writer needs a suffix and hides the disk's error.
    content = io.BytesIO()
    torch.jit.save(traced, content, _extra_files={_METADATA: description})
    path.write_bytes(content.getbuffer())


def _run_torchscript(path: Path, image: Tensor) -> list[Tensor]:
    loaded: Any = torch.jit.load(str(path))  # type: ignore[no-untyped-call]
    with torch.no_grad():
        made = loaded(image)
    return list(made) if isinstance(made, tuple) else [made]


def _write_onnx(
    module: nn.Module,
    example: Tensor,
    path: Path,
    outputs: Sequence[str],
    description: str,
    *,
    free: bool,
) -> None:
    try:
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ImportError(
            f"ONNX needs onnx and onnxscript ({error}; pip install 'fastcal[export]')"
        ) from error
    if (size := sum(one.nbytes for one in module.state_dict().values())) >= _ONNX_LIMIT:
        raise ValueError(
            f"weights must be below 2 GB for one ONNX file, got {size / 1024**3:.1f} GB: export "
            "fewer members, or TorchScript"
        )
    dynamic = torch.export.Dim.DYNAMIC
    axes = {axis: dynamic for axis in range(example.ndim) if axis != 1}
    try:
        program = torch.onnx.export(
            module,
            (example,),
            dynamo=True,
            verbose=False,
            input_names=["images"],
            output_names=list(outputs),
            dynamic_shapes=(axes if free else {0: dynamic},),
        )
    except (RuntimeError, torch._dynamo.exc.TorchDynamoException) as error:
        cause = error.__cause__ or error
        reason = (str(cause).strip().splitlines() or [type(cause).__name__])[0]
        hint = "; fixing its extents by size may help" if free else ""
        raise ValueError(f"this network cannot be exported to ONNX ({reason}{hint})") from error
    assert program is not None
    program.model.metadata_props[_METADATA] = description
    program.save(str(path), external_data=False)


def _run_onnx(path: Path, image: Tensor) -> list[Tensor] | None:
    try:
        import onnxruntime
    except ImportError:
        return None
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return [torch.from_numpy(one) for one in session.run(None, {"images": image.numpy()})]


def _compare(made: Sequence[Tensor], expected: Tensor | tuple[Tensor, ...], path: Path) -> float:
    wanted = list(expected) if isinstance(expected, tuple) else [expected]
    shapes = [tuple(one.shape) for one in made]
    if shapes != [tuple(one.shape) for one in wanted]:
        raise ValueError(
            f"{path}: the exported network returns other shapes, {shapes}; fixing its extents by "
            "size may help"
        )
    difference = max(float((a - b).abs().max()) for a, b in zip(made, wanted, strict=True))
    scale = max(1.0, *(float(one.abs().max()) for one in wanted))
    if not math.isfinite(difference) or difference > 1e-3 * scale:
        raise ValueError(
            f"{path}: the exported network differs by {difference:.2g} from the run's, because it "
            "does something that cannot be traced (another size may show what)"
        )
    return difference


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress the messages and graphs that exporters print, which do not concern a user."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.fx")]
    levels = [logger.level for logger in loggers]
    sink = io.StringIO()
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stdout(sink), redirect_stderr(sink):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
