"""A trained ensemble as one module, from images to mean probabilities and uncertainty."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
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
    """What an ensemble predicts for images ``[B, Ch, *S]``."""

    mean: Tensor
    """Mean class probabilities ``[B, C, *S]``."""
    entropy: Tensor
    """Predictive entropy ``[B, *S]``, the entropy of the mean in nats."""
    mutual_information: Tensor
    """Mutual information of prediction and member ``[B, *S]``: the predictive entropy minus the
    mean entropy of the members."""


class Ensemble(nn.Module):
    """The members of an ensemble, whose predictions are streamed through one accumulator.

    It is always in evaluation mode and computes no gradients.

    Args:
        members: Networks with the same head and the same number of classes.
        patch: Extents of the windows that slide over larger images; None for whole images.
        preprocessing: The preprocessing that images need; kept for the caller's use.

    Raises:
        ValueError: There is no member, or the members do not go together.

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
            raise ValueError("members must hold at least one network, got none")
        kinds = {(one.dims, one.in_channels, one.num_classes, one.head) for one in networks}
        if len(kinds) > 1:
            raise ValueError(
                "members must agree in their number of axes, channels and classes, and in their "
                f"head, got {sorted(kinds)}"
            )
        ((self.dims, self.in_channels, self.num_classes, self.head),) = kinds
        self.members = nn.ModuleList(networks)
        self.patch = None if patch is None else tuple(patch)
        self.preprocessing = preprocessing
        self.eval()

    def network(self, position: int) -> SegmentationNetwork:
        """Return one of the members."""
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
        """Compute mean, entropy and mutual information of normalised images ``[B, Ch, *S]``.

        Args:
            images: Images as `preprocessing` makes them.
            overlap: Overlap of windows; see `fastcal.models.sliding_window`.
            batch_size: Windows per forward pass; see `fastcal.models.sliding_window`.
        """
        sums = EnsembleAccumulator(EnsembleOutput._fields, activation=self.head)
        for member in self.members:
            # The logits have no name, so that they are freed before the next member's are made.
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
    trust: Collection[str] = (),
    allow_duplicates: bool = False,
) -> Ensemble:
    """Load the trained members of a run as one module.

    Its forward pass returns mean, entropy and mutual information.

    Args:
        run: The folder that `fastcal.train.train_ensemble` wrote, or the `Run` opened from it.
        members: Numbers of the members (``member_03`` is 3); None for all finished ones.
        device: Where the networks go; None selects the GPU if there is one.
        trust: Packages that networks may be imported from, such as ``["mylab"]``. Without it a
            run can only name the built-in networks: a folder is data, not code.
        allow_duplicates: A number among ``members`` may be there twice, and counts twice.

    Raises:
        DataError: There is no run, no finished member, or weights cannot be read.
        UntrustedNetworkError: A network is not built in, nor of a trusted package.
        ValueError: A number has no member, or is there twice.

    Example:
        >>> ensemble = load_ensemble("runs/ce")  # doctest: +SKIP
        >>> images = ensemble.preprocessing.apply(array, volume)  # doctest: +SKIP
        >>> mean, entropy, mutual_information = ensemble(images)  # doctest: +SKIP
    """
    opened = run if isinstance(run, Run) else Run.open(run)
    place = choose_device(device)
    if members is None:
        opened.tell_unfinished()
    folders = opened.chosen(members, allow_duplicates=allow_duplicates)
    networks = [load_member(folder, place, trust=trust) for folder in folders]
    return Ensemble(networks, patch=opened.patch, preprocessing=opened.preprocessing)
