"""What a calibrator was fitted to: cases, the content of their files, and the version."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fastcal import __version__
from fastcal.core.doors import MissingFileError, digest


@dataclass(frozen=True, slots=True)
class FittedTo:
    """The cases of a fit, as files of calibrators record them."""

    cases: Mapping[str, tuple[str, ...]]
    """For each case the digests of its files: size and SHA-256 of both ends, wherever they lay."""
    version: str = field(default_factory=lambda: __version__)
    """The version of fastcal."""
    structures: tuple[str, ...] = ()
    """Names of the structures in the order of their channels; empty where nothing gave them."""

    @classmethod
    def of(cls, files: Mapping[str, Sequence[Path]], structures: Sequence[str] = ()) -> FittedTo:
        """Read the digests of the files of cases; those that do not exist are left out.

        Args:
            files: The files of each case.
            structures: Names of the structures, by channel.

        Raises:
            DataError: A file cannot be read.
        """
        found = {case: digests_of(paths) for case, paths in files.items()}
        return cls(found, structures=tuple(structures))

    def check_order(self, structures: Sequence[str]) -> None:
        """Refuse predictions that have a structure of the fit in another channel.

        A name that only one of the two has may be another word for the same structure.

        Raises:
            ValueError: There is one.
        """
        places = {name: number for number, name in enumerate(self.structures, start=1)}
        for number, name in enumerate(structures, start=1):
            if places.get(name, number) != number:
                raise ValueError(
                    f"{name} must be structure {places[name]}, as in the fit of the calibrator, "
                    f"got {number}"
                )

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> FittedTo:
        """Make what `to_dict` described.

        Raises:
            ValueError, TypeError, KeyError, AttributeError: The content describes none.
        """
        cases = {
            _text(case): tuple(_text(one) for one in found)
            for case, found in content["cases"].items()
        }
        # Files of older versions have no names.
        structures = tuple(_text(one) for one in content.get("structures", ()))
        return cls(cases, _text(content["version"]), structures)

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain values."""
        return {
            "version": self.version,
            **({"structures": list(self.structures)} if self.structures else {}),
            "cases": {case: list(found) for case, found in self.cases.items()},
        }

    def holds(self, files: Sequence[Path]) -> bool:
        """Whether one of these files was part of the fit, by its content.

        Raises:
            DataError: A file cannot be read.
        """
        known = {one for found in self.cases.values() for one in found}
        return not known.isdisjoint(digests_of(files))


def digests_of(files: Sequence[Path]) -> tuple[str, ...]:
    """Return a digest for each of the files that hold probabilities.

    Properties in a pkl, and a label map beside an npz, may be the same for two cases; so may the
    metadata and the empty chunks of a Zarr array, which has one digest of all its files.

    Raises:
        DataError: One cannot be read.
    """
    chunks = [path for path in files if any(one.suffix == ".zarr" for one in path.parents)]
    if chunks:
        texts = sorted(_digests_of(chunks))
        return (f"zarr:{hashlib.sha256(' '.join(texts).encode()).hexdigest()}",)
    arrays = [path for path in files if path.suffix in (".npz", ".npy") and path.exists()]
    return tuple(_digests_of(arrays or [path for path in files if path.suffix != ".pkl"]))


def _digests_of(files: Sequence[Path]) -> list[str]:
    found = []
    for path in files:
        try:
            one = digest(path, whole=True)
        except MissingFileError:
            continue
        whole = "" if one.whole is None else f":{one.whole:08x}"
        found.append(f"{one.size}:{one.sha256}{whole}")
    return found


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"fitted_to must hold texts, got {value!r}")
    return value
