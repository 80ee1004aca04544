#!/usr/bin/env bash
# Builds a wheel, installs it with everything that it requires into an environment of its own, and runs
# there what the README shows: its Python, and its commands on phantoms. docs/release.md says when.
#
#     tests/release_check.sh [FOLDER]            # a temporary folder without it
#     CUDA=ON tests/release_check.sh             # with the CUDA module, minutes more
#     LINK=1 tests/release_check.sh              # links the packages of .venv in, and downloads nothing
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
python=${PYTHON:-"$root/.venv/bin/python"}
work=${1:-$(mktemp -d)}
mkdir -p "$work/dist"
cd "$work"

echo "+ the wheel, in $work"
"$python" - "$root" "$work/dist" "${CUDA:-OFF}" <<'PYTHON'
import os, sys
from scikit_build_core.build import build_wheel
root, dist, cuda = sys.argv[1:]
os.chdir(root)
build_wheel(dist, {"build-dir": f"{dist}/../build", "cmake.define.FASTCAL_CUDA": cuda})
PYTHON
wheel=$(ls -t dist/*.whl | head -1)

echo "+ a clean environment with $wheel"
rm -rf installed
"$python" -m venv --without-pip installed
if [ -n "${LINK:-}" ]; then
  site=$(installed/bin/python -c 'import sysconfig; print(sysconfig.get_path("platlib"))')
  packages=$("$python" -c 'import torch, pathlib; print(pathlib.Path(torch.__file__).parents[1])')
  for entry in "$packages"/*; do
    # All packages but fastcal itself, whose editable install would hide the wheel.
    case $(basename "$entry") in *fastcal* | __editable__* | *.pth | __pycache__) continue ;; esac
    ln -s "$entry" "$site/"
  done
  "$python" -m pip --python installed/bin/python install -q --no-deps --no-index "$wheel"
else
  "$python" -m pip --python installed/bin/python install -q -c "$root/constraints.txt" "$wheel[train,report]"
fi
export PATH="$work/installed/bin:$PATH"
installed/bin/python -c "import fastcal, sys; assert fastcal.__file__.startswith('$work'), fastcal.__file__"

echo "+ what every wheel must do"
installed/bin/python "$root/tests/release_smoke.py"

echo "+ the README's Python"
installed/bin/python - "$root/README.md" <<'PYTHON'
import re, subprocess, sys
for example in re.findall(r"^```python\n(.*?)^```$", open(sys.argv[1]).read(), re.M | re.S):
    subprocess.run([sys.executable, "-c", example], check=True)
PYTHON

echo "+ the README's commands, on phantoms"
installed/bin/python - <<'PYTHON'
from fastcal.data.phantom import write_dataset
write_dataset("Dataset001_Mine", kind="heart", n_cases=6, shape=(32, 32, 6))
PYTHON
tiny=(--epochs 1 --iterations 2 --batch-size 2 --device cpu -q)
fastcal train -d Dataset001_Mine -o run --members 2 --split 3,1,2 "${tiny[@]}"
fastcal predict -m run -i Dataset001_Mine/imagesTr -o predicted -g Dataset001_Mine/labelsTr --case test -q
for member in 0 1; do
  fastcal predict -m run -i Dataset001_Mine/imagesTr -o "fold_$member" --member "$member" --save-probabilities -q
done
fastcal ensemble -i fold_0 fold_1 -o ensembled -g Dataset001_Mine/labelsTr -q
fastcal evaluate -g Dataset001_Mine/labelsTr -p ensembled -o scores.json -q
fastcal recalibrate fit -i fold_0 -g Dataset001_Mine/labelsTr -o calibrator.json -q
fastcal recalibrate apply -c calibrator.json -i fold_0 -o calibrated -q
fastcal status -p ensembled
if command -v auditwheel > /dev/null; then auditwheel show "$wheel"; fi
echo "+ $wheel is fit to be released"
