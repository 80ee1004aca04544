#!/usr/bin/env bash
# The CUDA kernels on a GPU under compute-sanitizer: races in shared memory, then memory accesses and
# barriers; or the tools that are named. The first finds what no test on a CPU can. PYTHON names the
# interpreter (python3). Ends with 0 where all are clean.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 2

python=${PYTHON:-python3}
tool=$(command -v compute-sanitizer || ls /usr/local/cuda/bin/compute-sanitizer 2>/dev/null) || {
  echo "sanitize_gpu.sh: no compute-sanitizer on PATH" >&2
  exit 2
}
# Without torch's cache every tensor is an allocation of its own, whose end the tool knows.
export PYTORCH_NO_CUDA_MEMORY_CACHING=1 PYTHONPATH="$PWD/tests${PYTHONPATH:+:$PYTHONPATH}"

failed=0
check() { # TOOL ARGUMENTS...: of kernel_cases.py
  echo "== $1"
  if ! "$tool" --tool "$1" --error-exitcode 9 --print-limit 20 \
    "$python" tests/kernel_cases.py cuda cuda "${@:2}"; then
    failed=1
    echo "== $1 FAILED"
  fi
}
(($#)) || set -- racecheck memcheck synccheck
for one in "$@"; do
  check "$one" --few
done
exit $failed
