#!/usr/bin/env bash
# What a machine with a GPU is needed for, in two parts: A builds, looks whether anything works and
# takes the first numbers; B, with the faults of A mended, runs the sanitizers and the benchmarks.
# Nothing is fetched. Every step is bounded. A step that fails does not stop the next, except for
# the build and the smoke test. FOLDER ends up with a few results and one tar of logs.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 2

usage() {
  cat <<'TEXT'
Usage: benchmarks/gpu.sh [--part a|b] [--seconds N] [--steps NAME,...] [--wheels FOLDER]
                         [--again EXPRESSION] [--dry-run] [FOLDER]

  FOLDER              for tables, pictures and logs.tar.gz (gpu-results)
  --part a|b          a (the default): machine, wheels, build, smoke, points, ncu, tests, triton,
                      losses, compiled; b: wheels, build, again, racecheck, memcheck, kernels,
                      peers, calibration, training-losses, training
  --seconds N         time for everything (570); a step begins within what is left of it
  --steps NAME,...    only these of the part; the build is needed once per machine
  --wheels FOLDER     wheels to install first, without their requirements (pydantic, MONAI, ...)
  --again EXPRESSION  tests of part A to run again in part B, as pytest's -k takes them
  --dry-run           print the steps' limits and commands, run nothing

PYTHON names the interpreter (python3). It needs torch, numpy, scikit-build-core, pybind11, CMake and
ninja; what is missing beyond these is told, and costs the step that needs it.
TEXT
}

python=${PYTHON:-python3} out=gpu-results part=a seconds=570 steps= wheels= again= dry=
while (($#)); do
  case $1 in
    --part) part=${2:?} && shift ;;
    --seconds) seconds=${2:?} && shift ;;
    --steps) steps=,${2:?}, && shift ;;
    --wheels) wheels=${2:?} && shift ;;
    --again) again=${2:?} && shift ;;
    --dry-run) dry=1 ;;
    -h | --help) usage && exit 0 ;;
    -*) echo "gpu.sh: unknown option $1 (--help lists them)" >&2 && exit 2 ;;
    *) out=$1 ;;
  esac
  shift
done
[[ $seconds =~ ^[0-9]+$ ]] || { echo "gpu.sh: --seconds takes a number, got $seconds" >&2; exit 2; }
[[ $part == [ab] ]] || { echo "gpu.sh: --part takes a or b, got $part" >&2; exit 2; }

names=() results=() failed=0
note() { # NAME RESULT...: a line of the summary, written at once
  names+=("$1") && results+=("${*:2}")
  printf '%-15s %s\n' "$1" "${*:2}" | tee -a "$out/summary.txt"
}
wanted() { # NAME: whether --steps has it, or there is none
  [[ -z $steps || $steps == *",$1,"* ]]
}
step() { # NAME LIMIT COMMAND...: run for at most LIMIT seconds, and no longer than what is left of
  # all; its output goes into logs/NAME.log. BUDGET in the command is the limit less what a run
  # needs to end. Fails as the command does.
  local name=$1 limit=$2 left=$((seconds - SECONDS)) begun=$SECONDS code=0 took
  shift 2
  wanted "$name" || return 0
  ((limit > left)) && limit=$left
  set -- "${@//BUDGET/$((limit > 30 ? limit - 20 : 10))}"
  if [[ $dry ]]; then printf '%-15s %4d s  %s\n' "$name" "$limit" "$*" && return 0; fi
  if ((limit < 2)); then note "$name" "not run: the time was up" && failed=1 && return 0; fi
  timeout --kill-after=5 "$limit" "$@" >"$logs/$name.log" 2>&1 || code=$?
  took="$((SECONDS - begun)) s"
  case $code in
    0) note "$name" "ok, $took$(last "$name")" ;;
    124 | 137) note "$name" "stopped after $took$(last "$name")" && failed=1 ;;
    *)
      note "$name" "FAILED ($code), $took$(last "$name")" && failed=1
      tail -n 15 "$logs/$name.log" | sed 's/^/  | /'
      ;;
  esac
  return $code
}
last() { # NAME: pytest's count, where there is one
  grep -hoE '[0-9]+ (passed|failed|skipped).*' "$logs/$1.log" 2>/dev/null | tail -n 1 | sed 's/^/: /; s/ *=*$//'
}
stop() { # the rest would only repeat what failed
  [[ $dry ]] && return 0
  note "the rest" "not run: $1"
  finish
}
finish() {
  wait 2>/dev/null # for the roofs
  {
    echo
    echo "summary of part $part, $SECONDS s, commit ${FASTCAL_COMMIT:-unknown}:"
    for i in "${!names[@]}"; do printf '  %-15s %s\n' "${names[i]}" "${results[i]}"; done
  } | tee "$out/summary.txt"
  tar -C "$out" -czf "$out/logs.tar.gz" logs && rm -rf "$out/logs"
  echo "files in $out"
  exit $failed
}

# Tests that a GPU runs without pydantic or MONAI, and those that need them.
plain=(tests/test_gpu.py tests/test_loss_gpu.py tests/test_upload.py tests/test_bench.py tests/test_info.py)
trained=(tests/test_train_gpu.py tests/test_predict_devices.py)
tested() { # NAME LIMIT WORKERS EXPRESSION FILE...: tests on the GPU; not a plugin of every machine
  local parallel=()
  [[ $dry ]] || ! "$python" -c 'import xdist' 2>/dev/null || parallel=(-n "$3")
  step "$1" "$2" "$python" -m pytest "${@:5}" -m gpu -q -k "$4" "${parallel[@]}" --maxfail=20 \
    -p no:cacheprovider --durations=10 --junitxml="$logs/$1.xml"
}
bench() { # NAME LIMIT OPTION...: of `fastcal bench`, whose tables are written as they come
  step "$1" "$2" "$python" -m fastcal bench --device cuda --budget BUDGET -q "${@:3}" -o "$out/$1"
}
script() { # NAME LIMIT FILE OPTION...: a script of this folder
  step "$1" "$2" "$python" -m "benchmarks.$3" --device cuda "${@:4}" -o "$out/$1"
}
build() { # FASTCAL_CUDA=ON, because a build without nvcc would pass, and every test would skip
  step build "$1" "$python" -m pip install --no-build-isolation --no-deps --no-index \
    --force-reinstall -C cmake.define.FASTCAL_CUDA=ON "${architecture[@]}" . || stop "there is no build"
}

part_a() {
  step machine 20 bash -c "nvidia-smi; command -v nvcc && nvcc --version; '$python' benchmarks/lacking.py"
  [[ $dry || ! -e $logs/machine.log ]] || grep '^lacking' "$logs/machine.log"
  [[ $wheels ]] && step wheels 20 "${install[@]}"
  # The GPU is idle while the compiler works.
  if wanted build && [[ ! $dry ]]; then
    timeout 60 "$python" benchmarks/gpu_roofs.py "$out/roofs.json" >"$logs/roofs.log" 2>&1 &
  fi
  build 130
  if ! step smoke 40 "$python" -m benchmarks.gpu_smoke --backends cuda; then
    step memcheck 60 compute-sanitizer --print-limit 20 "$python" -m benchmarks.gpu_smoke --backends cuda
    stop "the smoke test failed"
  fi
  points=(--sweep product --classes 4 --no-peers --seconds 0.05)
  bench points 30 "${points[@]}" --dtype float32 bfloat16 --members 5 50 \
    --volume 240x240x155 239x241x155 --output entropy all-maps six-maps+calibration \
    --background 0.95 --layout ncdhw
  bench layouts 20 "${points[@]}" --dtype float32 bfloat16 --members 5 --volume 240x240x155 \
    --output entropy all-maps six-maps+calibration --background 0 --layout ncdhw channels-last cropped
  step ncu 60 ncu --clock-control none --set full -k regex:ensemble_pass -c 4 \
    --log-file "$out/ncu.txt" "$python" -m benchmarks.gpu_smoke --profile 4
  tested tests 50 4 "cuda and not compiled" "${plain[@]}"
  tested triton 80 12 "triton and not compiled" tests/test_gpu.py
  tested losses 40 4 "not compiled" tests/test_loss_gpu.py "${trained[@]}"
  tested compiled 40 2 "compiled" "${plain[@]}"
}

part_b() {
  [[ $wheels ]] && step wheels 20 "${install[@]}"
  build 120
  [[ $again ]] && tested again 60 4 "$again" "${plain[@]}" "${trained[@]}"
  step racecheck 60 bash tests/sanitize_gpu.sh racecheck
  step memcheck 60 bash tests/sanitize_gpu.sh memcheck synccheck
  bench kernels 80 --no-peers
  bench peers 60 --sweep product --volume 240x240x155 --classes 4 --members 5 --dtype float32 bfloat16 \
    --background 0.95 --layout ncdhw --output entropy all-maps six-maps+calibration \
    --peer eager compile triton plain --seconds 0.3
  script calibration 15 bench_calibration
  script training-losses 25 bench_losses
  script training 40 bench_training --rounds 3 --jobs 1
}

main() {
  if [[ ! $dry ]]; then
    logs=$out/logs
    mkdir -p "$logs" || exit 2
    rm -f "$out/summary.txt"
    paths=$(mktemp -d) && trap 'rm -rf "$paths"' EXIT
    ln -s "$PWD/benchmarks" "$paths/benchmarks"
    out=$(realpath "$out") logs=$(realpath "$logs")
  else
    paths=PATHS logs=$out/logs
  fi
  # Not the source tree but what was installed is tested: that has the compiled modules.
  export PYTHONSAFEPATH=1 PYTHONPATH=$paths${PYTHONPATH:+:$PYTHONPATH}
  export FASTCAL_COMMIT=${FASTCAL_COMMIT:-$(git describe --always --dirty 2>/dev/null)}
  for folder in /usr/local/cuda/bin /opt/cuda/bin; do
    command -v nvcc >/dev/null || { [[ -x $folder/nvcc ]] && PATH=$PATH:$folder; }
  done
  install=(bash -c "'$python' -m pip install --no-deps --no-index '$wheels'/*.whl")
  # One architecture builds in a fraction of the time of all of them.
  architecture=()
  found=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null | head -n 1 | tr -d '. ')
  [[ $found =~ ^[0-9]+$ ]] && architecture=(-C "cmake.define.CMAKE_CUDA_ARCHITECTURES=$found-real")

  "part_$part"
  [[ $dry ]] && exit 0
  finish
}

main
