"""Pictures of cases: where voxels are drawn, which slice comes first, what colours stand for."""

from __future__ import annotations

import base64
import io
from dataclasses import replace

import numpy as np
import pytest

from fastcal.report.slices import Layers, pictures

# --- pictures -------------------------------------------------------------------------------------


def decoded(uri: str) -> np.ndarray:
    from PIL import Image

    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))))


def test_the_patients_left_front_is_drawn_at_the_top_right() -> None:
    label = np.zeros((6, 8, 4), np.uint8)
    label[0, 7, 2] = 1  # left in LPS, right in RAS
    for signs, column in (((1, 1), "right"), ((-1, -1), "left")):
        affine = np.diag([*signs, 1.0, 1.0])
        found = pictures(Layers(None, label, affine, {}, {}), top_entropy=1, most=9)
        sprite = decoded(found.layers["reference"])
        rows = sprite.shape[0] // len(found.numbers)
        shown = sprite[found.first * rows : (found.first + 1) * rows]
        row, place = np.argwhere(shown > 0)[0]
        # RAS: x = 0 is the patient's left-most... right-most voxel lies on the picture's right.
        assert (place > shown.shape[1] / 2) == (column == "right")
        assert (row < rows / 2) == (signs[1] == 1)
    assert found.plane == "axial"


def test_errors_are_missed_added_or_confused_and_the_worst_slice_is_first() -> None:
    reference, prediction = np.zeros((2, 10, 10, 5), np.uint8)
    reference[2:5, 2:5, 1] = 1
    reference[2:5, 2:5, 3] = 2
    prediction[2:5, 2:5, 3] = 1
    prediction[7, 7, 3] = 2
    layers = Layers(None, reference, np.eye(4), {"m": prediction}, {})
    found = pictures(layers, top_entropy=1, most=9)
    assert found.numbers[found.first] == 4
    assert found.total == 5
    sprite = decoded(found.layers["error 0"])
    assert [int((sprite == kind).sum()) for kind in (1, 2, 3)] == [9, 1, 9]
    kept = reference != 2
    ignored = pictures(replace(layers, kept=kept), top_entropy=1, most=9)
    assert int((decoded(ignored.layers["error 0"]) == 3).sum()) == 0


@pytest.mark.parametrize("across", [0, 1, 2])
def test_a_single_slice_is_drawn_in_its_plane(across: int) -> None:
    shape = [12, 10, 8]
    shape[across] = 1
    label = np.ones(shape, np.uint8)
    affine = np.diag([1.0, 2.0, 3.0, 1.0])
    found = pictures(Layers(label * 1.0, label, affine, {}, {}), top_entropy=1, most=3)
    first, second = (k for k in range(3) if k != across)
    sizes = (1.0, 2.0, 3.0)
    assert found.plane == ("sagittal", "coronal", "axial")[across]
    assert found.aspect == pytest.approx(
        shape[first] * sizes[first] / (shape[second] * sizes[second])
    )
    assert decoded(found.layers["image"]).shape[:2] == (shape[second], shape[first])


def test_entropy_is_drawn_from_nothing_to_its_largest_value() -> None:
    label = np.ones((9, 9, 1), np.uint8)
    entropy = np.linspace(0, 1, 81).reshape(9, 9, 1)
    found = pictures(
        Layers(None, label, np.eye(4), {"m": label}, {"m": entropy}), top_entropy=1.0, most=1
    )
    levels = decoded(found.layers["entropy 0"])
    assert (levels.min(), levels.max()) == (0, 255)
    assert np.array_equal(levels[::-1, ::-1].T, (255 * entropy[..., 0]).astype(np.uint8))
