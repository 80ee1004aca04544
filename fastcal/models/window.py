"""Networks on images larger than what they were trained on: overlapping windows, blended."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from fastcal.models.views import InferenceAugmentation, Predictor, averaged


def sliding_window(
    network: nn.Module | Predictor,
    images: Tensor,
    *,
    patch: Sequence[int] | None,
    overlap: float = 0.5,
    batch_size: int = 1,
    mirror_axes: Sequence[int] = (),
    device: torch.device | str | None = None,
) -> Tensor:
    """Logits of whole images from windows of a patch's size, weighted by a Gaussian.

    Windows are weighted so that what was seen near a window's edge counts little (MONAI's
    ``sliding_window_inference``, sigma an eighth of the window). An image that one window covers
    goes through the network once.

    Args:
        network: from ``[B, Ch, *patch]`` to logits ``[B, C, *patch]``, in evaluation mode.
        images: ``[N, Ch, *P]``; the logits are put together where they lie. Axes shorter than the
            patch are padded with zeros about their centre.
        patch: extents of a window; None: whole images.
        overlap: share of a window that its neighbour covers too, from 0 to below 1.
        batch_size: windows (or images) in a forward pass.
        mirror_axes: spatial axes, from 0; the logits of all their mirrorings are averaged.
        device: where windows go; None: the network's, else the images'.

    Returns:
        Logits ``[N, C, *P]``, float32.

    Raises:
        ValueError: an argument out of range.

    Source: the weights: Isensee et al., Nature Methods 18, 2021.

    Example:
        >>> from fastcal.models import UNet
        >>> network = UNet(1, 2, widths=(2, 4)).eval()
        >>> sliding_window(network, torch.zeros(1, 1, 40, 30), patch=(64, 64)).shape
        torch.Size([1, 2, 40, 30])
    """
    dims = images.ndim - 2
    if patch is not None and (len(patch) != dims or min(patch) < 1):
        raise ValueError(f"patch: got {tuple(patch)}, expected {dims} positive extents")
    if not 0 <= overlap < 1:
        raise ValueError(f"overlap: got {overlap!r}, expected from 0 to below 1")
    if batch_size < 1:
        raise ValueError(f"batch_size: got {batch_size!r}, expected at least 1")
    views = InferenceAugmentation(mirror=tuple(mirror_axes))
    views.check(dims)
    place = torch.device(device) if device is not None else _device_of(network, images)

    predict = averaged(network, views.views())
    with torch.no_grad():
        if patch is None:
            return _whole(predict, images, batch_size, place)
        padded, start = _padded(images, patch)
        if tuple(padded.shape[2:]) == tuple(patch):
            logits = _whole(predict, padded, batch_size, place)
        else:
            from monai.inferers.utils import sliding_window_inference

            blended = sliding_window_inference(
                padded,
                tuple(patch),
                batch_size,
                predict,
                overlap=overlap,
                mode="gaussian",
                sw_device=place,
                device=images.device,
            )
            assert isinstance(blended, Tensor)
            logits = blended
        for axis, extent in enumerate(images.shape[2:], start=2):
            logits = logits.narrow(axis, start[axis - 2], extent)
        return logits


def _whole(predict: Predictor, images: Tensor, batch_size: int, place: torch.device) -> Tensor:
    batches = (images[first : first + batch_size] for first in range(0, len(images), batch_size))
    return torch.cat([predict(batch.to(place)).to(images.device) for batch in batches])


def _padded(images: Tensor, patch: Sequence[int]) -> tuple[Tensor, list[int]]:
    """Images that are nowhere smaller than a patch, and where the given ones begin in them."""
    missing = [max(0, wanted - have) for wanted, have in zip(patch, images.shape[2:], strict=True)]
    start = [amount // 2 for amount in missing]
    if not any(missing):
        return images, start
    pads = [
        side
        for before, amount in zip(reversed(start), reversed(missing), strict=True)
        for side in (before, amount - before)
    ]
    return functional.pad(images, pads), start


def _device_of(network: nn.Module | Predictor, images: Tensor) -> torch.device:
    parameter = next(network.parameters(), None) if isinstance(network, nn.Module) else None
    return images.device if parameter is None else parameter.device
