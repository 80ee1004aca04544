"""Everything random in a member's training, as functions of the seed, the member and the moment.

Nothing depends on what was drawn before, so that a resumed training needs no generator states.
"""

from __future__ import annotations

import numpy as np

INITIALISATION, ORDER, AUGMENTATION, DROPOUT, PATCHES = range(5)


def derived_seed(seed: int, member: int, purpose: int, moment: int = 0) -> int:
    """A seed of its own for each purpose and moment of each member."""
    sequence = np.random.SeedSequence([seed, member, purpose, moment])
    return int(sequence.generate_state(1, np.uint64)[0] >> 1)
