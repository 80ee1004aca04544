"""Recalibration: maps from predictions to calibrated probabilities, fitted to streamed volumes."""

from fastcal.recalibrate.apply import apply_folders
from fastcal.recalibrate.binning import HistogramBinning, IsotonicRegression
from fastcal.recalibrate.calibrator import Calibrator
from fastcal.recalibrate.ensemble import EnsembleCalibration
from fastcal.recalibrate.file import load
from fastcal.recalibrate.folders import FolderFit, fit_folders
from fastcal.recalibrate.matrix import DirichletCalibration, VectorScaling
from fastcal.recalibrate.methods import METHODS
from fastcal.recalibrate.temperature import TemperatureScaling

__all__ = [
    "METHODS",
    "Calibrator",
    "DirichletCalibration",
    "EnsembleCalibration",
    "FolderFit",
    "HistogramBinning",
    "IsotonicRegression",
    "TemperatureScaling",
    "VectorScaling",
    "apply_folders",
    "fit_folders",
    "load",
]
