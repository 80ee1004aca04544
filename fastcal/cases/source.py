"""Where the members of a case come from: the one protocol that `fastcal.cases.driver.run` asks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from torch import Tensor

from fastcal.data.predictions import as_tensor

if TYPE_CHECKING:
    import torch

    from fastcal.cases.settings import MemberReading
    from fastcal.data.nifti import Geometry
    from fastcal.data.predictions import Probabilities, Stack


@dataclass(frozen=True, slots=True)
class Member:
    """What one member says about a case."""

    values: Tensor
    """Logits or probabilities ``[1, C, X, Y, Z]``, any strides."""
    like: Geometry | None
    """Where they lie, or None if nothing tells."""
    source: Path
    """The file that an error names."""
    weight: float = 1.0
    temperature: float = 1.0

    @classmethod
    def of(cls, found: Probabilities) -> Member:
        """Return saved probabilities as a member."""
        return cls(as_tensor(found)[None], found.like, found.source)


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """What the predictions of a folder are made from: the part of its record a source knows."""

    command: str
    """What makes them, such as ``"ensemble"``."""
    settings: Mapping[str, Any]
    """Whatever changes the numbers, as JSON has it. A `Path` stands for itself: where it leads."""
    folders: Sequence[Path] = ()
    """Folders that are read, none of which may be the output folder."""
    shared: Sequence[Path] = ()
    """Files that every case depends on, such as a calibrator; those that are missing are not
    read."""


class Source(Protocol):
    """Cases and their members, for `fastcal.cases.run`.

    A source is an object with these attributes; it need not inherit from this class.
    """

    @property
    def cases(self) -> Sequence[str]:
        """Names of the cases to do, sorted, of all parts."""

    @property
    def reading(self) -> MemberReading:
        """What the numbers of the members mean, the label scheme among it."""

    @property
    def origin(self) -> Origin:
        """What the predictions depend on, for ``prediction.json``."""

    @property
    def dataset_json(self) -> Path | None:
        """The ``dataset.json`` to copy into the prediction folder, if there is one."""

    @property
    def advice(self) -> str:
        """The line of an error when memory runs out: on which device, and what to lower."""

    def moved(self, device: torch.device) -> Source:
        """Return the source for another process: on this device, and with nothing loaded yet.

        What it loads may stay in memory, since a worker does many cases one after another.
        """

    def inputs(self, case: str) -> Sequence[Path]:
        """The files that the members of a case are read from; they need not exist."""

    def read(self, case: str) -> Iterator[Any]:
        """Read the files of a case, in pieces of the size of a member or below.

        It runs in a thread of its own, while the piece before it is worked on. A generator must
        keep no name for what it has given, so that two pieces are in memory at a time.

        Raises:
            DataError: A file cannot be read; the message names it.
        """

    def members(self, case: str, pieces: Iterator[Any]) -> Iterator[Member]:
        """Give the members of a case one after another, made from what `read` gives.

        Both are called again to find the member that made a voxel invalid. A generator must keep
        no name for what it has given.

        Args:
            case: Name of the case.
            pieces: What `read` gives for it.

        Raises:
            DataError: A file does not fit; the message names it.
        """


@runtime_checkable
class SlabSource(Source, Protocol):
    """A source whose members need not be in memory as a whole.

    `members` takes what `stacks` gives of a slab, one piece per stack, as it takes that of a whole
    case.
    """

    def stacks(self, case: str) -> Sequence[Stack]:
        """Open the files of a case, in the order in which `read` reads them.

        Raises:
            DataError: A file cannot be read; the message names it.
        """
