"""Devices that a user may name, and those refused in one line."""

import pytest
import torch

from fastcal.models import choose_device


def test_a_gpu_is_chosen_where_there_is_one(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device(None) == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose_device(None) == torch.device("cuda")


@pytest.mark.parametrize("name", ["gpu", "meta", "cuda:x", ""])
def test_what_is_no_device_is_refused_by_name(name):
    with pytest.raises(ValueError, match=f"device must be cpu, cuda or cuda:N, got '{name}'"):
        choose_device(name)


def test_a_gpu_that_is_not_there_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(
        ValueError, match="device must exist here, where torch finds no GPU, got 'cuda'"
    ):
        choose_device("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert choose_device("cuda:1") == torch.device("cuda:1")
    with pytest.raises(
        ValueError, match="device must exist here, where torch finds 2 GPUs, got 'cuda:2'"
    ):
        choose_device("cuda:2")
