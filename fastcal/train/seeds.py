"""Seeds of everything random in training, derived from the seed, the member and the moment.

No random number depends on what was drawn before, so that a resumed training needs no states of
generators.
"""

from __future__ import annotations

import numpy as np

INITIALISATION, ORDER, AUGMENTATION, DROPOUT, PATCHES = range(5)


def derived_seed(seed: int, member: int, purpose: int, moment: int = 0) -> int:
    """Derive a seed of its own for each purpose and moment of each member.

    Args:
        seed: The seed of the ensemble.
        member: The number of the member.
        purpose: One of the constants of this module.
        moment: Tells the draws of one purpose apart, such as the step.
    """
    sequence = np.random.SeedSequence([seed, member, purpose, moment])
    return int(sequence.generate_state(1, np.uint64)[0] >> 1)
