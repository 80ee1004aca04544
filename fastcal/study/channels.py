"""The channels of a dataset that a study uses, where they are not all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from fastcal.core import atomic
from fastcal.core.errors import DataError

if TYPE_CHECKING:
    from fastcal.data.dataset import Dataset

CHANNELS = "channels"
"""Folder of a study for what `with_channels` writes."""


def wanted_channels(
    dataset: Dataset, given: Sequence[str] | None, usual: Sequence[str]
) -> tuple[str, ...]:
    """Return the names of the channels to use, in the order of the dataset.

    Args:
        dataset: The dataset.
        given: Those that were asked for; None takes the usual ones.
        usual: Those of the design, which count where the dataset has all of them.

    Raises:
        ValueError: A channel was asked for that is not there, or twice.
    """
    there = dataset.channel_names
    if given is None:
        given = usual if usual and set(usual) <= set(there) else there
    for number, name in enumerate(given):
        if name not in there or name in given[:number]:
            known = ", ".join(there)
            raise ValueError(f"channels must be some of {known}, each once, got {name!r}")
    if not given:
        raise ValueError(f"channels must be some of {', '.join(there)}, got none")
    return tuple(name for name in there if name in given)


def with_channels(dataset: Dataset, channels: Sequence[str], folder: Path) -> Dataset:
    """Return a dataset of some of the channels, whose files stay where they are.

    Args:
        dataset: The dataset.
        channels: Names of the channels, in its order.
        folder: Where `write_listing` is to put its ``dataset.json``.

    Returns:
        The dataset itself where all channels are wanted.

    Raises:
        DataError: The dataset lacks a channel, or a case has all channels in one file.
    """
    from fastcal.data.dataset import Dataset

    there = dataset.channel_names
    if tuple(channels) == tuple(there):
        return dataset
    missing = [name for name in channels if name not in there]
    if missing:
        raise DataError(dataset.folder, f"has no channel {', '.join(missing)}")
    places = [there.index(name) for name in channels]
    cases = []
    for case in dataset.cases:
        if len(case.images) != len(there):
            raise DataError(case.images[0], "must be one file per channel, to use some of them")
        cases.append(replace(case, images=tuple(case.images[place] for place in places)))
    chosen = replace(dataset.description, channel_names=tuple(channels), listed_cases=None)
    return Dataset(folder, chosen, cases)


def write_listing(dataset: Dataset) -> None:
    """Write the ``dataset.json`` of `with_channels`, with all files under nnU-Net's ``dataset``."""
    from fastcal.data import description

    listed = {
        case.name: {
            "images": [str(path.absolute()) for path in case.images],
            "label": "" if case.label is None else str(case.label.absolute()),
        }
        for case in dataset.cases
    }
    content = description.to_json(dataset.description, num_training=len(listed))
    dataset.folder.mkdir(parents=True, exist_ok=True)
    atomic.write_json(dataset.folder / "dataset.json", {**content, "dataset": listed})
