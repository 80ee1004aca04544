"""A trained ensemble as one module: images in, mean and uncertainty out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from fastcal import EnsembleAccumulator
from fastcal.data.preprocess import Preprocessing
from fastcal.models.device import choose_device
from fastcal.models.network import Head, SegmentationNetwork
from fastcal.models.run import Run, load_member
from fastcal.models.window import sliding_window


class EnsembleOutput(NamedTuple):
    """What an ensemble says about images ``[B, Ch, *S]``."""

    mean: Tensor
    """Mean class probabilities ``[B, C, *S]``."""
    entropy: Tensor
    """Predictive entropy ``[B, *S]``: of the mean, in nats."""
    mutual_information: Tensor
    """Of prediction and member ``[B, *S]``: the entropy less the members' mean entropy."""


class Ensemble(nn.Module):
    """The members of an ensemble; their predictions are streamed through one accumulator.

    Always in evaluation mode, and without gradients.

    Args:
        members: networks of one head and one number of classes.
        patch: extents of the windows that larger images are seen through; None: whole images.
        preprocessing: what the images went through, for who has to do it.

    Raises:
        ValueError: no member, or members that do not go together.

    Example:
        >>> import torch
        >>> from fastcal.models import UNet
        >>> ensemble = Ensemble([UNet(1, 3), UNet(1, 3)])
        >>> ensemble(torch.zeros(2, 1, 32, 32)).mutual_information.shape
        torch.Size([2, 32, 32])
    """

    dims: int
    in_channels: int
    num_classes: int
    head: Head

    def __init__(
        self,
        members: Iterable[SegmentationNetwork],
        *,
        patch: Sequence[int] | None = None,
        preprocessing: Preprocessing | None = None,
    ) -> None:
        super().__init__()
        networks = list(members)
        if not networks:
            raise ValueError("members: got none, expected at least one network")
        kinds = {(one.dims, one.in_channels, one.num_classes, one.head) for one in networks}
        if len(kinds) > 1:
            raise ValueError(
                "members: expected one number of axes, channels and classes, and one head, "
                f"got {sorted(kinds)}"
            )
        ((self.dims, self.in_channels, self.num_classes, self.head),) = kinds
        self.members = nn.ModuleList(networks)
        self.patch = None if patch is None else tuple(patch)
        self.preprocessing = preprocessing
        self.eval()

    def network(self, position: int) -> SegmentationNetwork:
        """One of the members."""
        found = self.members[position]
        assert isinstance(found, SegmentationNetwork)
        return found

    def train(self, mode: bool = True) -> Ensemble:
        """Stay in evaluation mode."""
        del mode
        return super().train(False)

    @torch.no_grad()
    def forward(
        self, images: Tensor, *, overlap: float = 0.5, batch_size: int = 1
    ) -> EnsembleOutput:
        """Mean, entropy and mutual information of normalised images ``[B, Ch, *S]``.

        Args:
            images: as `preprocessing` makes them.
            overlap, batch_size: of windows; see `fastcal.models.sliding_window`.
        """
        sums = EnsembleAccumulator(EnsembleOutput._fields, activation=self.head)
        for member in self.members:
            # No name for the logits: they must be gone before the next member's are made.
            if self.patch is None:
                sums.update(member(images).float())
            else:
                sums.update(
                    sliding_window(
                        member, images, patch=self.patch, overlap=overlap, batch_size=batch_size
                    )
                )
        found = sums.finalize()
        return EnsembleOutput(*(getattr(found, name) for name in EnsembleOutput._fields))


def load_ensemble(
    run: str | Path | Run,
    *,
    members: Sequence[int] | None = None,
    device: torch.device | str | None = None,
) -> Ensemble:
    """The trained members of a run as one module, whose forward returns mean, entropy and mutual
    information.

    Args:
        run: folder that `fastcal.train.train_ensemble` wrote, or the `Run` opened from it.
        members: numbers of the members (``member_03`` is 3); all finished ones where None.
        device: where the networks go; None is the GPU if there is one.

    Raises:
        DataError: no run, no finished member, or weights that cannot be read.
        ValueError: a number without a member.

    Example:
        >>> ensemble = load_ensemble("runs/ce")  # doctest: +SKIP
        >>> images = ensemble.preprocessing.apply(array, volume)  # doctest: +SKIP
        >>> mean, entropy, mutual_information = ensemble(images)  # doctest: +SKIP
    """
    opened = run if isinstance(run, Run) else Run.open(run)
    place = choose_device(device)
    networks = [load_member(folder, place) for folder in opened.chosen(members)]
    return Ensemble(networks, patch=opened.patch, preprocessing=opened.preprocessing)
