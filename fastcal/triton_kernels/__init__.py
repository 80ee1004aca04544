"""The ops in Triton: one op one file, its jit kernels first, then its launcher.

Prefixes: ``i_`` index of a program or a row, ``o_`` offsets of lanes, ``m_`` masks. Kernels are
compiled without contraction, so that equal probabilities give the integers of every other backend;
where a fused multiply-add is wanted it is written out.
"""
