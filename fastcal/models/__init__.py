"""Networks, and the run folders that hold their trained members."""

from fastcal.models.device import choose_device
from fastcal.models.run import Run, load_member
from fastcal.models.unet import UNet, set_mc_dropout

__all__ = ["Run", "UNet", "choose_device", "load_member", "set_mc_dropout"]
