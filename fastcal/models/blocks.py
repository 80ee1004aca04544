"""The building blocks of `fastcal.models.UNet`, in two and three dimensions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

CONVOLUTION: dict[int, type[nn.Module]] = {2: nn.Conv2d, 3: nn.Conv3d}
UPSAMPLING: dict[int, type[nn.Module]] = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
MAX_POOLING: dict[int, type[nn.Module]] = {2: nn.MaxPool2d, 3: nn.MaxPool3d}
MEAN_POOLING: dict[int, type[nn.Module]] = {2: nn.AvgPool2d, 3: nn.AvgPool3d}
NORMS: dict[tuple[str, int], type[nn.Module]] = {
    ("batch", 2): nn.BatchNorm2d,
    ("batch", 3): nn.BatchNorm3d,
    ("instance", 2): nn.InstanceNorm2d,
    ("instance", 3): nn.InstanceNorm3d,
}
ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": lambda: nn.ReLU(inplace=True),
    "leaky-relu": lambda: nn.LeakyReLU(0.01, inplace=True),
}

Extents = tuple[int, ...]
"""One number per spatial axis."""


@dataclass(frozen=True, slots=True)
class Style:
    """What all convolutions of a network share."""

    dims: int
    norm: str
    activation: str

    def convolution(
        self, in_channels: int, out_channels: int, kernel: Extents, stride: Extents
    ) -> list[nn.Module]:
        """Return a "same" convolution and its normalisation, which would cancel any bias."""
        padding = tuple(extent // 2 for extent in kernel)
        convolution = CONVOLUTION[self.dims](
            in_channels, out_channels, kernel, stride=stride, padding=padding, bias=False
        )
        return [convolution, NORMS[self.norm, self.dims](out_channels, affine=True)]

    def activate(self) -> nn.Module:
        """Return an activation layer."""
        return ACTIVATIONS[self.activation]()


class ConvolutionBlock(nn.Sequential):
    """A number of "same" convolutions, each with normalisation and activation; then dropout."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        style: Style,
        kernel: Extents,
        stride: Extents,
        convolutions: int,
        dropout: float,
    ) -> None:
        layers: list[nn.Module] = []
        for number in range(convolutions):
            channels = out_channels if number else in_channels
            step = (1,) * style.dims if number else stride
            layers += [*style.convolution(channels, out_channels, kernel, step), style.activate()]
        super().__init__(*layers, nn.Dropout(dropout))


class ResidualBlock(nn.Module):
    """Two convolutions and a shortcut, with pooling and projection where the shape changes.

    Source: He et al., CVPR 2016; for the mean pooling of the shortcut He et al., CVPR 2019
    (ResNet-D).
    """

    def __init__(
        self, in_channels: int, out_channels: int, *, style: Style, kernel: Extents, stride: Extents
    ) -> None:
        super().__init__()
        one = (1,) * style.dims
        self.body = nn.Sequential(
            *style.convolution(in_channels, out_channels, kernel, stride),
            style.activate(),
            *style.convolution(out_channels, out_channels, kernel, one),
        )
        shortcut: list[nn.Module] = []
        if stride != one:
            shortcut.append(MEAN_POOLING[style.dims](stride))
        if in_channels != out_channels:
            shortcut += style.convolution(in_channels, out_channels, one, one)
        self.shortcut = nn.Sequential(*shortcut)
        self.activation = style.activate()

    def forward(self, features: Tensor) -> Tensor:
        """Compute the block's features."""
        result: Tensor = self.activation(self.body(features) + self.shortcut(features))
        return result


class ResidualLevel(nn.Sequential):
    """A number of residual blocks, the first of which has the stride; then dropout."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        style: Style,
        kernel: Extents,
        stride: Extents,
        blocks: int,
        dropout: float,
    ) -> None:
        one = (1,) * style.dims
        layers = [
            ResidualBlock(
                out_channels if number else in_channels,
                out_channels,
                style=style,
                kernel=kernel,
                stride=one if number else stride,
            )
            for number in range(blocks)
        ]
        super().__init__(*layers, nn.Dropout(dropout))
