"""Settings of a run over cases, in groups that travel together; each is checked when made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, TypeAlias

from fastcal import CalibrationStatistics, EnsembleAccumulator, SegmentSettings
from fastcal.cases.labels import LabelScheme
from fastcal.cases.loop import ProgressOption, part_of
from fastcal.cases.region_rules import RegionRule, parse_rules
from fastcal.core.arguments import flag, whole_number
from fastcal.core.bins import Closed
from fastcal.core.problem import MAPS, Activation, Space
from fastcal.data import images

MapType: TypeAlias = Literal["float32", "uint8", "uint16"]
MAP_TYPES: tuple[MapType, ...] = ("float32", "uint8", "uint16")


@dataclass(frozen=True, slots=True)
class Counted:
    """What is counted against reference labels.

    Raises:
        TypeError: A setting has the wrong type.
        ValueError: A setting is out of range, or there are settings of the count without labels.

    Example:
        >>> Counted("labelsTs", regions=["box:8:2"]).rules[0].mm
        8.0
    """

    labels: str | Path | None = None
    """Folder of reference label maps; None counts nothing."""
    n_bins: int = 15
    closed: Closed = "right"
    fine_bins: int = 0
    """Cells of the fine histograms, a power of two; 0 for none."""
    regions: Sequence[str] = ()
    """Words that `RegionRule.parse` knows."""

    def __post_init__(self) -> None:
        rules = self.rules
        if rules and self.labels is None:
            raise ValueError(f"regions must be empty without labels, got {list(self.regions)}")
        # The state checks its own arguments.
        self.statistics(LabelScheme.of_classes(2))
        if self.labels is None:
            for setting in fields(self):
                value = getattr(self, setting.name)
                if setting.name != "regions" and value != setting.default:
                    raise ValueError(f"{setting.name} must be left out without labels, got {value}")

    @property
    def rules(self) -> tuple[RegionRule, ...]:
        """How the masks of the regions are made."""
        return parse_rules(self.regions)

    @property
    def record(self) -> dict[str, Any]:
        """Entries of the ``prediction.json`` of a folder that was counted with these settings."""
        if self.labels is None:
            return {}
        return {
            "labels": Path(self.labels),
            "n_bins": self.n_bins,
            "closed": self.closed,
            "fine_bins": self.fine_bins,
            "regions": list(self.regions),
        }

    def statistics(self, scheme: LabelScheme) -> CalibrationStatistics:
        """Return the empty state that the cases of a run are added to."""
        return CalibrationStatistics(
            scheme.num_classes,
            self.n_bins,
            self.closed,
            multilabel=scheme.multilabel,
            fine_bins=self.fine_bins,
            regions=[rule.name for rule in self.rules],
        )

    def check_without_prediction(self) -> None:
        """Refuse regions that are made from the predicted labels.

        Raises:
            ValueError: There is one. It is known only when everything is predicted.
        """
        if any(rule.kind == "prediction" for rule in self.rules):
            raise ValueError(
                "regions must be made from the labels, got 'prediction': only fastcal evaluate "
                "knows the predicted label map"
            )


@dataclass(frozen=True, slots=True)
class Written:
    """Which files are written for each case, and where.

    Raises:
        TypeError: A setting has the wrong type; ``maps`` is a list.
        ValueError: A map or the type is unknown.

    Example:
        >>> Written("predictions", maps=["label", "entropy", "entropy"]).map_folders
        ('entropy',)
    """

    out: str | Path
    """The prediction folder."""
    maps: Sequence[str] = ("entropy",)
    dtype: MapType = "float32"
    """Voxel type of the maps."""
    save_probabilities: bool = False
    """Write the mean as nnU-Net's ``CASE.npz``."""
    overwrite: bool = False
    """Do finished cases again. Where ``out`` was made from other settings or inputs, it starts
    anew, which is refused for a part of its cases."""
    file_ending: str = images.DEFAULT
    """Ending of the label maps, which decides their format."""
    segments: bool = True
    """Write scores of the segments, ``segments.json`` and ``segments.csv``."""

    def __post_init__(self) -> None:
        if isinstance(self.maps, str):
            raise TypeError(f"maps must be a list of names, got {self.maps!r}")
        for name in self.maps:
            if name not in MAPS:
                raise ValueError(f"maps must be among {', '.join(MAPS)}, got {name!r}")
        if self.dtype not in MAP_TYPES:
            raise ValueError(f"dtype must be {' or '.join(MAP_TYPES)}, got {self.dtype!r}")
        if self.file_ending not in images.ENDINGS:
            raise ValueError(
                f"file_ending must be one of {', '.join(images.ENDINGS)}, got {self.file_ending!r}"
            )
        flag(self.save_probabilities, "save_probabilities")
        flag(self.overwrite, "overwrite")
        flag(self.segments, "segments")

    @property
    def map_ending(self) -> str:
        """Ending of the maps: that of the label maps where their format holds real numbers."""
        return images.map_ending(self.file_ending, self.dtype)

    @property
    def map_folders(self) -> tuple[str, ...]:
        """The maps that get a folder; the labels lie at the top in any case."""
        return tuple(name for name in dict.fromkeys(self.maps) if name != "label")

    @property
    def computed_maps(self) -> tuple[str, ...]:
        """The maps that the files are made from."""
        return ("label", *self.map_folders, *(("mean",) if self.save_probabilities else ()))


@dataclass(frozen=True, slots=True)
class Part:
    """Which share of the cases a run does, and what it says while it does.

    Raises:
        TypeError: A setting has the wrong type.
        ValueError: ``num_parts`` or ``part_id`` is out of range.

    Example:
        >>> Part(num_parts=2, part_id=1).of(["a", "b", "c", "d", "e"])
        ['b', 'd']
    """

    num_parts: int = 1
    part_id: int = 0
    keep_going: bool = False
    """Go on after a case that fails."""
    progress: ProgressOption = False
    memory: int | None = None
    """The most bytes of memory that the process may take; None reads whole cases."""

    def __post_init__(self) -> None:
        self.of(())
        flag(self.keep_going, "keep_going")
        if self.memory is not None and whole_number(self.memory, "memory") < 1:
            raise ValueError(f"memory must be at least 1 byte, got {self.memory}")

    @property
    def name(self) -> str:
        """What tells the part from the others, ``part-K-of-N``; empty where it is the whole."""
        return "" if self.num_parts == 1 else f"part-{self.part_id}-of-{self.num_parts}"

    def of(self, cases: Sequence[str]) -> list[str]:
        """Return every ``num_parts``-th case, starting at ``part_id``."""
        return part_of(cases, num_parts=self.num_parts, part_id=self.part_id)


@dataclass(frozen=True, slots=True)
class MemberReading:
    """What the numbers of a member mean, and how members are averaged."""

    scheme: LabelScheme
    """What the channels stand for."""
    activation: Activation = "softmax"
    from_logits: bool = False
    space: Space = "prob"
    """Average probabilities, or logits."""

    def accumulator(
        self, maps: Sequence[str], *, segments: bool | SegmentSettings = False
    ) -> EnsembleAccumulator:
        """Return the empty accumulator that the members of a case are added to.

        Args:
            maps: What is computed.
            segments: How segments are scored, if they are.

        Raises:
            ValueError: A map is not defined for this way of averaging.
        """
        return EnsembleAccumulator(
            tuple(dict.fromkeys(maps)),
            from_logits=self.from_logits,
            activation=self.activation,
            multilabel=self.scheme.multilabel,
            space=self.space,
            segments=segments,
        )
