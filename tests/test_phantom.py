"""Phantoms: reproducible datasets of brains, hearts and prostates that look like MRI."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from fastcal.core.errors import DataError
from fastcal.data import Dataset, phantom
from fastcal.data.fields import blur, motion_ghosts, rician, smooth_field

CLASSES = {"brain": 4, "heart": 4, "prostate": 2}
CHANNELS = {"brain": 3, "heart": 1, "prostate": 1}


def test_the_kinds_are_those_of_the_paper() -> None:
    assert set(phantom.KINDS) == set(CLASSES)


@pytest.mark.parametrize("kind", CLASSES)
def test_a_dataset_is_valid_and_in_nnunets_layout(tmp_path: Path, kind: str) -> None:
    dataset = phantom.write_dataset(tmp_path / kind, kind=kind, n_cases=2, n_test=1, seed=3)
    assert dataset.num_classes == CLASSES[kind]
    assert len(dataset.channel_names) == CHANNELS[kind]
    assert [case.name for case in dataset.cases] == [f"{kind}_000", f"{kind}_001"]
    assert dataset.problems() == []
    assert sorted(p.name for p in (tmp_path / kind / "labelsTs").iterdir()) == [
        f"{kind}_002.nii.gz"
    ]
    assert len(list((tmp_path / kind / "imagesTs").iterdir())) == CHANNELS[kind]
    reopened = Dataset.open(tmp_path / kind)
    image, label, like = reopened.cases[1].load()
    assert image.shape == (CHANNELS[kind], 64, 64, 16)
    assert label is not None
    assert set(np.unique(label)) == set(range(CLASSES[kind]))
    assert like.affine[0, 1] != 0, "slices lie oblique in the scanner"
    assert nib.aff2axcodes(like.affine) == ("L", "P", "S")


@pytest.mark.parametrize("kind", CLASSES)
@pytest.mark.parametrize("ood", [False, True])
def test_a_case_depends_on_its_index_and_seed_alone(tmp_path: Path, kind: str, ood: bool) -> None:
    options = {"kind": kind, "seed": 5, "shape": (32, 32, 8), "ood": ood}
    few = phantom.write_dataset(tmp_path / "few", n_cases=2, **options)  # type: ignore[arg-type]
    many = phantom.write_dataset(tmp_path / "many", n_cases=3, **options)  # type: ignore[arg-type]
    for case in few.cases:
        for path in (*case.images, case.label):
            assert path is not None
            twin = many.folder / path.relative_to(few.folder)
            assert path.read_bytes() == twin.read_bytes()
    contents = [case.images[0].read_bytes() for case in many.cases]
    assert len(set(contents)) == 3
    other = phantom.make_case(kind=kind, seed=6, shape=(32, 32, 8), ood=ood)
    assert (other.image != many.cases[0].load()[0]).any()


@pytest.mark.parametrize("kind", CLASSES)
def test_spacing_is_as_asked(kind: str) -> None:
    case = phantom.make_case(kind=kind, shape=(24, 28, 6), spacing=(3.0, 2.5, 8.0))
    assert case.geometry.shape == (24, 28, 6)
    assert case.geometry.spacing == pytest.approx((3.0, 2.5, 8.0), abs=1e-5)


@pytest.mark.parametrize("kind", CLASSES)
def test_a_finer_matrix_shows_the_whole_organ_again(kind: str) -> None:
    """The default spacing keeps the field of view."""
    for shape in ((32, 32, 8), (96, 96, 24)):
        case = phantom.make_case(kind=kind, shape=shape)
        extents = np.array(shape) * case.geometry.spacing
        usual = np.array((64, 64, 16)) * phantom.make_case(kind=kind).geometry.spacing
        np.testing.assert_allclose(extents, usual, rtol=1e-4)


@pytest.mark.parametrize("kind", CLASSES)
def test_borders_have_partial_volume_and_an_observer_who_strays_from_them(kind: str) -> None:
    for index in range(3):
        case = phantom.make_case(kind=kind, index=index, seed=1)
        np.testing.assert_allclose(case.truth.sum(axis=0), 1.0, atol=1e-12)
        assert case.truth.min() >= 0.0
        mixed = (case.truth.max(axis=0) < 0.95).sum()
        organ = (case.truth[0] < 0.5).sum()
        assert 0.15 * organ < mixed < 3 * organ
        exact = case.truth.argmax(axis=0)
        for value in range(1, CLASSES[kind]):
            reference, drawn = exact == value, case.label == value
            if reference.sum() < 200:
                continue
            dice = 2 * (reference & drawn).sum() / (reference.sum() + drawn.sum())
            assert 0.6 < dice < 0.99
        far = (case.truth[0] > 0.999) & (case.label > 0)
        assert far.sum() < 0.1 * organ


@pytest.mark.parametrize("kind", CLASSES)
def test_size_and_contrast_vary_between_cases(kind: str) -> None:
    cases = [phantom.make_case(kind=kind, index=index) for index in range(6)]
    volumes = np.array([(case.label > 0).sum() for case in cases])
    assert volumes.max() > 1.2 * volumes.min()
    brightness = np.array([np.percentile(case.image[0], 99) for case in cases])
    assert brightness.max() > 1.3 * brightness.min()


@pytest.mark.parametrize("kind", CLASSES)
def test_out_of_distribution_cases_share_the_organ_but_not_its_looks(kind: str) -> None:
    inside = phantom.make_case(kind=kind, seed=2)
    outside = phantom.make_case(kind=kind, seed=2, ood=True)
    overlap = ((inside.label > 0) & (outside.label > 0)).sum() / (inside.label > 0).sum()
    assert overlap > 0.6
    one, other = (case.image[0].astype(float).ravel() for case in (inside, outside))
    body = (inside.image[0] > 0).ravel()
    assert np.corrcoef(one[body], other[body])[0, 1] < 0.9


def test_the_background_of_a_brain_is_zero_and_its_label_empty() -> None:
    case = phantom.make_case(kind="brain")
    empty = (case.image == 0).all(axis=0)
    assert empty.mean() > 0.3
    assert not case.label[empty].any()


def test_a_finished_dataset_is_not_overwritten(tmp_path: Path) -> None:
    phantom.write_dataset(tmp_path, kind="heart", n_cases=1, shape=(16, 16, 4))
    with pytest.raises(DataError, match="holds a dataset already"):
        phantom.write_dataset(tmp_path, kind="heart", n_cases=1)


def test_an_interrupted_dataset_is_written_again_to_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"kind": "prostate", "n_cases": 2, "shape": (16, 16, 4)}
    whole = phantom.write_dataset(tmp_path / "whole", **options)  # type: ignore[arg-type]

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as context:
        context.setattr(phantom.atomic, "write_json", killed)
        with pytest.raises(KeyboardInterrupt):
            phantom.write_dataset(tmp_path / "cut", **options)  # type: ignore[arg-type]
    again = phantom.write_dataset(tmp_path / "cut", **options)  # type: ignore[arg-type]
    for one, other in zip(whole.cases, again.cases, strict=True):
        assert one.images[0].read_bytes() == other.images[0].read_bytes()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"kind": "liver"}, "kind must be one of brain, heart, prostate, got 'liver'"),
        ({"n_cases": 0}, "n_cases"),
        ({"n_test": -1}, "n_test"),
        ({"shape": (64, 64)}, "shape"),
        ({"shape": (64, 64, 2)}, "shape"),
        ({"spacing": (1.0, 0.0, 2.0)}, "spacing"),
    ],
)
def test_arguments_out_of_range_are_named(tmp_path: Path, options: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        phantom.write_dataset(tmp_path / "d", **options)
    assert not (tmp_path / "d" / "dataset.json").exists()


def test_smooth_fields_have_the_correlation_asked_for() -> None:
    """White noise smoothed by a Gaussian of width s correlates as exp(-d^2 / (4 s^2))."""
    rng = np.random.default_rng(0)
    field = smooth_field(rng, (128, 128, 32), (1.0, 1.0, 1.0), 3.0)
    assert field.mean() == pytest.approx(0.0, abs=1e-12)
    assert field.std() == pytest.approx(1.0)
    shifted = np.roll(field, 3, axis=0)
    assert (field * shifted).mean() == pytest.approx(np.exp(-0.25), abs=0.03)


def test_blur_keeps_the_sum_and_a_width_of_zero_keeps_everything() -> None:
    image = np.random.default_rng(0).random((8, 7, 5))
    blurred = blur(image, (1.0, 2.0, 3.0), 2.0)
    assert blurred.shape == image.shape
    assert blurred.sum() == pytest.approx(image.sum())
    assert blurred.std() < 0.5 * image.std()
    np.testing.assert_allclose(blur(image, (1.0, 2.0, 3.0), 0.0), image, atol=1e-12)


def test_rician_noise_has_rayleigh_background() -> None:
    noise = rician(np.random.default_rng(0), np.zeros((64, 64, 16)), 0.05)
    assert noise.mean() == pytest.approx(0.05 * np.sqrt(np.pi / 2), rel=0.02)


def test_motion_ghosts_vanish_with_the_motion_and_keep_the_energy() -> None:
    image = np.zeros((32, 32, 2))
    image[10:20, 10:20] = 1.0
    still = motion_ghosts(np.random.default_rng(0), image, 0.0)
    np.testing.assert_allclose(still, image, atol=1e-12)
    moved = motion_ghosts(np.random.default_rng(0), image, 1.5)
    assert (moved**2).sum() == pytest.approx((image**2).sum())
    assert moved[15, 0, 0] > 0.01
