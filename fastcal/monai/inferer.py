"""Members, or passes with Monte Carlo dropout, through any of MONAI's inferers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, TypeAlias

import torch
from monai.inferers.inferer import Inferer, SimpleInferer
from torch import Tensor, nn

from fastcal.accumulator import EnsembleAccumulator
from fastcal.core.arguments import whole_number
from fastcal.core.arrays import Array
from fastcal.core.problem import Activation, Space
from fastcal.models import set_mc_dropout
from fastcal.monai.maps import channel_first, check_maps, check_weights

Network: TypeAlias = Callable[..., Tensor]


class UncertaintyInferer(Inferer):
    """Mean, entropy and mutual information of an ensemble, its members run one after the other.

    Every member, and every stochastic pass of it, goes through ``inferer`` (sliding windows, for
    example), and its stitched output goes into an `EnsembleAccumulator`: memory does not depend on
    the number of members (MONAI#5207).

    Args:
        inferer: Runs one network over the input: a `SlidingWindowInferer`, or any other that gives
            a tensor; a `SimpleInferer` by default.
        maps: Any of ``mean, label, confidence, entropy, expected_entropy, mutual_information,
            variance, disagreement``; see `fastcal.ensemble_statistics`.
        mc_dropout: Passes per member with its dropout layers switched on, whatever ``eval()`` set;
            0 for one pass of the networks as they are.
        seed: Seed of the passes with dropout; None draws from torch's own generator.
        weights: One per member, normalised to sum 1; equal by default.
        from_logits: Networks give logits; False: probabilities. Never guessed. Overlapping windows
            are averaged as the network gives them, before they are activated.
        activation: ``"softmax"``, or ``"sigmoid"`` for exclusive classes that need not sum to 1.
        multilabel: Every class is a Bernoulli of its own.
        space: ``"prob"`` averages probabilities, ``"logit"`` averages logits and activates then.

    ``inferer(inputs [B, Ch, *S], network, *args, **kwargs)``: ``network`` is one network, or any
    iterable of them: a list, a `ModuleList`, or a generator that loads one checkpoint at a time.
    Gives the mean as ``"pred"``, ``[B, C, *S]``, and every other map as ``"pred_entropy"`` and the
    like, ``[B, 1, *S]``, as `EnsembleUncertaintyd` does, so that ``batch.update(maps)`` keeps the
    reference in ``batch["label"]``. They have the metadata of ``inputs`` where it is a
    `MetaTensor`. Further arguments go to ``inferer`` with every network.
    Gradients are never recorded.

    Raises:
        TypeError, ValueError: An argument is not one of these; there is no network, or one gives no
            tensor; a network lacks the dropout layers that ``mc_dropout`` needs; there is not one
            weight per member.

    Example:
        >>> import torch
        >>> from monai.inferers import SlidingWindowInferer
        >>> networks = [torch.nn.Conv2d(1, 3, 3, padding=1) for _ in range(4)]
        >>> inferer = UncertaintyInferer(SlidingWindowInferer((16, 16), overlap=0.5))
        >>> found = inferer(torch.zeros(1, 1, 40, 40), networks)
        >>> found["pred"].shape, found["pred_entropy"].shape
        (torch.Size([1, 3, 40, 40]), torch.Size([1, 1, 40, 40]))
    """

    def __init__(
        self,
        inferer: Inferer | None = None,
        *,
        maps: str | Sequence[str] = ("mean", "entropy", "mutual_information"),
        mc_dropout: int = 0,
        seed: int | None = None,
        weights: Sequence[float] | Array | None = None,
        from_logits: bool = True,
        activation: Activation = "softmax",
        multilabel: bool = False,
        space: Space = "prob",
    ) -> None:
        super().__init__()
        self.inferer = SimpleInferer() if inferer is None else inferer
        self.maps = check_maps(maps)
        self.mc_dropout = whole_number(mc_dropout, "mc_dropout")
        if self.mc_dropout < 0:
            raise ValueError(f"mc_dropout must be at least 0, got {mc_dropout}")
        self.seed = None if seed is None else whole_number(seed, "seed")
        self.weights = check_weights(weights)
        self.from_logits = from_logits
        self.activation: Activation = activation
        self.multilabel = multilabel
        self.space: Space = space
        self._accumulator()  # raises now for what could not be computed

    def __call__(
        self, inputs: Tensor, network: Network | Iterable[Network], *args: Any, **kwargs: Any
    ) -> dict[str, Tensor]:
        """Return the maps of ``network``, one network or several, by key."""
        ensemble = self._accumulator()
        dims = n_networks = n_passes = 0
        with torch.no_grad():
            for member in _members(network):  # enumerate would keep the last one alive
                n_networks += 1
                weight = self._weight(n_networks)
                with _dropout(member) if self.mc_dropout else nullcontext():
                    for _ in range(max(self.mc_dropout, 1)):
                        with self._seeded(n_passes, inputs.device):
                            output = self.inferer(inputs, member, *args, **kwargs)
                        if not isinstance(output, Tensor):
                            raise TypeError(
                                f"network must give a tensor, got {type(output).__name__}"
                            )
                        ensemble.update(output, weight=weight)
                        dims, n_passes = output.ndim, n_passes + 1
                        del output  # or it stays in memory while the next one is made
                del member
        if n_networks == 0:
            raise ValueError("network must be a network or several, got none")
        if self.weights is not None and len(self.weights) != n_networks:
            raise ValueError(
                f"weights must hold one number per member: {n_networks}, got {self.weights}"
            )
        found = channel_first(ensemble.finalize(), self.maps, inputs, 1, dims)
        return {_key(name): array for name, array in found.items()}

    def _accumulator(self) -> EnsembleAccumulator:
        return EnsembleAccumulator(
            self.maps,
            from_logits=self.from_logits,
            activation=self.activation,
            multilabel=self.multilabel,
            space=self.space,
        )

    def _weight(self, number: int) -> float:
        if self.weights is None:
            return 1.0
        if number > len(self.weights):
            raise ValueError(
                f"weights must hold one number per member, got {self.weights} for more members"
            )
        return self.weights[number - 1]

    @contextmanager
    def _seeded(self, number: int, device: torch.device) -> Iterator[None]:
        if self.seed is None or not self.mc_dropout:
            yield
            return
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            torch.manual_seed(self.seed + number)
            yield


def _key(name: str) -> str:
    # "label" is where a batch of MONAI has the reference.
    return "pred" if name == "mean" else f"pred_{name}"


def _members(network: Network | Iterable[Network]) -> Iterator[Network]:
    one = callable(network) and not isinstance(network, nn.ModuleList)
    if one or not isinstance(network, Iterable):
        yield network  # type: ignore[misc]
    else:
        yield from network


@contextmanager
def _dropout(network: Network) -> Iterator[None]:
    """Switch the dropout layers on, and afterwards back to what they were."""
    if not isinstance(network, nn.Module):
        raise TypeError(
            f"network must be a torch.nn.Module for mc_dropout, got {type(network).__name__}"
        )
    before = {module: module.training for module in network.modules()}
    try:
        if set_mc_dropout(network, True) == 0:
            raise ValueError(
                f"network must have dropout layers for mc_dropout, got {type(network).__name__} "
                "without"
            )
        yield
    finally:
        for module, training in before.items():
            module.training = training
