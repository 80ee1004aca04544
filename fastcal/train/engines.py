"""Engines, which compute the losses and gradients of a step for one member or for several."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from fastcal.losses import DeepSupervisionLoss
from fastcal.train.batches import Batch
from fastcal.train.learner import Learner
from fastcal.train.recipe import Recipe

Logits = Tensor | Sequence[Tensor]


class Engine(Protocol):
    """Computes the gradients of members that are at the same step."""

    learners: Sequence[Learner]

    def losses(self, batches: Sequence[Batch]) -> Tensor:
        """Compute the losses ``[M]`` of one batch per member.

        The gradients are left in the parameters, where the optimisers read them.
        """
        ...


class Alone:
    """One member, by torch's autograd. In a team, each process takes its share of the batch."""

    def __init__(self, learners: Sequence[Learner]) -> None:
        (learner,) = self.learners = learners
        self.recipe = learner.recipe
        self.loss = _Loss(self.recipe)
        self.format = _memory_format(self.recipe)
        network: nn.Module = learner.network
        network.to(memory_format=self.format)  # type: ignore[call-overload]
        network.train()
        loop = self.recipe.config.loop
        if loop.checkpointing:
            learner.network.checkpointing = True
        self.forward: Callable[[Tensor], Logits] = self.recipe.team.parallel(network)
        if loop.compile != "off":
            self.forward = torch.compile(self.forward, mode=loop.compile)

    def losses(self, batches: Sequence[Batch]) -> Tensor:
        """Compute the member's loss ``[1]``; see `Engine.losses`."""
        (batch,) = batches
        learner, device, share = self.learners[0], self.recipe.device, self.recipe.team.share
        images = batch.images[share].to(device, memory_format=self.format, non_blocking=True)
        labels = batch.labels[share].to(device, non_blocking=True)
        with self.recipe.autocast():
            logits = self.forward(images)
        learner.optimiser.zero_grad(set_to_none=True)
        loss = self.loss(logits, labels)
        loss.backward()  # type: ignore[no-untyped-call]
        return self.recipe.team.mean(loss.detach())[None]


class Together:
    """Members of one architecture, with their weights stacked, under one `torch.func.vmap`.

    Each learner's weights and buffers become views of the stack, so that optimisers, checkpoints
    and validation see ordinary networks. Only the networks run under vmap; the losses do not, so
    that any loss will do. Random numbers such as those of dropout differ between the members.
    """

    def __init__(self, learners: Sequence[Learner]) -> None:
        self.learners = learners
        self.recipe = learners[0].recipe
        self.loss = _Loss(self.recipe)
        networks = [learner.network.train() for learner in learners]
        for network in networks:
            network.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        self.parameters, self.buffers = stack_module_state(networks)
        for number, network in enumerate(networks):
            for name, tensor in _named_state(network):
                tensor.data = (self.parameters | self.buffers)[name].detach()[number]
        skeleton = copy.deepcopy(networks[0]).to("meta")

        def one(parameters: Any, buffers: Any, images: Tensor) -> Logits:
            result: Logits = functional_call(skeleton, (parameters, buffers), (images,))
            return result

        self.forward = vmap(one, randomness="different")
        if self.recipe.config.loop.compile != "off":
            self.forward = torch.compile(self.forward, mode=self.recipe.config.loop.compile)

    def losses(self, batches: Sequence[Batch]) -> Tensor:
        """Compute the losses ``[M]`` of all members; see `Engine.losses`."""
        device = self.recipe.device
        images = torch.stack([batch.images for batch in batches]).to(device, non_blocking=True)
        with self.recipe.autocast():
            logits = self.forward(self.parameters, self.buffers, images)
        losses = torch.stack(
            [
                self.loss(_of_member(logits, number), batch.labels.to(device, non_blocking=True))
                for number, batch in enumerate(batches)
            ]
        )
        for parameter in self.parameters.values():
            parameter.grad = None
        losses.sum().backward()  # type: ignore[no-untyped-call]
        for number, learner in enumerate(self.learners):
            for name, parameter in learner.network.named_parameters():
                stacked = self.parameters[name].grad
                parameter.grad = None if stacked is None else stacked[number]
        return losses.detach()


class _Loss:
    """The recipe's loss in float32, over all outputs of a deeply supervised network."""

    def __init__(self, recipe: Recipe) -> None:
        self.one = recipe.loss()
        self.deep = DeepSupervisionLoss(self.one)

    def __call__(self, logits: Logits, labels: Tensor) -> Tensor:
        if isinstance(logits, Tensor):
            loss: Tensor = self.one(logits.float(), labels)
        else:
            loss = self.deep([output.float() for output in logits], labels)
        return loss


def _of_member(outputs: Logits, number: int) -> Logits:
    if isinstance(outputs, Tensor):
        return outputs[number]
    return [output[number] for output in outputs]


def _named_state(network: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from network.named_parameters()
    yield from network.named_buffers()


def _memory_format(recipe: Recipe) -> torch.memory_format:
    if not recipe.channels_last:
        return torch.contiguous_format
    return torch.channels_last if recipe.dims == 2 else torch.channels_last_3d
