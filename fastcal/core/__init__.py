"""The structs and checks that every floor shares, as csrc/core has them for the kernels."""
