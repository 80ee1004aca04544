"""What a report is about: models that were scored on the same cases."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from fastcal.core.arrays import Floats
from fastcal.report.provenance import Provenance
from fastcal.report.style import LOSS_NAMES

if TYPE_CHECKING:
    from fastcal.calibration import CalibrationStatistics
    from fastcal.report.claims import Sign
    from fastcal.report.slices import Layers

Kind = Literal["", "single", "dropout", "ensemble"]
SINGLE, DROPOUT, ENSEMBLE = "single", "dropout", "ensemble"


@dataclass(frozen=True, eq=False)
class Model:
    """One row of the comparison: a model, or the mean over several alike."""

    group: str
    """What it shares with the models that differ from it in their kind alone, such as the loss."""
    kind: Kind
    """``"single"`` or ``"dropout"`` beside the ``"ensemble"`` of their group; empty without."""
    size: int
    """Members that are averaged into a prediction; the number of single models of a mean."""
    dice: Floats
    """``[cases, K]``: of every structure; the mean over the models of a row. NaN where neither
    reference nor prediction has the structure."""
    statistics: tuple[CalibrationStatistics, ...] = ()
    """One state per model of the row, with the cases' ids; none without probabilities."""
    entropy: Floats | None = None
    """``[cases, K]``: entropy of the predicted segments in nats; NaN for an empty one."""
    missing: str = ""
    """What cannot be said of it, and how it could."""

    @property
    def title(self) -> str:
        """What it is called."""
        name = LOSS_NAMES.get(self.group, self.group)
        if not self.kind:
            return name
        return f"{name}, {self.role}" if name else self.role[:1].upper() + self.role[1:]

    @property
    def group_title(self) -> str:
        """What its group is called."""
        return LOSS_NAMES.get(self.group, self.group)

    @property
    def role(self) -> str:
        """What it is within its group."""
        if self.kind == SINGLE:
            return f"single (mean of {self.size})" if self.size > 1 else "single"
        if self.kind == DROPOUT:
            return f"MC dropout, {self.size} passes"
        return f"ensemble of {self.size}" if self.kind else ""


@dataclass(frozen=True, slots=True)
class Flag:
    """Something that a reader must not overlook."""

    text: str
    serious: bool = True
    """Otherwise it is a note."""
    case: str = ""
    """The case that it is about, if it is about one."""


@dataclass(frozen=True, eq=False)
class Cohort:
    """Models, the cases that all of them were scored on, and where pictures come from."""

    title: str
    structures: tuple[str, ...]
    """Names of the K structures, without the background."""
    classes: tuple[str, ...]
    """Names of the C channels of the probabilities."""
    cases: tuple[str, ...]
    """Sorted."""
    models: tuple[Model, ...]
    about: Provenance
    subtitle: str = ""
    painted: tuple[int, ...] = ()
    """The value that each structure has in label maps; 1 to K where there is nothing."""
    flags: tuple[Flag, ...] = ()
    case_flags: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """What quality prediction and detection of unlike cases say of a case."""
    findings: tuple[Sign, ...] | None = None
    """The paper's claims, where they are tested elsewhere; None tests them on these models."""
    layers: Callable[[str], Layers] | None = None
    """Reads what the pictures of a case are made from."""

    @property
    def shown(self) -> tuple[Model, ...]:
        """The last model of every group: its ensemble where it has one."""
        last = {model.group: model for model in self.models if model.kind != DROPOUT}
        last |= {m.group: m for m in self.models if m.kind == ENSEMBLE}
        return tuple(last.values())

    @property
    def regions(self) -> tuple[str, ...]:
        """Regions that all models with probabilities were counted in."""
        counted = [stats.regions for model in self.models for stats in model.statistics]
        if not counted:
            return ()
        return tuple(name for name in counted[0] if all(name in one for one in counted))

    def of(self, group: str, kind: Kind) -> Model | None:
        """Return a model by group and kind; None where there is none."""
        found = [one for one in self.models if (one.group, one.kind) == (group, kind)]
        return found[-1] if found else None

    @property
    def groups(self) -> tuple[str, ...]:
        """Every group, in order."""
        return tuple(dict.fromkeys(model.group for model in self.models))
