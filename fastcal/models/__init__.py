"""Networks, and the run folders that hold their trained members."""

from fastcal.models.build import build_network, network_spec
from fastcal.models.device import choose_device
from fastcal.models.network import SegmentationNetwork
from fastcal.models.run import Run, load_member
from fastcal.models.unet import UNet, set_mc_dropout
from fastcal.models.weights import save_weights
from fastcal.models.window import sliding_window

__all__ = [
    "Run",
    "SegmentationNetwork",
    "UNet",
    "build_network",
    "choose_device",
    "load_member",
    "network_spec",
    "save_weights",
    "set_mc_dropout",
    "sliding_window",
]
