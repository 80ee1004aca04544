"""The paper's U-Net: Ronneberger's with fewer kernels, in two or three dimensions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

Head = Literal["softmax", "sigmoid"]
HEADS: tuple[Head, ...] = ("softmax", "sigmoid")
PAPER_WIDTHS = (8, 16, 32, 64, 128)

_CONVOLUTION: dict[int, type[nn.Module]] = {2: nn.Conv2d, 3: nn.Conv3d}
_UPSAMPLING: dict[int, type[nn.Module]] = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
_POOLING: dict[int, type[nn.Module]] = {2: nn.MaxPool2d, 3: nn.MaxPool3d}
_NORMS: dict[tuple[str, int], type[nn.Module]] = {
    ("batch", 2): nn.BatchNorm2d,
    ("batch", 3): nn.BatchNorm3d,
    ("instance", 2): nn.InstanceNorm2d,
    ("instance", 3): nn.InstanceNorm3d,
}


class ConvolutionBlock(nn.Sequential):
    """Two times (3-wide "same" convolution, normalisation, ReLU), then dropout."""

    def __init__(
        self, in_channels: int, out_channels: int, *, dims: int, norm: str, dropout: float
    ) -> None:
        convolution, normalisation = _CONVOLUTION[dims], _NORMS[norm, dims]
        layers: list[nn.Module] = []
        for channels in (in_channels, out_channels):
            # The normalisation that follows subtracts any bias again.
            layers += [
                convolution(channels, out_channels, 3, padding=1, bias=False),
                normalisation(out_channels, affine=True),
                nn.ReLU(inplace=True),
            ]
        super().__init__(*layers, nn.Dropout(dropout))


class UNet(nn.Module):
    """U-Net with the paper's widths and dropout placement; returns logits.

    Every level has two 3-wide convolutions, each followed by normalisation and ReLU; levels are
    joined by 2-wide max-pools on the way down and 2-wide transposed convolutions on the way up,
    with skip connections. The default in two dimensions has 0.49 M parameters and 0.59 GMAC a
    224 x 224 slice (0.66 where every tap of a transposed convolution is counted for every output).
    Convolutions start from He's normal initialisation, biases from zero; the last layer's weights
    sum to zero over the classes.

    Args:
        in_channels: channels of the image.
        num_classes: classes, the background included.
        dims: 2 or 3 spatial axes.
        widths: channels of each level, finest first; ``len(widths) - 1`` poolings.
        dropout: rate behind the two deepest encoder blocks and the deepest decoder block, where the
            paper has 0.5 for Monte Carlo dropout. See `set_mc_dropout`.
        norm: ``"batch"`` or ``"instance"``.
        head: how logits become probabilities: ``"softmax"``, or ``"sigmoid"`` for each class alone
            (the paper's Dice models; probabilities then need not sum to one).

    Input ``[B, in_channels, *S]`` of any spatial size: zeros are appended up to a multiple of
    ``2 ** (len(widths) - 1)`` and cropped from the output ``[B, num_classes, *S]``.

    Raises:
        ValueError: an argument out of range; in ``forward``, a wrong number of axes or channels.

    Source: Mehrtash et al., IEEE TMI 39(12), 2020; Ronneberger et al., MICCAI 2015.

    Example:
        >>> import torch
        >>> UNet(1, 3)(torch.zeros(2, 1, 50, 35)).shape
        torch.Size([2, 3, 50, 35])
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        *,
        dims: int = 2,
        widths: Sequence[int] = PAPER_WIDTHS,
        dropout: float = 0.0,
        norm: str = "batch",
        head: Head = "softmax",
    ) -> None:
        super().__init__()
        _check_arguments(in_channels, num_classes, dims, widths, dropout, norm, head)
        self.in_channels = in_channels
        self.num_classes = num_classes
        self.dims = dims
        self.widths = tuple(widths)
        self.dropout = dropout
        self.norm = norm
        self.head: Head = head

        deepest = len(self.widths) - 1
        self.encoder = nn.ModuleList(
            ConvolutionBlock(
                in_channels if level == 0 else self.widths[level - 1],
                width,
                dims=dims,
                norm=norm,
                dropout=dropout if level >= deepest - 1 else 0.0,
            )
            for level, width in enumerate(self.widths)
        )
        self.pool = _POOLING[dims](2)
        self.upsampling = nn.ModuleList(
            _UPSAMPLING[dims](self.widths[level + 1], self.widths[level], 2, stride=2)
            for level in range(deepest)
        )
        self.decoder = nn.ModuleList(
            ConvolutionBlock(
                2 * self.widths[level],
                self.widths[level],
                dims=dims,
                norm=norm,
                dropout=dropout if level == deepest - 1 else 0.0,
            )
            for level in range(deepest)
        )
        self.classifier = _CONVOLUTION[dims](self.widths[0], num_classes, 1)
        self.apply(_initialise)
        if num_classes > 1:
            _centre_over_classes(self.classifier)

    @property
    def arguments(self) -> dict[str, object]:
        """What `UNet` has to be called with to build this architecture again."""
        names = ("in_channels", "num_classes", "dims", "widths", "dropout", "norm", "head")
        return {name: getattr(self, name) for name in names}

    def forward(self, image: Tensor) -> Tensor:
        if image.ndim != self.dims + 2 or image.shape[1] != self.in_channels:
            raise ValueError(
                f"image: got shape {tuple(image.shape)}, expected {self.dims} spatial axes: "
                f"[B, {self.in_channels}, *S]"
            )
        size = image.shape[2:]
        features = _pad_to_multiple(image, 2 ** (len(self.widths) - 1))
        skips: list[Tensor] = []
        for block in self.encoder[:-1]:
            skips.append(block(features))
            features = self.pool(skips[-1])
        features = self.encoder[-1](features)
        for level in reversed(range(len(skips))):
            features = torch.cat((skips[level], self.upsampling[level](features)), dim=1)
            features = self.decoder[level](features)
        logits: Tensor = self.classifier(features)
        for axis, extent in enumerate(size, start=2):
            logits = logits.narrow(axis, 0, extent)
        return logits

    def probabilities(self, logits: Tensor) -> Tensor:
        """Class probabilities ``[B, C, *S]`` of logits, by this network's head."""
        return logits.softmax(1) if self.head == "softmax" else logits.sigmoid()


def set_mc_dropout(model: nn.Module, active: bool) -> int:
    """Switch dropout on or off, whatever ``train()`` or ``eval()`` set, and leave the rest alone.

    Returns the number of dropout layers with a rate above zero: Monte Carlo dropout on a network
    without any would repeat one prediction.

    Example:
        >>> set_mc_dropout(UNet(1, 2, dropout=0.5).eval(), True)
        3
    """
    layers = [
        module for module in model.modules() if isinstance(module, nn.modules.dropout._DropoutNd)
    ]
    for layer in layers:
        layer.train(active)
    return sum(layer.p > 0 for layer in layers)


def _pad_to_multiple(image: Tensor, multiple: int) -> Tensor:
    missing = [-extent % multiple for extent in image.shape[2:]]
    if not any(missing):
        return image
    pads = [amount for extent in reversed(missing) for amount in (0, extent)]
    return functional.pad(image, pads)


def _initialise(module: nn.Module) -> None:
    if isinstance(module, (nn.Conv2d, nn.Conv3d)):
        nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
    elif isinstance(module, (nn.ConvTranspose2d, nn.ConvTranspose3d)):
        # Stride equals kernel: each output sees one tap of every input channel. No ReLU follows.
        nn.init.normal_(module.weight, std=module.in_channels**-0.5)
    else:
        return
    if module.bias is not None:
        nn.init.zeros_(module.bias)


@torch.no_grad()
def _centre_over_classes(classifier: nn.Module) -> None:
    """Let the weights sum to zero over the classes: what speaks for one speaks against others.

    Softmax cannot tell. Sigmoid heads need it: where the background's row happens to point along a
    foreground class, its probability saturates at 1 there before the Dice loss, which such a voxel
    of the background hardly moves, can push it down, and the class never wins the argmax (2 of 7
    seeds on hippocampus MRI were stuck there for 250 steps and more; none of 7 with centred rows).
    """
    weight = classifier.get_parameter("weight")
    weight.sub_(weight.mean(dim=0))


def _check_arguments(
    in_channels: int,
    num_classes: int,
    dims: int,
    widths: Sequence[int],
    dropout: float,
    norm: str,
    head: str,
) -> None:
    if dims not in _CONVOLUTION:
        raise ValueError(f"dims: got {dims!r}, expected 2 or 3")
    for name, number in (("in_channels", in_channels), ("num_classes", num_classes)):
        if number < 1:
            raise ValueError(f"{name}: got {number!r}, expected at least 1")
    if len(widths) < 2 or min(widths) < 1:
        raise ValueError(f"widths: got {tuple(widths)}, expected two or more positive numbers")
    if not 0.0 <= dropout < 1.0:
        raise ValueError(f"dropout: got {dropout!r}, expected a rate in [0, 1)")
    if (norm, dims) not in _NORMS:
        raise ValueError(f"norm: got {norm!r}, expected 'batch' or 'instance'")
    if head not in HEADS:
        raise ValueError(f"head: got {head!r}, expected 'softmax' or 'sigmoid'")
