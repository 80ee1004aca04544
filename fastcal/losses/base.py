"""What every loss is: a module that `torch.jit.script` accepts."""

# torch.jit.script cannot read annotations that are strings: no `from __future__ import` here.
import torch
from torch import Tensor, nn


class Loss(nn.Module):
    """A loss of logits ``[B, C, *S]`` and an integer target ``[B, *S]``.

    `torch.jit.script` accepts it, alone and inside another module, as a call into Python. A script
    with such a call runs, but cannot be saved.
    """

    def __prepare_scriptable__(self) -> nn.Module:
        """Return what `torch.jit.script` compiles instead."""
        loss = self

        class PythonCall(nn.Module):
            # A script keeps ignored functions, and nothing else that it cannot compile: the loss
            # itself has to be what the function encloses.
            @torch.jit.ignore  # type: ignore[untyped-decorator]
            def call(self, logits: Tensor, target: Tensor) -> Tensor:
                found: Tensor = loss(logits, target)
                return found

            def forward(self, logits: Tensor, target: Tensor) -> Tensor:
                found: Tensor = self.call(logits, target)
                return found

        return PythonCall()
