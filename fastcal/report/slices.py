"""Pictures of a case: every slice of its image, labels, entropy and error, as layers of sprites.

A sprite holds the slices of one layer one below the other. The page puts layers on top of each
other and shows one slice of each, so that a layer is in the file only once.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastcal.report import style

WIDEST = 256
"""Pixels of a picture along its longer side; larger slices are thinned out."""
_TALLEST = 16_000
"""Pixels of a sprite along its height: WebP has at most 16383."""
_MARGIN = 0.25
"""Of the box around all labels, on each side."""
_LEAST = 8
"""Pixels of margin."""
MISSED, ADDED, CONFUSED = "#ff4d4d", "#33c9ff", "#ffffff"
"""Errors: a structure that was missed, one that was added, one taken for another."""
_RAMP = ((0, "#3b0f70"), (90, "#b5367a"), (170, "#f97b4f"), (255, "#fcfdbf"))
"""Colours of the entropy between its level 0 and 255, after matplotlib's magma."""


@dataclass(frozen=True)
class Layers:
    """What the pictures of a case are made from: volumes ``[X, Y, Z]`` on one grid."""

    image: NDArray[Any] | None
    reference: NDArray[Any]
    affine: NDArray[np.float64]
    """Voxel indices to millimetres (RAS+), ``[4, 4]``."""
    predictions: Mapping[str, NDArray[Any]]
    """Labels by the title of a model."""
    entropies: Mapping[str, NDArray[Any]]
    """In nats, by the title of a model; some may lack."""
    kept: NDArray[np.bool_] | None = None
    """Voxels that count; None for all."""


@dataclass(frozen=True)
class CasePictures:
    """The sprites of a case."""

    layers: Mapping[str, str]
    """Data URIs: ``"image"``, ``"reference"``, and of each model by its number ``"prediction 0"``,
    ``"entropy 0"``, ``"error 0"``."""
    numbers: tuple[int, ...]
    """Number of each slice in the volume, from 1."""
    first: int
    """Position of the slice that is shown first: the one with the most errors."""
    aspect: float
    """Width by height, in millimetres."""
    plane: str
    """``"axial"``, ``"sagittal"`` or ``"coronal"``."""
    total: int
    """Slices of the volume."""

    @property
    def size(self) -> int:
        """Bytes of the data URIs."""
        return sum(map(len, self.layers.values()))


def pictures(layers: Layers, *, top_entropy: float, most: int) -> CasePictures:
    """Draw a case.

    Axial slices are drawn the radiological way, with the patient's left on the right and anterior
    up; a case that is one sagittal or coronal slice is drawn superior up.

    Args:
        layers: The volumes.
        top_entropy: Nats of the strongest colour.
        most: Largest number of slices; more are thinned out.

    Raises:
        ImportError: Pillow is not installed (the ``report`` extra has it).
        ValueError: The volumes differ in shape, or ``most`` is below 1.

    Example:
        >>> labels = np.zeros((8, 8, 4), np.uint8)
        >>> labels[2:6, 2:6, 1:3] = 1
        >>> case = Layers(None, labels, np.eye(4), {"A": np.zeros_like(labels)}, {})
        >>> found = pictures(case, top_entropy=0.7, most=4)
        >>> found.plane, found.total, len(found.numbers)
        ('axial', 4, 4)
    """
    if most < 1:
        raise ValueError(f"most must be at least 1, got {most}")
    stacks = _Stacks.of(layers)
    error = stacks.errors()
    chosen, first = _slices(stacks, error, most)
    cut = (chosen, *stacks.window)
    drawn: dict[str, str] = {}
    if stacks.image is not None:
        drawn["image"] = _grey(stacks.image, cut)
    colours = _label_palette(_highest(stacks))
    drawn["reference"] = _indexed(_outlined(_cut(stacks.reference, cut)), colours)
    for number, (title, labels) in enumerate(stacks.predictions.items()):
        drawn[f"prediction {number}"] = _indexed(_outlined(_cut(labels, cut)), colours)
        drawn[f"error {number}"] = _indexed(_cut(error[title], cut), _ERROR_PALETTE)
        if title in stacks.entropies:
            levels = _cut(stacks.entropies[title], cut) / max(top_entropy, 1e-9)
            scaled = np.nan_to_num(np.clip(255 * levels, 0, 255)).astype(np.uint8)
            drawn[f"entropy {number}"] = _indexed(scaled, _entropy_palette())
    height, width = (len(range(*part.indices(size))) for part, size in
                     zip(stacks.window, stacks.reference.shape[1:], strict=True))  # fmt: skip
    return CasePictures(
        drawn,
        tuple(int(number) + 1 for number in chosen),
        first,
        stacks.pixel * width / height,
        stacks.plane,
        len(stacks.reference),
    )


@dataclass(frozen=True)
class _Stacks:
    """Volumes as stacks of pictures ``[slices, rows, columns]``, and what is cut out of them."""

    image: NDArray[Any] | None
    reference: NDArray[Any]
    predictions: dict[str, NDArray[Any]]
    entropies: dict[str, NDArray[Any]]
    kept: NDArray[np.bool_] | None
    pixel: float
    """Width of a pixel by its height."""
    plane: str
    window: tuple[slice, slice]

    @classmethod
    def of(cls, layers: Layers) -> _Stacks:
        turn = _Turn.of(layers.affine, layers.reference.shape)
        given = [
            layers.image,
            layers.kept,
            *layers.predictions.values(),
            *layers.entropies.values(),
        ]
        for volume in given:
            if volume is not None and volume.shape != layers.reference.shape:
                raise ValueError(
                    f"volumes of a case must have the shape {layers.reference.shape} of the "
                    f"reference, got {volume.shape}"
                )
        reference = turn.stack(layers.reference)
        predictions = {name: turn.stack(one) for name, one in layers.predictions.items()}
        return cls(
            None if layers.image is None else turn.stack(layers.image),
            reference,
            predictions,
            {name: turn.stack(one) for name, one in layers.entropies.items()},
            None if layers.kept is None else turn.stack(layers.kept),
            turn.pixel,
            turn.plane,
            _window(reference, list(predictions.values())),
        )

    def errors(self) -> dict[str, NDArray[np.uint8]]:
        """Where labels differ: 1 missed, 2 added, 3 one structure taken for another."""
        found = {}
        for title, labels in self.predictions.items():
            wrong = labels != self.reference
            if self.kept is not None:
                wrong &= self.kept
            kinds = np.where(labels == 0, 1, np.where(self.reference == 0, 2, 3))
            found[title] = np.where(wrong, kinds, 0).astype(np.uint8)
        return found


@dataclass(frozen=True)
class _Turn:
    """How a volume becomes a stack of pictures."""

    orientation: NDArray[np.float64]
    across: int
    pixel: float
    plane: str

    @classmethod
    def of(cls, affine: NDArray[np.float64], shape: tuple[int, ...]) -> _Turn:
        from nibabel.affines import voxel_sizes
        from nibabel.orientations import io_orientation

        orientation = io_orientation(affine)  # type: ignore[no-untyped-call]
        order = np.argsort(orientation[:, 0])
        turned = [shape[axis] for axis in order]
        across = next((axis for axis in (2, 0, 1) if turned[axis] == 1), 2)
        first, second = (axis for axis in range(3) if axis != across)
        sizes = voxel_sizes(affine)[order]  # type: ignore[no-untyped-call]
        plane = ("sagittal", "coronal", "axial")[across]
        return cls(orientation, across, float(sizes[first] / sizes[second]), plane)

    def stack(self, volume: NDArray[Any]) -> NDArray[Any]:
        from nibabel.orientations import apply_orientation

        turned = apply_orientation(volume, self.orientation)  # type: ignore[no-untyped-call]
        planes = np.moveaxis(np.asarray(turned), self.across, 0)
        # Rows from anterior (or superior) down, columns from the patient's right.
        return planes[:, ::-1, ::-1].transpose(0, 2, 1)


def _window(reference: NDArray[Any], predictions: Sequence[NDArray[Any]]) -> tuple[slice, slice]:
    """Rows and columns of the box around all labels, with a margin, thinned to `WIDEST`."""
    labelled = (reference > 0).any(0)
    for one in predictions:
        labelled |= (one > 0).any(0)
    ranges = []
    for axis, size in ((1, labelled.shape[0]), (0, labelled.shape[1])):
        places = np.flatnonzero(labelled.any(axis))
        low, high = (0, size) if places.size == 0 else (int(places[0]), int(places[-1]) + 1)
        margin = max(_LEAST, round(_MARGIN * (high - low)))
        ranges.append((max(0, low - margin), min(size, high + margin)))
    step = max(1, -(-max(high - low for low, high in ranges) // WIDEST))
    rows, columns = (slice(low, high, step) for low, high in ranges)
    return rows, columns


def _slices(
    stacks: _Stacks, error: Mapping[str, NDArray[np.uint8]], most: int
) -> tuple[NDArray[np.int64], int]:
    """Return the slices that are drawn, and the place among them of the one shown first."""
    labelled = (stacks.reference > 0).any((1, 2))
    for one in stacks.predictions.values():
        labelled |= (one > 0).any((1, 2))
    places = np.flatnonzero(labelled)
    last = len(labelled) - 1
    low, high = (0, last) if places.size == 0 else (places[0], places[-1])
    inside = np.arange(max(0, low - 1), min(last, high + 1) + 1)
    worth = sum(((one > 0).sum((1, 2)) for one in error.values()), np.zeros(last + 1, np.int64))
    if not worth.any():
        worth = (stacks.reference > 0).sum((1, 2))
    best = int(np.argmax(worth))
    rows = len(range(*stacks.window[0].indices(stacks.reference.shape[1])))
    most = min(most, max(1, _TALLEST // max(rows, 1)))
    if len(inside) > most:
        even = inside[np.linspace(0, len(inside) - 1, most).round().astype(int)]
        # The slice that is shown first takes the place of its neighbour.
        even[int(np.argmin(np.abs(even - best)))] = best
        inside = np.unique(even)
    return inside.astype(np.int64), int(np.argmin(np.abs(inside - best)))


def _cut(stack: NDArray[Any], cut: tuple[NDArray[np.int64], slice, slice]) -> NDArray[Any]:
    chosen, rows, columns = cut
    return stack[chosen][:, rows, columns]


def _highest(stacks: _Stacks) -> int:
    return max(int(one.max(initial=0)) for one in (stacks.reference, *stacks.predictions.values()))


def _outlined(labels: NDArray[Any]) -> NDArray[np.uint8]:
    """Return ``2 label - 1`` inside a segment and ``2 label`` on its edge, 0 elsewhere."""
    small = np.minimum(labels, 127).astype(np.uint8)
    padded = np.pad(small, ((0, 0), (1, 1), (1, 1)))
    edge = np.zeros(small.shape, bool)
    for rows, columns in ((0, 1), (2, 1), (1, 0), (1, 2)):
        size = small.shape
        edge |= padded[:, rows : rows + size[1], columns : columns + size[2]] != small
    return np.where(small > 0, 2 * small - 1 + edge, 0).astype(np.uint8)


Palette = tuple[bytes, bytes]
"""Colours, three bytes each, and their opacities."""


def _label_palette(highest: int) -> Palette:
    colours, opacities = bytearray(3), bytearray(1)
    for label in range(1, min(highest, 127) + 1):
        for opacity in (95, 255):
            colours += bytes.fromhex(style.segment_colour(label)[1:])
            opacities.append(opacity)
    return bytes(colours), bytes(opacities)


_ERROR_PALETTE: Palette = (
    bytes(3) + b"".join(bytes.fromhex(one[1:]) for one in (MISSED, ADDED, CONFUSED)),
    bytes((0, 220, 220, 220)),
)


def _entropy_palette() -> Palette:
    places = [place for place, _ in _RAMP]
    anchors = np.array([list(bytes.fromhex(colour[1:])) for _, colour in _RAMP])
    levels = np.arange(256)
    colours = np.stack([np.interp(levels, places, one) for one in anchors.T], 1).round()
    # Certain voxels show the image; from a tenth of the range on, the colour nearly covers it.
    opacities = np.clip(levels / 255 * 6, 0, 1) * 215
    return colours.astype(np.uint8).tobytes(), opacities.astype(np.uint8).tobytes()


def _indexed(stack: NDArray[np.uint8], palette: Palette) -> str:
    from PIL import Image

    picture = Image.fromarray(_sprite(stack))
    picture.putpalette(palette[0])
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", transparency=palette[1], compress_level=9)
    return _uri("image/png", buffer.getvalue())


def _grey(stack: NDArray[Any], cut: tuple[NDArray[np.int64], slice, slice]) -> str:
    from PIL import Image

    shown = np.nan_to_num(_cut(stack, cut).astype(np.float32))
    low, high = np.percentile(shown, (0.5, 99.5))
    scaled = np.clip(255 * (shown - low) / max(float(high - low), 1e-12), 0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(_sprite(scaled)).save(buffer, "WEBP", quality=88, method=4)
    return _uri("image/webp", buffer.getvalue())


def _sprite(stack: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.ascontiguousarray(stack.reshape(-1, stack.shape[2]))


def _uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"


def entropy_gradient() -> str:
    """Return the colours of the entropy as stops of a CSS gradient."""
    return ", ".join(f"{colour} {100 * place / 255:.0f}%" for place, colour in _RAMP)
