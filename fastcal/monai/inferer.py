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

    Every member, and every stochastic pass of it, goes through ``inferer`` (sliding windows, say),
    and its stitched output into the planes of an `EnsembleAccumulator`: memory does not depend on
    their number (MONAI#5207).

    Args:
        inferer: Runs one network over the input: a `SlidingWindowInferer`, or whatever else gives a
            tensor; a `SimpleInferer` by default.
        maps: Any of ``mean, label, confidence, entropy, expected_entropy, mutual_information,
            variance, disagreement``; see `fastcal.ensemble_statistics`.
        mc_dropout: Passes a member with its dropout layers switched on, whatever ``eval()`` set;
            0 for one pass of the networks as they are.
        seed: Of the passes with dropout; None draws from torch's generator as it stands.
        weights: One a member, normalised to sum 1; equal by default.
        from_logits: Networks give logits; False: probabilities. Overlapping windows are averaged
            as they come, before they are activated. Never guessed.
        activation: ``"softmax"``, or ``"sigmoid"`` for exclusive classes that need not sum to 1.
        multilabel: Every class is a Bernoulli of its own.
        space: ``"prob"`` averages probabilities, ``"logit"`` averages logits and activates then.

    ``inferer(inputs [B, Ch, *S], network, *args, **kwargs)``: ``network`` is one network, or any
    iterable of them: a list, a `ModuleList`, or a generator that loads one checkpoint at a time.
    Gives the maps by name, ``[B, 1, *S]`` (``[B, C, *S]`` for the mean), with the metadata of
    ``inputs`` where it is a `MetaTensor`. Further arguments go to ``inferer`` with every network.
    Gradients are never recorded.

    Raises:
        TypeError, ValueError: An argument is not one of these; a network that gives no tensor; no
            network; one without dropout layers where ``mc_dropout`` wants them; weights that are
            not one a member.

    Example:
        >>> import torch
        >>> from monai.inferers import SlidingWindowInferer
        >>> networks = [torch.nn.Conv2d(1, 3, 3, padding=1) for _ in range(4)]
        >>> inferer = UncertaintyInferer(SlidingWindowInferer((16, 16), overlap=0.5))
        >>> found = inferer(torch.zeros(1, 1, 40, 40), networks)
        >>> found["mean"].shape, found["entropy"].shape
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
            raise ValueError(f"mc_dropout must be 0 or more passes, got {mc_dropout}")
        self.seed = None if seed is None else whole_number(seed, "seed")
        self.weights = check_weights(weights)
        self.from_logits = from_logits
        self.activation: Activation = activation
        self.multilabel = multilabel
        self.space: Space = space
        self._accumulator()  # a combination that cannot be is refused here

    def __call__(
        self, inputs: Tensor, network: Network | Iterable[Network], *args: Any, **kwargs: Any
    ) -> dict[str, Tensor]:
        ensemble = self._accumulator()
        dims = n_networks = n_passes = 0
        with torch.no_grad():
            for member in _members(network):  # enumerate would hold on to the last one
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
                        del output  # else it stays in memory while the next is made
                del member
        if n_networks == 0:
            raise ValueError("network must be a network or several, got none")
        if self.weights is not None and len(self.weights) != n_networks:
            raise ValueError(f"weights must be one a member: {n_networks}, got {self.weights}")
        return channel_first(ensemble.finalize(), self.maps, inputs, 1, dims)

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
            raise ValueError(f"weights must be one a member, got {self.weights}")
        return self.weights[number - 1]

    @contextmanager
    def _seeded(self, number: int, device: torch.device) -> Iterator[None]:
        if self.seed is None or not self.mc_dropout:
            yield
            return
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            torch.manual_seed(self.seed + number)
            yield


def _members(network: Network | Iterable[Network]) -> Iterator[Network]:
    one = callable(network) and not isinstance(network, nn.ModuleList)
    if one or not isinstance(network, Iterable):
        yield network  # type: ignore[misc]
    else:
        yield from network


@contextmanager
def _dropout(network: Network) -> Iterator[None]:
    """Dropout layers on, and back to what they were."""
    if not isinstance(network, nn.Module):
        raise TypeError(f"mc_dropout needs a torch.nn.Module, got {type(network).__name__}")
    before = {module: module.training for module in network.modules()}
    try:
        if set_mc_dropout(network, True) == 0:
            raise ValueError(f"mc_dropout needs dropout layers, {type(network).__name__} has none")
        yield
    finally:
        for module, training in before.items():
            module.training = training
