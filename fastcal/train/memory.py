"""Advice on what to lower when memory runs out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from fastcal.models.memory import OutOfMemoryError, is_out_of_memory
from fastcal.train.recipe import Recipe


@contextmanager
def explained(recipe: Recipe, members: int) -> Iterator[None]:
    """Turn an out-of-memory error of the block into one line that says what to lower.

    Args:
        recipe: The recipe of the run.
        members: Members that are trained at the same time.

    Raises:
        OutOfMemoryError: The block ran out of memory.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise OutOfMemoryError(_advice(recipe, members)) from error


def _advice(recipe: Recipe, members: int) -> str:
    loop, sampling = recipe.config.loop, recipe.config.sampling
    lower = []
    if members > 1:
        lower.append(f"train fewer of the {members} members at once (--strategy sequential)")
    if sampling.batch_size > 1:
        lower.append(f"lower sampling.batch_size ({sampling.batch_size})")
    if recipe.patch is not None or recipe.dims == 3:
        extents = "whole volumes" if recipe.patch is None else "x".join(map(str, recipe.patch))
        lower.append(f"lower sampling.patch ({extents})")
    if not loop.checkpointing:
        lower.append("set loop.checkpointing=true")
    if not recipe.bf16:
        lower.append("set loop.precision=bf16")
    return f"out of memory on {recipe.device}: {', or '.join(lower) or 'choose a smaller network'}"
