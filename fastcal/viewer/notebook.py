"""`fastcal.view`: a case in a notebook, as a page that holds everything it shows."""

from __future__ import annotations

import base64
import gzip
import html
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastcal import EnsembleStatistics
from fastcal.core.arguments import whole_number
from fastcal.core.arrays import Array, Floats
from fastcal.core.atomic import write_text
from fastcal.core.problem import MAPS
from fastcal.data import images
from fastcal.data.orientation import regular_affine
from fastcal.viewer.folder import Row, ViewedFolder
from fastcal.viewer.landmarks import landmarks
from fastcal.viewer.layers import (
    Frame,
    Layer,
    ShownCase,
    Voxel,
    error_layer,
    map_layer,
    probability_layer,
)
from fastcal.viewer.page import whole_page
from fastcal.viewer.payload import case_payload, row_payload, volume_bytes
from fastcal.viewer.picture import write_png


class View:
    """A case to look at. At the end of a notebook's cell it is shown.

    Args:
        case: What is shown.
    """

    def __init__(self, case: ShownCase) -> None:
        self.case = case

    def __repr__(self) -> str:
        layers = ", ".join(layer.title for layer in self.case.layers)
        return f"View of {self.case.name}: {layers}"

    def _repr_html_(self) -> str:
        page = html.escape(self._page(), quote=True)
        return (
            f'<iframe srcdoc="{page}" title="{html.escape(self.case.name)}" '
            'style="width: 100%; height: 560px; border: 0"></iframe>'
        )

    def save(self, path: str | Path) -> Path:
        """Write one HTML file that holds everything and needs no server.

        Args:
            path: The file to write, whole or not at all.

        Raises:
            ImportError: nilearn, which carries NiiVue, is not installed.
            OSError: The file cannot be written.
        """
        write_text(path, self._page())
        return Path(path)

    def png(self, path: str | Path, voxel: Voxel | None = None) -> Path:
        """Draw the three planes as PNG, without a browser; see `fastcal.viewer.write_png`.

        Raises:
            ImportError: matplotlib is not installed.
            OSError: The file cannot be written.
        """
        return write_png(path, self.case, voxel)

    def _page(self) -> str:
        case = self.case
        row = Row(case.name, float("nan"), float("nan"))
        volumes = {
            layer.key: base64.b64encode(
                gzip.compress(volume_bytes(case, layer), 6, mtime=0)
            ).decode()
            for layer in case.layers
        }
        return whole_page(
            {
                "cases": {
                    "title": case.name,
                    "chosen": case.name,
                    "dice": False,
                    "rows": [row_payload(row)],
                },
                "case": case_payload(case, landmarks(case)),
                "volumes": volumes,
            }
        )


def view(
    result: EnsembleStatistics | str | Path,
    image: Array | str | Path,
    *,
    reference: Array | str | Path | None = None,
    affine: ArrayLike | None = None,
    names: Sequence[str] | None = None,
    item: int = 0,
    case: str | None = None,
) -> View:
    """Show the maps of a case over its image in three linked planes.

    Args:
        result: Maps of a batch, ``[B, *S]`` each, with ``*S`` = (X, Y, Z) or (X, Y); or a
            prediction folder.
        image: ``[X, Y, Z]``, ``[Ch, *S]`` or ``[B, Ch, *S]``, or the file of an image. A MONAI
            ``MetaTensor`` brings its affine. For a prediction folder, the folder of its images.
        reference: Labels ``[*S]`` or ``[B, *S]``, or the file of a label map; for a prediction
            folder, the folder of label maps.
        affine: Voxel index to RAS mm, ``[4, 4]``; by default that of the image, or else voxels of
            1 mm.
        names: Names of the classes, the background's in front.
        item: Which item of the batch.
        case: Name of the case. Of a prediction folder it is the case to show, by default the most
            uncertain.

    Returns:
        A `View`, which notebooks show. ``.save("case.html")`` and ``.png("case.png")`` write it.

    Raises:
        DataError: A file cannot be read, or does not fit.
        ImportError: The extra ``fastcal[view]`` is not installed; raised when the view is drawn.
        TypeError, ValueError: An argument does not fit. The message names it.

    Example:
        >>> import torch, fastcal
        >>> members = torch.randn(3, 1, 2, 8, 8, 8)
        >>> result = fastcal.ensemble_statistics(members, maps=("label", "entropy"))
        >>> fastcal.view(result, torch.randn(8, 8, 8), case="noise")
        View of noise: Image, Prediction, Entropy
    """
    if isinstance(result, str | Path):
        return _of_folder(result, image, reference, case)
    if not isinstance(result, EnsembleStatistics):
        raise TypeError(
            f"result must be an EnsembleStatistics or a folder, got {type(result).__name__}"
        )
    maps = _maps(result, whole_number(item, "item"))
    shape = next(iter(maps.values())).shape[-3:]
    channels, own = _image(image, item, shape)
    chosen = own if affine is None else affine
    try:
        frame = Frame(np.eye(4) if chosen is None else regular_affine(chosen), shape)
    except ValueError as error:
        raise ValueError(f"affine must be a regular matrix [4, 4], got {error}") from error
    layers = [
        _layer(f"image/{n}", "Image" if len(channels) == 1 else f"Channel {n}", one, frame)
        for n, one in enumerate(channels)
    ]
    layers += _results(maps, names, frame)
    if reference is not None:
        prediction = next((one for one in layers if one.key == "prediction"), None)
        labels = _labels(reference, item, shape)
        true = Layer(
            "reference",
            "Reference",
            "labels",
            lambda: frame.voxels(labels),
            names=_names(labels, names),
        )
        layers += [true] if prediction is None else [true, error_layer(prediction, true)]
    return View(ShownCase(case or "case", frame, tuple(layers)))


def _of_folder(
    out: str | Path,
    image: Array | str | Path,
    reference: Array | str | Path | None,
    case: str | None,
) -> View:
    for name, value in (("image", image), ("reference", reference)):
        if value is not None and not isinstance(value, str | Path):
            raise TypeError(
                f"{name} must be a folder, as result is one, got {type(value).__name__}"
            )
    folder = ViewedFolder(out, str(image), None if reference is None else str(reference))
    return View(folder.open(folder.rows[0].case if case is None else case))


def _maps(result: EnsembleStatistics, item: int) -> dict[str, NDArray[Any]]:
    """The maps of one item ``[X, Y, Z]`` or ``[C, X, Y, Z]``, by name."""
    found = {}
    for name in MAPS:
        values = getattr(result, name, None)
        if values is None:
            continue
        array = _numpy(values)
        if not 0 <= item < len(array):
            raise ValueError(f"item must be in [0, {len(array)}), got {item}")
        found[name] = array[item]
    if not found:
        raise ValueError("result must hold at least one map, got none")
    spatial = {
        array.shape[1:] if name == "mean" else array.shape
        for name, array in found.items()
        if name not in ("label", "confidence")
    }
    shape = next(iter(spatial), None) or next(iter(found.values())).shape
    if len(shape) not in (2, 3):
        raise ValueError(f"result must hold maps of 2 or 3 axes of space, got shape {shape}")
    return {
        name: array.reshape(
            *array.shape[: array.ndim - len(shape)], *shape, *[1] * (3 - len(shape))
        )
        for name, array in found.items()
    }


def _results(
    maps: dict[str, NDArray[Any]], names: Sequence[str] | None, frame: Frame
) -> list[Layer]:
    layers = []
    mean = maps.get("mean")
    label = maps.get("label")
    if label is None and mean is not None:
        label = mean.argmax(0)
    groups = 0 if label is None or label.ndim != 4 else len(label)
    if label is not None and groups:  # multilabel: later classes over earlier ones
        painted = np.zeros(label.shape[1:], np.int64)
        for channel, mask in enumerate(label, start=1):
            painted[mask > 0] = channel
        label = painted
        names = None if names is None else ["background", *names]
    if label is not None:
        shown = np.maximum(label, 0)  # -1 where there was no valid probability
        layers.append(
            Layer(
                "prediction",
                "Prediction",
                "labels",
                lambda: frame.voxels(shown),
                names=_names(shown, names),
            )
        )
    classes = groups or 2 if mean is None else len(mean)
    if mean is None and label is not None and not groups:
        classes = max(2, int(label.max(initial=1)) + 1, len(names or ()))
    for name, values in maps.items():
        if name not in ("mean", "label") and values.ndim == 3:
            layers.append(map_layer(name, _reader(values, frame), classes, multilabel=groups > 0))
    for channel, values in enumerate(() if mean is None else mean):
        title = names[channel] if names and channel < len(names) else f"class {channel}"
        layers.append(probability_layer(channel, title, _reader(values, frame), key="mean"))
    return layers


def _layer(key: str, title: str, values: NDArray[Any], frame: Frame) -> Layer:
    return Layer(key, title, "image", _reader(values, frame))


def _reader(values: NDArray[Any], frame: Frame) -> Any:
    return lambda: frame.voxels(values.astype(np.float32))


def _names(labels: NDArray[Any], names: Sequence[str] | None) -> dict[int, str]:
    if names is not None:
        return {value: str(name) for value, name in enumerate(names) if value > 0}
    return {int(value): f"label {value}" for value in np.unique(labels) if value > 0}


def _image(
    image: Array | str | Path, item: int, shape: tuple[int, ...]
) -> tuple[list[NDArray[Any]], Floats | None]:
    """The channels ``[X, Y, Z]`` of an image, and its affine where it has one."""
    if isinstance(image, str | Path):
        volume = images.read(image)
        data = np.moveaxis(volume.data, 3, 0) if volume.data.ndim == 4 else volume.data[None]
        own: Any = volume.affine
    else:
        data = _numpy(image)
        own = getattr(image, "affine", None)
        own = None if own is None else _numpy(own)
        own = own[item] if own is not None and own.ndim == 3 else own
        data = _channels(data, item, shape, "image")
    if data.shape[1:] != shape:
        raise ValueError(
            f"image must have the spatial shape of the maps, {shape}, got {data.shape[1:]}"
        )
    return list(data), own


def _labels(reference: Array | str | Path, item: int, shape: tuple[int, ...]) -> NDArray[Any]:
    if isinstance(reference, str | Path):
        data = images.read(reference).data[None]
    else:
        data = _numpy(reference)
        if data.ndim == len(_flat(data, shape)) + 1 and len(data) > 1:  # a batch: no channels here
            data = data[:, None]
        data = _channels(data, item, shape, "reference")
    if len(data) != 1 or data.shape[1:] != shape:
        raise ValueError(
            f"reference must be one label map of the shape of the maps, {shape}, got {data.shape}"
        )
    labels: NDArray[Any] = np.rint(data[0]).astype(np.int64)
    return labels


def _channels(data: NDArray[Any], item: int, shape: tuple[int, ...], name: str) -> NDArray[Any]:
    """Give ``[Ch, X, Y, Z]`` of ``[*S]``, ``[Ch, *S]`` or ``[B, Ch, *S]``."""
    flat = _flat(data, shape)
    leading = data.ndim - len(flat)
    if leading < 0 or leading > 2 or data.shape[leading:] != flat:
        raise ValueError(
            f"{name} must have the spatial shape of the maps, {flat}, got {data.shape}"
        )
    if leading == 2:
        if item >= len(data):
            raise ValueError(f"{name} must hold item {item} of the batch, got {len(data)} items")
        data = data[item]
    elif leading == 0:
        data = data[None]
    return data.reshape(len(data), *shape)


def _flat(data: NDArray[Any], shape: tuple[int, ...]) -> tuple[int, ...]:
    """The spatial shape as an array has it: a single slice may lack its third axis."""
    return shape[:2] if shape[2] == 1 and data.shape[-3:] != shape else shape


def _numpy(values: Any) -> NDArray[Any]:
    detach = getattr(values, "detach", None)
    array: NDArray[Any] = np.asarray(values if detach is None else detach().cpu().float())
    return array
