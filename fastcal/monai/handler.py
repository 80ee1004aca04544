"""The calibration metric attached to an ignite engine."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

from monai.handlers.ignite_metric import IgniteMetricHandler
from monai.metrics.calibration import CalibrationReduction
from monai.utils.enums import MetricReduction

from fastcal.monai.calibration_error import CalibrationErrorMetric


def _whole_output(output: Any) -> Any:
    return output


class CalibrationError(IgniteMetricHandler):
    """`monai.handlers.CalibrationError` over `CalibrationErrorMetric`.

    Args:
        num_bins: See `CalibrationErrorMetric`, also for the arguments not listed here.
        output_transform: Turns ``engine.state.output`` into ``(y_pred, y)``, for instance
            ``monai.handlers.from_engine(["pred", "label"])``.
        save_details: Keep the errors of every image and class in
            ``engine.state.metric_details[name]``.

    Raises:
        ImportError: pytorch-ignite is missing.
        ValueError: See `CalibrationErrorMetric`.
    """

    def __new__(cls, *_: Any, **__: Any) -> CalibrationError:
        """Make the handler, if pytorch-ignite is there."""
        if find_spec("ignite") is None:
            raise ImportError(
                "fastcal.monai.CalibrationError is a handler of pytorch-ignite, which is missing: "
                "pip install pytorch-ignite"
            )
        made: CalibrationError = super().__new__(cls)
        return made

    def __init__(
        self,
        num_bins: int = 20,
        include_background: bool = True,
        calibration_reduction: CalibrationReduction | str = CalibrationReduction.EXPECTED,
        metric_reduction: MetricReduction | str = MetricReduction.MEAN,
        output_transform: Callable[[Any], Any] = _whole_output,
        save_details: bool = True,
        right: bool = False,
    ) -> None:
        metric = CalibrationErrorMetric(
            num_bins,
            include_background,
            calibration_reduction,
            metric_reduction,
            right=right,
        )
        super().__init__(
            metric_fn=metric, output_transform=output_transform, save_details=save_details
        )
