#!/usr/bin/env bash
# Everything a machine with a GPU is needed for, in one command and one folder: build, gpu tests,
# kernel benchmark, sanitizers, benchmarks of losses and training. Nothing is fetched. A step that
# fails or runs out of its time does not stop the next; a summary closes the output.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 2

usage() {
  cat <<'TEXT'
Usage: benchmarks/gpu.sh [--seconds N] [--steps NAME,...] [--wheels FOLDER] [--dry-run] [FOLDER]

  FOLDER            for logs, tables and pictures (gpu-results)
  --seconds N       time for everything (570), of which each step has its share
  --steps NAME,...  machine, wheels, build, info, tests, kernels, targets, sanitize, calibration,
                    losses, training; all without it
  --wheels FOLDER   wheels to install first, without their requirements (peers such as MONAI)
  --dry-run         print the steps' commands, run nothing

PYTHON names the interpreter (python3). It needs torch, numpy, scikit-build-core, pybind11, CMake and
ninja; what is missing beyond these is told, and costs the step that needs it.
TEXT
}

python=${PYTHON:-python3} out=gpu-results seconds=570 steps= wheels= dry=
while (($#)); do
  case $1 in
    --seconds) seconds=${2:?} && shift ;;
    --steps) steps=,${2:?}, && shift ;;
    --wheels) wheels=${2:?} && shift ;;
    --dry-run) dry=1 ;;
    -h | --help) usage && exit 0 ;;
    -*) echo "gpu.sh: unknown option $1 (--help lists them)" >&2 && exit 2 ;;
    *) out=$1 ;;
  esac
  shift
done
[[ $seconds =~ ^[0-9]+$ ]] || { echo "gpu.sh: --seconds takes a number, got $seconds" >&2; exit 2; }

names=() results=() failed=0 planned=0
note() { # NAME RESULT...: a line of the summary
  names+=("$1") && results+=("${*:2}")
  printf '%-12s %s\n' "$1" "${*:2}"
}
step() { # NAME SHARE COMMAND...: run within its share of 570 s and what the steps before left of
  # theirs; its output goes into FOLDER/NAME.log. BUDGET in the command is what it may begin within.
  local name=$1 share=$(($2 * seconds / 570)) left=$((seconds - SECONDS)) begun=$SECONDS code=0
  local budget took
  shift 2
  [[ -z $steps || $steps == *",$name,"* ]] || return 0
  ((share < 2)) && share=2
  planned=$((planned + share)) budget=$((planned - SECONDS))
  [[ $dry ]] || ((budget < share)) && budget=$share
  ((budget > left)) && budget=$left
  set -- "${@//BUDGET/$((budget > 60 ? budget - 40 : 20))}"
  if [[ $dry ]]; then printf '%-12s %4d s  %s\n' "$name" "$budget" "$*" && return 0; fi
  if ((budget < 2)); then note "$name" "not run: the time was up" && failed=1 && return 0; fi
  timeout --kill-after=5 "$budget" "$@" >"$out/$name.log" 2>&1 || code=$?
  took="$((SECONDS - begun)) s"
  case $code in
    0) note "$name" "ok, $took$(last "$name")" ;;
    124 | 137) note "$name" "stopped after $took" && failed=1 ;;
    *) note "$name" "FAILED ($code), $took" && failed=1 && tail -n 15 "$out/$name.log" | sed 's/^/  | /' ;;
  esac
}
last() { # NAME: pytest's count, where there is one
  grep -hoE '[0-9]+ (passed|failed|skipped).*' "$out/$1.log" 2>/dev/null | tail -n 1 | sed 's/^/: /; s/ *=*$//'
}
absent() { # NAME FILE: a script that is not in this tree
  [[ -e $2 || (-n $steps && $steps != *",$1,"*) ]] && return 1
  note "$1" "not run: there is no $2"
}
benchmark() { # NAME SHARE OPTION...: a script of this folder
  absent "$1" "benchmarks/bench_$1.py" && return 0
  step "$1" "$2" "$python" -m "benchmarks.bench_$1" --device cuda "${@:3}" -o "$out/$1"
}

main() {
  if [[ ! $dry ]]; then
    mkdir -p "$out" || exit 2
    paths=$(mktemp -d) && trap 'rm -rf "$paths"' EXIT
    ln -s "$PWD/benchmarks" "$paths/benchmarks"
    out=$(realpath "$out")
  else
    paths=PATHS
  fi
  # Not the source tree but what was installed is tested: that has the compiled modules.
  export PYTHONSAFEPATH=1 PYTHONPATH=$paths${PYTHONPATH:+:$PYTHONPATH}
  export FASTCAL_COMMIT=${FASTCAL_COMMIT:-$(git describe --always --dirty 2>/dev/null)}
  for folder in /usr/local/cuda/bin /opt/cuda/bin; do
    command -v nvcc >/dev/null || { [[ -x $folder/nvcc ]] && PATH=$PATH:$folder; }
  done

  # One architecture builds in a fraction of the time of all of them.
  arch=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null | head -n 1 | tr -d '. ')
  build=("$python" -m pip install --no-build-isolation --no-deps --no-index --force-reinstall)
  [[ $arch =~ ^[0-9]+$ ]] && build+=(-C "cmake.define.CMAKE_CUDA_ARCHITECTURES=$arch-real")
  marked=$(grep -lE 'mark\.gpu\b' tests/test_*.py | tr '\n' ' ')

  step machine 10 bash -c "nvidia-smi; command -v nvcc && nvcc --version; '$python' benchmarks/lacking.py"
  [[ $dry || ! -e $out/machine.log ]] || grep '^lacking' "$out/machine.log"
  [[ $wheels ]] && step wheels 30 bash -c "'$python' -m pip install --no-deps --no-index '$wheels'/*.whl"
  step build 140 "${build[@]}" .
  step info 20 "$python" -m fastcal info
  # shellcheck disable=SC2086
  step tests 90 "$python" -m pytest $marked -m gpu -p no:cacheprovider --durations=10 --junitxml="$out/tests.xml"
  step kernels 120 "$python" -m fastcal bench --device cuda --budget BUDGET -q -o "$out/kernels"
  step targets 50 "$python" -m fastcal bench --device cuda --budget BUDGET -q --sweep product --volume 240x240x155 \
    --classes 2 4 14 --members 5 50 --dtype float32 bfloat16 --background 0.95 --layout ncdhw \
    --output entropy all-maps six-maps+calibration --peer eager triton --seconds 0.3 -o "$out/targets"
  absent sanitize tests/sanitize_gpu.sh || step sanitize 60 bash tests/sanitize_gpu.sh
  benchmark calibration 15
  benchmark losses 25
  benchmark training 40 --rounds 3 --jobs 1

  [[ $dry ]] && exit 0
  {
    echo
    echo "summary, $SECONDS s, commit ${FASTCAL_COMMIT:-unknown}:"
    for i in "${!names[@]}"; do printf '  %-12s %s\n' "${names[i]}" "${results[i]}"; done
  } | tee "$out/summary.txt"
  echo "files in $out"
  exit $failed
}

main
