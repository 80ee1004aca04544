"""An iteration of MONAI's evaluator whose output holds every map."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch
from monai.engines.utils import IterationEvents
from monai.utils.enums import CommonKeys


def uncertainty_iteration(engine: Any, batchdata: Any) -> Any:
    """Run an `UncertaintyInferer` in an iteration of `monai.engines.SupervisedEvaluator`.

    MONAI's own iteration puts what the inferer returns under ``"pred"``, a dictionary inside the
    output that its transforms, metrics and handlers cannot read. With
    ``iteration_update=uncertainty_iteration`` the maps lie beside image and label instead.

    Args:
        engine: The evaluator. Its network is a `ModuleList` of members, or one network, and its
            inferer an `UncertaintyInferer`.
        batchdata: A batch of its loader.

    Returns:
        ``"image"``, ``"label"``, the mean as ``"pred"``, and ``"pred_entropy"`` and the like: a
        dictionary, or one per image where the evaluator decollates.

    Raises:
        TypeError: The inferer does not return maps by name.

    Example:
        >>> import torch
        >>> from monai.engines import SupervisedEvaluator
        >>> from fastcal.monai import UncertaintyInferer
        >>> zeros = torch.zeros(1, 1, 8, 8)
        >>> evaluator = SupervisedEvaluator(
        ...     device="cpu",
        ...     val_data_loader=[{"image": zeros, "label": zeros}],
        ...     network=torch.nn.ModuleList([torch.nn.Conv2d(1, 3, 1) for _ in range(2)]),
        ...     inferer=UncertaintyInferer(),
        ...     iteration_update=uncertainty_iteration,
        ... )
        >>> evaluator.run()
        >>> sorted(evaluator.state.output[0])
        ['image', 'label', 'pred', 'pred_entropy', 'pred_mutual_information']
    """
    batch = engine.prepare_batch(
        batchdata, engine.state.device, engine.non_blocking, **engine.to_kwargs
    )
    inputs, targets, args, kwargs = batch if len(batch) == 4 else (*batch, (), {})
    output = {CommonKeys.IMAGE: inputs, CommonKeys.LABEL: targets}
    engine.state.output = output
    autocast = torch.autocast("cuda", **engine.amp_kwargs) if engine.amp else nullcontext()
    with engine.mode(engine.network), autocast:
        maps = engine.inferer(inputs, engine.network, *args, **kwargs)
    if not isinstance(maps, dict):
        raise TypeError(
            "inferer must be an UncertaintyInferer for uncertainty_iteration, got "
            f"{type(engine.inferer).__name__}"
        )
    output.update(maps)
    engine.fire_event(IterationEvents.FORWARD_COMPLETED)
    engine.fire_event(IterationEvents.MODEL_COMPLETED)
    # The handlers of these events have replaced it: decollated, and transformed.
    return engine.state.output
