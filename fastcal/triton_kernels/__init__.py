"""The ops in Triton: one file per op, with its jit kernels first and its launcher last.

Names have prefixes: ``i_`` for the index of a program or a row, ``o_`` for the offsets of lanes,
and ``m_`` for masks. ``P`` and ``F`` are records of compile-time switches. Kernels are compiled
without contraction, so that equal probabilities give the integers of every other backend. Where a
fused multiply-add is wanted, it is written out.

The parameters of a kernel are flat, because Triton specialises a launch by its arguments. Inside,
what travels together is a NamedTuple.
"""
