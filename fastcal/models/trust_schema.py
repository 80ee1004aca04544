"""The arguments of the built-in networks; imported when a network of a file is to be built."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Count = Annotated[int, Field(ge=1, le=65_536)]
Width = Annotated[int, Field(ge=1, le=8_192)]
Extent = Annotated[int, Field(ge=1, le=31)]
Extents = Extent | Annotated[Sequence[Extent], Field(min_length=1, max_length=3)]
Rate = Annotated[float, Field(ge=0.0, lt=1.0)]
Name = Annotated[str, Field(max_length=40, pattern=r"^[A-Za-z_0-9-]*$")]
Plain = bool | int | float | None
Layer = Name | tuple[Name, dict[Name, Plain]]
"""A layer of MONAI's factories: its name, alone or with flat arguments."""
Levels = Annotated[Sequence[Extents], Field(min_length=1, max_length=12)]
Widths = Annotated[Sequence[Width], Field(min_length=2, max_length=12)]


class Network(BaseModel):
    """What every network is told."""

    model_config = ConfigDict(extra="forbid", strict=True)

    in_channels: Count
    num_classes: Count
    dims: Literal[2, 3] = 2
    head: Literal["softmax", "sigmoid"] = "softmax"

    @property
    def kernels(self) -> Sequence[Any]:
        """Extents of the convolutions of each level."""
        return ()

    @property
    def convolutions(self) -> Sequence[int]:
        """Convolutions of each level on the way down."""
        return ()


class UNetArguments(Network):
    """Those of `fastcal.models.UNet`."""

    widths: Widths = (8, 16, 32, 64, 128)
    dropout: Rate = 0.0
    norm: Name = "batch"
    residual: bool = False
    blocks: (
        Annotated[int, Field(ge=1, le=64)]
        | Annotated[
            Sequence[Annotated[int, Field(ge=1, le=64)]], Field(min_length=2, max_length=12)
        ]
    ) = 1
    strides: Levels | None = None
    kernel_extents: Levels | None = Field(default=None, alias="kernels")
    downsampling: Name = "pool"
    activation: Name = "relu"
    deep_supervision: bool = False

    @property
    def kernels(self) -> Sequence[Any]:
        """Extents of the convolutions of each level."""
        return self.kernel_extents or ()

    @property
    def convolutions(self) -> Sequence[int]:
        """Convolutions of each level on the way down."""
        blocks = [self.blocks] if isinstance(self.blocks, int) else self.blocks
        return [2 * count for count in blocks]


class ImportedArguments(Network):
    """What a class of another package may be told beside its own arguments."""

    spatial_dims: Literal[2, 3] | None = None
    out_channels: Count | None = None
    divisor: (
        Annotated[int, Field(ge=1, le=4096)]
        | Annotated[
            Sequence[Annotated[int, Field(ge=1, le=4096)]], Field(min_length=1, max_length=3)
        ]
        | None
    ) = None


class DynUNetArguments(ImportedArguments):
    """Those of MONAI's DynUNet."""

    kernel_size: Levels = (3,)
    strides: Levels = (1, 2, 2, 2, 2)
    upsample_kernel_size: Levels | None = None
    filters: Widths | None = None
    dropout: Rate | Layer | None = None
    norm_name: Layer | None = None
    act_name: Layer | None = None
    deep_supervision: bool = False
    deep_supr_num: Annotated[int, Field(ge=1, le=12)] = 1
    res_block: bool = False
    trans_bias: bool = False

    @property
    def widths(self) -> Sequence[int]:
        """Channels of each level; MONAI's default doubles them."""
        most = 320 if self.dims == 3 else 512
        return self.filters or [min(2 ** (5 + level), most) for level in range(len(self.strides))]

    @property
    def kernels(self) -> Sequence[Any]:
        """Extents of the convolutions of each level."""
        return self.kernel_size


class BasicUNetArguments(ImportedArguments):
    """Those of MONAI's BasicUNet."""

    features: Annotated[Sequence[Width], Field(min_length=6, max_length=6)] = (
        *(32, 32, 64, 128, 256, 32),
    )
    act: Layer | None = None
    norm: Layer | None = None
    bias: bool = True
    dropout: Rate | Layer = 0.0
    upsample: Name = "deconv"

    @property
    def widths(self) -> Sequence[int]:
        """Channels of each level."""
        return self.features


SCHEMAS: dict[str, Any] = {
    "UNet": UNetArguments,
    "DynUNet": DynUNetArguments,
    "BasicUNet": BasicUNetArguments,
}
