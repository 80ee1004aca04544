"""A pytest plugin: the tests of every engine go to the Triton kernels, run by Triton's interpreter.

Loaded with ``-p triton_interpreter`` in a process of its own whose environment has
``TRITON_INTERPRET=1``, because Triton reads the flag once, when a kernel is defined.
"""

from __future__ import annotations

import engines
import torch

from fastcal import backends

torch.set_num_threads(1)
# Interpreted kernels take the CPU tensors that the tests make.
backends._DEVICES["triton"] = ("cpu", "cuda")
engines.ENGINES[:] = [engines.Engine("triton")]
