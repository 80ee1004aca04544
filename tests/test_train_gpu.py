"""Training on a GPU draws what it draws on a CPU. These tests need the packages of training."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("pydantic", reason="training needs pydantic")
pytest.importorskip("scipy", reason="the tests of augmentation need SciPy")

from test_augmentation import EVERYTHING, blocks, noise
from test_batches import VOLUMES

from fastcal.train.augment import augment
from fastcal.train.batches import BatchSource
from fastcal.train.prefetch import prefetching

pytestmark = pytest.mark.gpu


def test_a_gpu_draws_what_the_cpu_draws() -> None:
    config = EVERYTHING.model_copy(update={"noise": 0.0})
    images, labels = noise(4, 2, 16, 14, 12), blocks((16, 14, 12))
    expected, expected_labels = augment(images, labels, config, seed=2)
    there, there_labels = augment(images.cuda(), labels.cuda(), config, seed=2)
    assert (there_labels.cpu() == expected_labels).float().mean() > 0.999
    torch.testing.assert_close(there.cpu(), expected, atol=1e-3, rtol=1e-3)


def test_pinned_batches_are_those_of_the_cpu() -> None:
    here = BatchSource(VOLUMES, batch_size=2, patch=(8, 8, 8))
    there = BatchSource(VOLUMES, batch_size=2, patch=(8, 8, 8), device="cuda")
    assert not there.resident
    resident = BatchSource(VOLUMES.to("cuda"), batch_size=2, patch=(8, 8, 8))
    assert resident.resident
    for step, batch in enumerate(prefetching(there, range(20))):
        expected = here.batch(step)
        assert torch.equal(batch.images.cpu(), expected.images)
        assert torch.equal(batch.labels.cpu(), expected.labels)
        assert torch.equal(resident.batch(step).images.cpu(), expected.images)
