"""Say which packages and programs `gpu.sh` would use but cannot find."""

import shutil
from importlib.util import find_spec

PACKAGES = {
    "torch": "everything",
    "numpy": "everything",
    "scikit_build_core": "the build",
    "pybind11": "the build",
    "typer": "the commands",
    "rich": "the commands",
    "triton": "the Triton backend",
    "pytest": "the tests",
    "hypothesis": "the tests",
    "matplotlib": "roofline.png",
    "torchmetrics": "its column",
    "monai": "its column and that of the plain pipeline",
    "exacta": "its column",
    "pydantic": "the training",
    "nibabel": "the training",
}
PROGRAMS = {
    "cmake": "the build",
    "ninja": "the build",
    "nvcc": "the CUDA backend",
    "nvidia-smi": "naming the GPU's architecture",
    "compute-sanitizer": "the sanitizers",
}


def main() -> None:
    lacking = [(name, use) for name, use in PACKAGES.items() if find_spec(name) is None]
    lacking += [(name, use) for name, use in PROGRAMS.items() if shutil.which(name) is None]
    for name, use in lacking:
        print(f"lacking {name}: needed for {use}")
    if not lacking:
        print("nothing lacking")


if __name__ == "__main__":
    main()
