#!/usr/bin/env bash
# Installs the compiler of CUDA 12.9 into a manylinux_2_28 container, which is AlmaLinux 8. Only what
# the module is built from: its wheel links the CUDA runtime statically.
set -euo pipefail
dnf install -y dnf-plugins-core
dnf config-manager --add-repo \
  https://developer.download.nvidia.com/compute/cuda/repos/rhel8/x86_64/cuda-rhel8.repo
dnf install -y cuda-nvcc-12-9 cuda-cudart-devel-12-9 cuda-cccl-12-9
/usr/local/cuda-12.9/bin/nvcc --version
