"""The words every floor shares, as csrc/core has them for the kernels."""
