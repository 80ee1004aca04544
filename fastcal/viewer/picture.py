"""The picture of a case that ``fastcal view --png`` writes: three planes, drawn from the arrays."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fastcal.core.atomic import atomic_path
from fastcal.report import style
from fastcal.viewer.landmarks import first_voxel
from fastcal.viewer.layers import Layer, ShownCase, Voxel

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLUMN, _TALLEST = 2.6, 3.4
"""Inches: width of a column, and height of a row at most."""

_PLANES = (("Axial", 2), ("Coronal", 1), ("Sagittal", 0))
_LETTERS = {"Axial": "RLAP", "Coronal": "RLSI", "Sagittal": "PASI"}
"""What lies left, right, up and down, as radiologists hang it."""


def write_png(path: str | Path, case: ShownCase, voxel: Voxel | None = None) -> Path:
    """Draw a case in three planes and write it as PNG, whole or not at all.

    Args:
        path: The file to write.
        case: What is drawn.
        voxel: Where the planes cross; by default where the viewer opens the case, see
            `fastcal.viewer.landmarks.first_voxel`.

    Returns:
        The file written.

    Raises:
        DataError: A file of the case cannot be read.
        ImportError: matplotlib is not installed.
        OSError: The file cannot be written.
    """
    path = Path(path)
    picture = style.png_bytes(case_picture(case, voxel))
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary:
        temporary.write_bytes(picture)
    return path


def case_picture(case: ShownCase, voxel: Voxel | None = None) -> Figure:
    """Draw a case, with a row for each plane; see `write_png`.

    The columns are image, prediction, reference, uncertainty over the image, and error, as far as
    the case has them.
    """
    try:
        import matplotlib as mpl
    except ImportError as error:
        raise ImportError("a picture needs matplotlib: pip install 'fastcal[view]'") from error

    del mpl
    at = first_voxel(case) if voxel is None else voxel
    columns = _columns(case)
    planes = [one for one in _PLANES if _is_a_plane(case, one[1])]
    heights = [_height(case, across) for _, across in planes]
    with style.house_style():
        figure = style.new_figure(_COLUMN * len(columns) + 0.6, sum(heights) + 1.2)
        axes = figure.subplots(len(planes), len(columns), squeeze=False, height_ratios=heights)
        for ax, (title, _) in zip(axes[0], columns, strict=True):
            ax.set_title(title, fontsize=11)
        for (name, across), row in zip(planes, axes, strict=True):
            for ax, (_, layers) in zip(row, columns, strict=True):
                _draw(ax, case, layers, across, at[across])
                _mark(ax, _LETTERS[name])
            index = case.frame.in_file(at)[_file_axis(case, across)]
            row[0].set_ylabel(f"{name}, slice {index}", fontsize=10)
        _scale_bar(figure, axes, case, columns)
        _legend(figure, case)
        figure.suptitle(case.name, fontsize=12, x=0.01, ha="left")
    return figure


def _columns(case: ShownCase) -> list[tuple[str, tuple[Layer, ...]]]:
    image = case.of_kind("image")[0]
    columns: list[tuple[str, tuple[Layer, ...]]] = [(image.title, (image,))]
    columns += [(layer.title, (image, layer)) for layer in case.of_kind("labels")]
    if case.uncertainty is not None:
        columns.append((case.uncertainty.title, (image, case.uncertainty)))
    columns += [(layer.title, (image, layer)) for layer in case.of_kind("error")]
    return columns


def _is_a_plane(case: ShownCase, across: int) -> bool:
    """Whether a plane is more than a line of voxels; one always is the first."""
    extents = [n for axis, n in enumerate(case.frame.turned_shape) if axis != across]
    flat = [axis for axis, n in enumerate(case.frame.turned_shape) if n == 1]
    return across == flat[0] if flat else min(extents) > 1


def _height(case: ShownCase, across: int) -> float:
    first, second = (axis for axis in range(3) if axis != across)
    size = [n * step for n, step in zip(case.frame.turned_shape, case.frame.spacing, strict=True)]
    return min(_TALLEST, max(0.4, _COLUMN * size[second] / size[first]))


def _plane(voxels: NDArray[Any], across: int, index: int) -> NDArray[Any]:
    """A slice as a picture: rows from the top; the patient's right on the left, or nose right."""
    plane = np.take(voxels, index, axis=across)
    picture: NDArray[Any] = (plane[::-1, ::-1] if across else plane[:, ::-1]).T
    return picture


def _draw(ax: Axes, case: ShownCase, layers: tuple[Layer, ...], across: int, index: int) -> None:
    from matplotlib.colors import ListedColormap

    first, second = (axis for axis in range(3) if axis != across)
    aspect = case.frame.spacing[second] / case.frame.spacing[first]
    for layer in layers:
        plane = _plane(layer.voxels, across, index)
        low, high = layer.scale
        if layer.kind == "image":
            ax.imshow(plane, cmap="gray", vmin=low, vmax=high, aspect=aspect)
        elif layer.kind == "map":
            clear = np.clip(plane / high / 0.3, 0, 1) * 0.9  # the image shows where nothing is
            alpha = np.where(np.isfinite(plane), clear, 0.0)
            ax.imshow(
                plane, cmap=style.ENTROPY_COLOURMAP, vmin=0, vmax=high, alpha=alpha, aspect=aspect
            )
        else:
            values = sorted(layer.names) or [1]
            colours = ListedColormap([layer.colour(value) for value in values])
            numbers = np.searchsorted(values, plane) + 1
            shown = np.ma.masked_where(~np.isin(plane, values), numbers)
            ax.imshow(
                shown,
                cmap=colours,
                vmin=0.5,
                vmax=len(values) + 0.5,
                alpha=0.55 if layer.kind == "labels" else 0.9,
                aspect=aspect,
                interpolation="nearest",
            )
    ax.set(xticks=[], yticks=[])
    for spine in ax.spines.values():
        spine.set_visible(False)


def _mark(ax: Axes, letters: str) -> None:
    from matplotlib.patheffects import withStroke

    places = ((0.02, 0.5), (0.98, 0.5), (0.5, 0.98), (0.5, 0.02))
    sides = (("left", "center"), ("right", "center"), ("center", "top"), ("center", "bottom"))
    for letter, (x, y), (across, along) in zip(letters, places, sides, strict=True):
        ax.text(
            *(x, y, letter),
            transform=ax.transAxes,
            ha=across,
            va=along,
            color="white",
            fontsize=8,
            path_effects=[withStroke(linewidth=1.5, foreground="black")],
        )


def _file_axis(case: ShownCase, across: int) -> int:
    return next(n for n, (axis, _) in enumerate(case.frame.axes) if axis == across)


def _scale_bar(
    figure: Figure, axes: Any, case: ShownCase, columns: list[tuple[str, tuple[Layer, ...]]]
) -> None:
    layer = case.uncertainty
    if layer is None:
        return
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    column = next(n for n, (_, layers) in enumerate(columns) if layers[-1] is layer)
    scale = ScalarMappable(Normalize(*layer.scale), style.ENTROPY_COLOURMAP)
    unit = f" ({layer.unit})" if layer.unit else ""
    bar = figure.colorbar(
        scale, ax=axes[:, column], location="bottom", shrink=0.9, label=f"{layer.title}{unit}"
    )
    bar.outline.set_visible(False)


def _legend(figure: Figure, case: ShownCase) -> None:
    from matplotlib.patches import Patch

    layers = [*case.of_kind("labels")[:1], *case.of_kind("error")]
    patches = [
        Patch(color=layer.colour(value), label=name)
        for layer in layers
        for value, name in sorted(layer.names.items())
    ]
    if patches:
        figure.legend(handles=patches, loc="outside lower left", ncols=min(6, len(patches)))
