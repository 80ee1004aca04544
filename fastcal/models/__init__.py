"""Networks, ensembles of them, and the run folders that hold their trained members."""

from fastcal.models.build import build_network, network_spec
from fastcal.models.device import choose_device, choose_devices
from fastcal.models.ensemble import Ensemble, EnsembleOutput, load_ensemble
from fastcal.models.export import Exported, export_run
from fastcal.models.network import SegmentationNetwork
from fastcal.models.run import Run, load_member
from fastcal.models.unet import UNet, set_mc_dropout
from fastcal.models.weights import save_weights
from fastcal.models.window import sliding_window

__all__ = [
    "Ensemble",
    "EnsembleOutput",
    "Exported",
    "Run",
    "SegmentationNetwork",
    "UNet",
    "build_network",
    "choose_device",
    "choose_devices",
    "export_run",
    "load_ensemble",
    "load_member",
    "network_spec",
    "save_weights",
    "set_mc_dropout",
    "sliding_window",
]
