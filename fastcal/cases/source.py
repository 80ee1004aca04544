"""Where the members of a case come from: the one protocol that `fastcal.cases.driver.run` asks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from torch import Tensor

from fastcal.data.predictions import as_tensor

if TYPE_CHECKING:
    from fastcal.cases.settings import MemberReading
    from fastcal.data.nifti import Geometry
    from fastcal.data.predictions import Probabilities


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
    def record(self) -> Mapping[str, Any]:
        """Entries of ``prediction.json``: whatever changes the numbers, as JSON has it."""

    @property
    def dataset_json(self) -> Path | None:
        """The ``dataset.json`` to copy into the prediction folder, if there is one."""

    @property
    def advice(self) -> str:
        """The line of an error when memory runs out: on which device, and what to lower."""

    def members(self, case: str) -> Iterator[Member]:
        """Give the members of a case one after another.

        It is called again to find the member that made a voxel invalid. A generator must keep no
        name for what it has given: one member is in memory at a time.

        Raises:
            DataError: A file cannot be read; the message names it.
        """
