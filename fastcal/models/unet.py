"""U-Net in two and three dimensions, from the paper's small network to one of nnU-Net's size."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from fastcal.models.blocks import (
    ACTIVATIONS,
    CONVOLUTION,
    MAX_POOLING,
    NORMS,
    UPSAMPLING,
    ConvolutionBlock,
    Extents,
    ResidualLevel,
    Style,
)
from fastcal.models.network import HEADS, Head, SegmentationNetwork, crop_to, pad_to_multiple

__all__ = ["HEADS", "PAPER_WIDTHS", "PRESETS", "Head", "UNet", "set_mc_dropout"]

PAPER_WIDTHS = (8, 16, 32, 64, 128)
PRESETS: Mapping[str, Mapping[str, Any]] = {
    "paper": {"widths": PAPER_WIDTHS},
    "standard": {
        "widths": (32, 64, 128, 256, 512),
        "norm": "instance",
        "activation": "leaky-relu",
        "downsampling": "stride",
    },
}
"""Arguments of `UNet` by name: the paper's network, and one with nnU-Net's size and layers."""


class UNet(SegmentationNetwork):
    """U-Net, by default with the paper's widths and dropout placement; returns logits.

    Every level has two 3-wide convolutions, each followed by normalisation and activation. Levels
    are joined by 2-wide max-pools on the way down and 2-wide transposed convolutions on the way up,
    with skip connections. The default in two dimensions has 0.49 M parameters and takes 0.59 GMAC
    per 224 x 224 slice (0.66 if every tap of a transposed convolution is counted for every output).
    Convolutions start from He's normal initialisation and biases from zero. The weights of the last
    layer sum to zero over the classes.

    The input ``[B, in_channels, *S]`` may have any spatial size. Zeros are appended up to a
    multiple of the product of the strides, and cropped from the output ``[B, num_classes, *S]``.

    Args:
        in_channels: Channels of the image.
        num_classes: Classes, the background included.
        dims: Spatial axes, 2 or 3.
        widths: Channels of each level, finest first; there are ``len(widths) - 1`` halvings.
        dropout: Dropout rate behind the two deepest encoder blocks and the deepest decoder block.
            The paper has 0.5 there for Monte Carlo dropout; see `set_mc_dropout`.
        norm: ``"batch"`` or ``"instance"``.
        head: How logits become probabilities: ``"softmax"``, or ``"sigmoid"`` for each class alone
            (the paper's Dice models, whose probabilities need not sum to one).
        residual: Make the encoder's pairs of convolutions residual blocks.
        blocks: Pairs of convolutions in each level of the encoder, one number or one per level.
        strides: Factor of each halving, a number or one number per axis for each of them
            (``(1, 2, 2)`` does not halve across thick slices); None is 2 everywhere.
        kernels: Odd extents of the convolutions of each level, likewise; None is 3 everywhere.
        downsampling: ``"pool"`` (max-pools) or ``"stride"`` (of a level's first convolution).
        activation: ``"relu"`` or ``"leaky-relu"`` (slope 0.01).
        deep_supervision: In training mode, return the logits of all decoder levels but the deepest
            as a list, finest first.

    Raises:
        ValueError: An argument is out of range, or the image of a forward pass has a wrong number
            of axes or channels.

    Source: Mehrtash et al., IEEE TMI 39(12), 2020; Ronneberger et al., MICCAI 2015; Isensee et al.,
    Nature Methods 18, 2021.

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
        residual: bool = False,
        blocks: int | Sequence[int] = 1,
        strides: Sequence[int | Sequence[int]] | None = None,
        kernels: Sequence[int | Sequence[int]] | None = None,
        downsampling: str = "pool",
        activation: str = "relu",
        deep_supervision: bool = False,
    ) -> None:
        super().__init__(in_channels, num_classes, dims, head)
        if not _are_positive(widths) or len(widths) < 2:
            raise ValueError(f"widths must be two or more positive numbers, got {widths!r}")
        if not 0.0 <= dropout < 1.0:
            raise ValueError(f"dropout must lie in [0, 1), got {dropout!r}")
        _check_choice("norm", norm, sorted({name for name, _ in NORMS}))
        _check_choice("downsampling", downsampling, ("pool", "stride"))
        _check_choice("activation", activation, tuple(ACTIVATIONS))
        self.widths = tuple(widths)
        levels = len(self.widths)
        self.dropout = dropout
        self.norm = norm
        self.residual = residual
        self.blocks = _each(
            "blocks", [blocks] * levels if isinstance(blocks, int) else blocks, levels
        )
        self.strides = _extents("strides", strides, 2, dims, levels - 1)
        self.kernels = _extents("kernels", kernels, 3, dims, levels)
        if any(extent % 2 == 0 for kernel in self.kernels for extent in kernel):
            raise ValueError(f"kernels must be odd extents, got {self.kernels}")
        self.downsampling = downsampling
        self.activation = activation
        self.deep_supervision = deep_supervision

        style = Style(dims, norm, activation)
        one = (1,) * dims
        deepest = levels - 1
        pooled = downsampling == "pool"
        self.encoder = nn.ModuleList()
        for level, width in enumerate(self.widths):
            channels = in_channels if level == 0 else self.widths[level - 1]
            stride = one if level == 0 or pooled else self.strides[level - 1]
            rate = dropout if level >= deepest - 1 else 0.0
            kernel = self.kernels[level]
            self.encoder.append(
                ResidualLevel(
                    *(channels, width),
                    style=style,
                    kernel=kernel,
                    stride=stride,
                    blocks=self.blocks[level],
                    dropout=rate,
                )
                if residual
                else ConvolutionBlock(
                    *(channels, width),
                    style=style,
                    kernel=kernel,
                    stride=stride,
                    convolutions=2 * self.blocks[level],
                    dropout=rate,
                )
            )
        self.pools = nn.ModuleList(
            MAX_POOLING[dims](stride) if pooled else nn.Identity() for stride in self.strides
        )
        self.upsampling = nn.ModuleList(
            UPSAMPLING[dims](self.widths[level + 1], self.widths[level], stride, stride=stride)
            for level, stride in enumerate(self.strides)
        )
        self.decoder = nn.ModuleList(
            ConvolutionBlock(
                *(2 * self.widths[level], self.widths[level]),
                style=style,
                kernel=self.kernels[level],
                stride=one,
                convolutions=2,
                dropout=dropout if level == deepest - 1 else 0.0,
            )
            for level in range(deepest)
        )
        self.classifier = CONVOLUTION[dims](self.widths[0], num_classes, 1)
        self.auxiliary = nn.ModuleList(
            CONVOLUTION[dims](self.widths[level], num_classes, 1)
            for level in range(1, deepest - 1 if deep_supervision else 0)
        )
        self.apply(_initialise)
        if num_classes > 1:
            for classifier in self.classifiers:
                _centre_over_classes(classifier)

    @property
    def arguments(self) -> dict[str, Any]:
        """Arguments of `UNet` that build this architecture."""
        names = (
            *("in_channels", "num_classes", "dims", "widths", "dropout", "norm", "head"),
            *("residual", "blocks", "strides", "kernels", "downsampling", "activation"),
            "deep_supervision",
        )
        return {name: getattr(self, name) for name in names}

    @property
    def spec(self) -> dict[str, Any]:
        """What `build_network` builds this network from, except for its weights."""
        return {"name": "UNet", **self.arguments}

    @property
    def classifiers(self) -> list[nn.Module]:
        """Layers that compute the logits, finest first."""
        return [self.classifier, *self.auxiliary]

    @property
    def bottleneck(self) -> nn.Module:
        """The deepest block of the encoder."""
        return self.encoder[-1]

    @property
    def checkpointing(self) -> bool:
        """Whether training recomputes features in the backward pass instead of keeping them."""
        return self._checkpointing

    @checkpointing.setter
    def checkpointing(self, active: bool) -> None:
        self._checkpointing = active

    @property
    def multiples(self) -> Extents:
        """Spatial extents are padded to multiples of these."""
        return tuple(_product(stride[axis] for stride in self.strides) for axis in range(self.dims))

    def forward(self, image: Tensor) -> Tensor | list[Tensor]:
        """Compute logits of images ``[B, in_channels, *S]``; see `SegmentationNetwork`."""
        self.check_image(image)
        size = image.shape[2:]
        features = pad_to_multiple(image, self.multiples)
        skips: list[Tensor] = []
        for level, block in enumerate(self.encoder):
            if level > 0:
                features = self.pools[level - 1](features)
            features = self._run(block, features)
            skips.append(features)
        features = skips.pop()
        coarse: list[Tensor] = []
        for level in reversed(range(len(skips))):
            features = torch.cat((skips.pop(), self.upsampling[level](features)), dim=1)
            features = self._run(self.decoder[level], features)
            if self.training and 1 <= level <= len(self.auxiliary):
                coarse.append(self.auxiliary[level - 1](features))
        logits = crop_to(self.classifier(features), size)
        if not (self.training and self.deep_supervision):
            return logits
        result = [logits]
        for values, stride in zip(reversed(coarse), self.strides, strict=False):
            size = torch.Size(-(-extent // by) for extent, by in zip(size, stride, strict=True))
            result.append(crop_to(values, size))
        return result

    def _run(self, block: nn.Module, features: Tensor) -> Tensor:
        if self.checkpointing and self.training and torch.is_grad_enabled():
            contexts = _recomputing(block)
            again: Tensor = checkpoint(block, features, use_reentrant=False, context_fn=contexts)
            return again
        result: Tensor = block(features)
        return result


def set_mc_dropout(model: nn.Module, active: bool) -> int:
    """Switch dropout on or off, whatever ``train()`` or ``eval()`` set, and change nothing else.

    Args:
        model: The network.
        active: Whether dropout is on.

    Returns:
        The number of dropout layers with a rate above zero. If there is none, Monte Carlo dropout
        would repeat one prediction.

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


def _recomputing(
    block: nn.Module,
) -> Callable[[], tuple[AbstractContextManager[None], AbstractContextManager[None]]]:
    """Return contexts of a checkpoint in which running statistics count a batch once, not twice."""

    @contextmanager
    def frozen() -> Iterator[None]:
        norms = [
            module
            for module in block.modules()
            if isinstance(module, nn.modules.batchnorm._NormBase) and module.track_running_stats
        ]
        before = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
        for norm in norms:
            norm.momentum = 0.0
            if norm.num_batches_tracked is not None:
                norm.num_batches_tracked = norm.num_batches_tracked.clone()
        try:
            yield
        finally:
            for norm, (momentum, batches) in zip(norms, before, strict=True):
                norm.momentum, norm.num_batches_tracked = momentum, batches

    return lambda: (nullcontext(), frozen())


def _initialise(module: nn.Module) -> None:
    if isinstance(module, (nn.Conv2d, nn.Conv3d)):
        nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
    elif isinstance(module, (nn.ConvTranspose2d, nn.ConvTranspose3d)):
        # As stride equals kernel, each output sees one tap of each input channel. No ReLU follows.
        nn.init.normal_(module.weight, std=module.in_channels**-0.5)
    else:
        return
    if module.bias is not None:
        nn.init.zeros_(module.bias)


@torch.no_grad()
def _centre_over_classes(classifier: nn.Module) -> None:
    """Make the weights sum to zero over the classes: evidence for one counts against the others.

    A softmax does not depend on it, but sigmoid heads need it. Without it, the background's row may
    happen to point along a foreground class. Its probability then saturates at 1 there before the
    Dice loss can lower it, and the class never wins the argmax. On hippocampus MRI, 2 of 7 seeds
    were stuck in that state for 250 steps and more; with centred rows none of 7 were.
    """
    weight = classifier.get_parameter("weight")
    weight.sub_(weight.mean(dim=0))


def _check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        raise ValueError(f"{name} must be {' or '.join(map(repr, choices))}, got {value!r}")


def _each(name: str, values: Sequence[int], count: int) -> tuple[int, ...]:
    if not _are_positive(values) or len(values) != count:
        raise ValueError(f"{name} must be {count} positive numbers, got {values!r}")
    return tuple(values)


def _are_positive(values: Any) -> bool:
    """Whether these are integers of at least 1 in a sequence; they may come from a file."""
    return isinstance(values, Sequence) and all(
        isinstance(value, int) and value >= 1 for value in values
    )


def _extents(
    name: str,
    values: Sequence[int | Sequence[int]] | None,
    default: int,
    dims: int,
    count: int,
) -> tuple[Extents, ...]:
    """Return one positive number per axis for each of ``count`` levels."""
    if values is None:
        return ((default,) * dims,) * count
    if not isinstance(values, Sequence) or len(values) != count:
        raise ValueError(f"{name} must hold {count} entries for these widths, got {values!r}")
    spread = [[value] * dims if isinstance(value, int) else value for value in values]
    return tuple(_each(name, value, dims) for value in spread)


def _product(factors: Iterator[int]) -> int:
    product = 1
    for factor in factors:
        product *= factor
    return product
