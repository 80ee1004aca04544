"""Networks on images larger than their training patches: overlapping windows, blended."""

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
    """Compute logits of whole images from overlapping windows, weighted by a Gaussian.

    By the weights, logits near the edge of a window count little (MONAI's
    ``sliding_window_inference``, with a sigma of an eighth of the window). An image that fits into
    one window goes through the network once.

    Args:
        network: Maps ``[B, Ch, *patch]`` to logits ``[B, C, *patch]``; in evaluation mode.
        images: ``[N, Ch, *P]``. The logits are assembled on their device. Axes shorter than the
            patch are padded with zeros about their centre.
        patch: Extents of a window; None for whole images.
        overlap: Share of a window that its neighbour covers, too, in [0, 1).
        batch_size: Windows (or images) per forward pass.
        mirror_axes: Spatial axes, from 0; the logits of all their mirrorings are averaged.
        device: Where windows go; None is the device of the network, or else of the images.

    Returns:
        Logits ``[N, C, *P]``, float32.

    Raises:
        ValueError: An argument is out of range.

    Source: Isensee et al., Nature Methods 18, 2021, for the weights.

    Example:
        >>> from fastcal.models import UNet
        >>> network = UNet(1, 2, widths=(2, 4)).eval()
        >>> sliding_window(network, torch.zeros(1, 1, 40, 30), patch=(64, 64)).shape
        torch.Size([1, 2, 40, 30])
    """
    dims = images.ndim - 2
    if patch is not None and (len(patch) != dims or min(patch) < 1):
        raise ValueError(f"patch must be {dims} positive extents, got {tuple(patch)}")
    if not 0 <= overlap < 1:
        raise ValueError(f"overlap must lie in [0, 1), got {overlap!r}")
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size!r}")
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
    """Pad images to at least a patch, and return where the given ones begin in them."""
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
