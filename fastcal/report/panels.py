"""Figures of cases: image, labels, and each model's prediction beside its entropy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fastcal.report import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


_PANEL = 2.05
"""Width of a panel in inches."""


@dataclass(frozen=True, slots=True)
class ModelView:
    """What one model made of a case: volumes in the image's own ``(X, Y, Z)`` order."""

    title: str
    prediction: NDArray[np.integer]
    entropy: NDArray[np.floating]
    """Nats."""


@dataclass(frozen=True, slots=True)
class CaseView:
    """One row of panels."""

    title: str
    image: NDArray[np.floating]
    """``(X, Y, Z)``, any intensity scale."""
    label: NDArray[np.integer]
    affine: NDArray[np.float64]
    """Voxel indices to millimetres (RAS+), ``(4, 4)``: it orients the slice and its aspect."""
    models: tuple[ModelView, ...]


def case_panels(cases: Sequence[CaseView], structures: Mapping[int, str]) -> Figure:
    """Draw one row per case: image, reference, then prediction and entropy map of each model.

    The slice is the axial one with the most labelled voxels, drawn the radiological way (the
    patient's left on the right, anterior up). Of a case that is a single sagittal or coronal slice,
    that slice is drawn, superior up. Coloured lines outline the reference on the image
    and each predicted segment on its own panels. All entropy maps share one scale, from 0 to the
    logarithm of the number of classes.

    Args:
        cases: What to draw, all with the same models in the same order.
        structures: Name of each label value except the background.

    Raises:
        ValueError: There are no cases, or the volumes of a case differ in shape.
    """
    if not cases:
        raise ValueError("cases must hold at least one case, got none")
    titles = ["Image", "Reference"]
    for model in cases[0].models:
        titles += [model.title, f"{model.title}: entropy"]
    with style.house_style():
        ratios = [_height_to_width(case) for case in cases]
        figure = style.new_figure(
            _PANEL * len(titles) + 0.9, sum(_PANEL * ratio + 0.1 for ratio in ratios) + 0.8
        )
        axes = figure.subplots(len(cases), len(titles), squeeze=False, height_ratios=ratios)
        limit = float(np.log(len(structures) + 1))
        for case, row in zip(cases, axes, strict=True):
            _draw_row(row, case, limit)
        for ax, title in zip(axes[0], titles, strict=True):
            ax.set_title(title, fontsize=11)
        _legend(figure, structures)
        bar = figure.colorbar(
            axes[0, 3].images[0] if len(titles) > 2 else axes[0, 0].images[0],
            ax=list(axes[:, -1]),
            shrink=0.8,
            pad=0.02,
            label="Entropy (nats)",
        )
        bar.outline.set_visible(False)
    return figure


def _height_to_width(case: CaseView) -> float:
    picture, aspect = _slice(case.image, case.affine, 0, case, "image")
    height, width = picture.shape
    return float(aspect * height / width)


def _draw_row(row: Sequence[Axes], case: CaseView, limit: float) -> None:
    index = _fullest_slice(case)
    image, aspect = _slice(case.image, case.affine, index, case, "image")
    label, _ = _slice(case.label, case.affine, index, case, "label")
    low, high = np.percentile(image, (1, 99.5))
    gray = {"cmap": "gray", "vmin": low, "vmax": max(high, low + 1e-6), "aspect": aspect}
    row[0].imshow(image, **gray)
    row[1].imshow(image, **gray)
    _outline(row[1], label)
    row[0].set_ylabel(case.title, fontsize=10)
    for position, model in enumerate(case.models):
        left, right = row[2 + 2 * position : 4 + 2 * position]
        prediction, _ = _slice(model.prediction, case.affine, index, case, "prediction")
        entropy, _ = _slice(model.entropy, case.affine, index, case, "entropy")
        left.imshow(image, **gray)
        _outline(left, prediction)
        right.imshow(entropy, cmap=style.ENTROPY_COLOURMAP, vmin=0, vmax=limit, aspect=aspect)
        _outline(right, prediction, colour="white")
    for ax in row:
        ax.set(xticks=[], yticks=[])
        for spine in ax.spines.values():
            spine.set_visible(False)


def _fullest_slice(case: CaseView) -> int:
    """Index along the axis across the slices, in canonical orientation."""
    labelled = _canonical(case.label, case.affine) > 0
    return int(np.argmax(labelled.sum(axis=_in_plane(labelled.shape))))


def _in_plane(shape: tuple[int, ...]) -> tuple[int, int]:
    """The axes of a picture: those of an axial slice, or of the only slice there is."""
    across = next((axis for axis in (2, 0, 1) if shape[axis] == 1), 2)
    first, second = (axis for axis in range(3) if axis != across)
    return first, second


def _canonical(volume: NDArray[Any], affine: NDArray[np.float64]) -> NDArray[Any]:
    from nibabel.orientations import apply_orientation, io_orientation

    return np.asarray(apply_orientation(volume, io_orientation(affine)))  # type: ignore[no-untyped-call]


def _slice(
    volume: NDArray[Any], affine: NDArray[np.float64], index: int, case: CaseView, what: str
) -> tuple[NDArray[Any], float]:
    """A slice as a picture; an axial one has rows anterior to posterior, columns right to left."""
    from nibabel.affines import voxel_sizes
    from nibabel.orientations import io_orientation

    if volume.shape != case.image.shape:
        raise ValueError(
            f"{what} of {case.title} must have the image's shape {case.image.shape}, got "
            f"{volume.shape}"
        )
    order = np.argsort(io_orientation(affine)[:, 0])  # type: ignore[no-untyped-call]
    sizes = voxel_sizes(affine)[order]  # type: ignore[no-untyped-call]
    turned = _canonical(volume, affine)
    first, second = _in_plane(turned.shape)
    plane = np.take(turned, index, axis=3 - first - second)
    return plane[::-1, ::-1].T, float(sizes[second] / sizes[first])


def _outline(ax: Axes, label: NDArray[np.integer], colour: str | None = None) -> None:
    # A padded border closes the outline of a segment that touches the edge of the picture.
    rows, columns = (np.arange(-1, n + 1) for n in label.shape)
    padded = np.pad(label, 1)
    limits = ax.get_xlim(), ax.get_ylim()
    for value in np.unique(label[label > 0]):
        ax.contour(
            columns,
            rows,
            padded == value,
            levels=[0.5],
            colors=[colour or style.segment_colour(int(value))],
            linewidths=1.0 if colour else 1.6,
        )
    ax.set(xlim=limits[0], ylim=limits[1])


def _legend(figure: Figure, structures: Mapping[int, str]) -> None:
    from matplotlib.lines import Line2D

    lines = [
        Line2D([], [], color=style.segment_colour(value), lw=2.5, label=name)
        for value, name in structures.items()
    ]
    figure.legend(handles=lines, loc="outside lower left", ncols=max(1, len(lines)))
