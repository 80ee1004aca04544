"""The wheel, the sdist and the editable install; what they need, and that it is no more."""

from __future__ import annotations

import math
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from email.parser import Parser
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
# The folder `make` builds in: its object files are reused, so that the kernels are compiled once.
BUILD = ROOT / "build" / "dev"
SIZE_LIMIT = 5_000_000
CUDA_LIMIT = 6_000_000  # more, for machine code of five architectures
SYSTEM_LIBRARIES = r"(libc|libm|libdl|libpthread|librt|libstdc\+\+|libgcc_s|ld-linux-[\w-]+)\.so.*"
NEVER_REQUIRED = ("monai", "matplotlib", "scipy", "SimpleITK", "torchmetrics", "netcal", "triton")

pytestmark = pytest.mark.wheel


def run(*command: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={**os.environ, **environment},
    )


def output(*command: str | Path, **environment: str) -> str:
    result = run(*command, **environment)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def build(kind: str, folder: Path) -> Path:
    """Call a hook of the build backend, as pip does: "wheel", "editable" or "sdist"."""
    settings = {} if kind == "sdist" else {"build-dir": str(BUILD)}
    hook = (
        f"from scikit_build_core.build import build_{kind} as hook;"
        f"print('\\n' + hook({str(folder)!r}, {settings!r}))"
    )
    return folder / output(sys.executable, "-c", hook).splitlines()[-1]


def required(requirements: list[str]) -> dict[str, metadata.Distribution]:
    """The installed distributions that a list of requirements needs, extras left out."""
    found: dict[str, metadata.Distribution] = {}
    pending = [Requirement(text) for text in requirements]
    while pending:
        requirement = pending.pop()
        name = canonicalize_name(requirement.name)
        extras = requirement.extras or {""}
        if requirement.marker and not any(
            requirement.marker.evaluate({"extra": extra}) for extra in extras
        ):
            continue
        # torch's CUDA builds bring triton along; fastcal must not count on it.
        if name in found or name == "triton":
            continue
        found[name] = metadata.distribution(name)
        pending += [Requirement(text) for text in found[name].requires or ()]
    return found


def clean_environment(folder: Path, wheel: Path) -> Path:
    """A virtual environment of a wheel and what it requires; gives its interpreter.

    The required packages are linked in from the environment of the tests, which spares a download
    of torch; nothing else of that environment is visible.
    """
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    python = folder / "bin" / "python"
    site = Path(
        output(python, "-c", "import sysconfig; print(sysconfig.get_path('platlib'))").strip()
    )
    for distribution in required(wheel_metadata(wheel).get_all("Requires-Dist", [])).values():
        tops = {file.parts[0] for file in distribution.files or ()} - {"..", "__pycache__"}
        for top in tops:
            link = site / top
            if not link.exists():
                link.symlink_to(Path(str(distribution.locate_file(top))))
    output(
        *(sys.executable, "-m", "pip", "--python", python, "install"),
        *("--no-deps", "--no-index", "--disable-pip-version-check", wheel),
    )
    return python


def wheel_metadata(wheel: Path) -> metadata.PackageMetadata:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
        return Parser().parsestr(archive.read(name).decode())  # type: ignore[return-value]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("wheel", tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("sdist", tmp_path_factory.mktemp("sdist"))


@pytest.fixture(scope="module")
def clean_python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return clean_environment(tmp_path_factory.mktemp("clean") / "venv", wheel)


def test_wheel_is_small_typed_and_licensed(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert wheel.stat().st_size < SIZE_LIMIT + (CUDA_LIMIT if holds_cuda(wheel) else 0)
    assert {"fastcal/py.typed", "fastcal/_cpu.pyi"} <= set(names)
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert {name.split("/")[0] for name in names} == {"fastcal", wheel_folder(names)}


def wheel_folder(names: list[str]) -> str:
    (folder,) = {name.split("/")[0] for name in names if name.endswith(".dist-info/METADATA")}
    return folder


def test_wheel_bundles_no_library_and_links_only_the_system(wheel: Path, tmp_path: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    native = [name for name in names if re.search(r"\.(so|dylib|dll|a)(\.|$)", name)]
    assert any(re.fullmatch(r"fastcal/_cpu\..*so", name) for name in native)
    assert all(re.fullmatch(r"fastcal/_(cpu|cuda)\..*so", name) for name in native), native
    for name in native:
        module = zipfile.ZipFile(wheel).extract(name, tmp_path)
        needed = re.findall(r"\(NEEDED\).*\[(.+)\]", output("readelf", "-d", module))
        assert [library for library in needed if not re.fullmatch(SYSTEM_LIBRARIES, library)] == []


def holds_cuda(wheel: Path) -> bool:
    return any(name.startswith("fastcal/_cuda.c") for name in zipfile.ZipFile(wheel).namelist())


def test_wheel_holds_the_cuda_module_where_nvcc_is(wheel: Path) -> None:
    """Unless this tree was set to build without (`make build CUDA=OFF`)."""
    cache = (BUILD / "CMakeCache.txt").read_text()
    wanted = "FASTCAL_CUDA:STRING=OFF" not in cache and shutil.which("nvcc") is not None
    assert holds_cuda(wheel) == wanted


def test_cuda_module_imports_without_a_driver(wheel: Path, clean_python: Path) -> None:
    if not holds_cuda(wheel):
        pytest.skip("this wheel was built without CUDA")
    program = "from fastcal import _cuda; print(_cuda.unavailable() or 'works')"
    answer = output(clean_python, "-P", "-c", program, CUDA_VISIBLE_DEVICES="").strip()
    assert answer in ("no NVIDIA driver was found", "the NVIDIA driver shows no GPU") or (
        "too old" in answer
    )


def test_wheel_without_cuda_computes_and_says_that_it_is(
    clean_python: Path, tmp_path: Path
) -> None:
    """The package as it is installed, less the module: what a build without nvcc gives."""
    installed = output(clean_python, "-P", "-c", "import fastcal; print(fastcal.__path__[0])")
    shutil.copytree(
        installed.strip(), tmp_path / "fastcal", ignore=shutil.ignore_patterns("_cuda.*")
    )
    program = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r});"
        "import fastcal, torch; print(fastcal.__path__[0]);"
        "torch.version.cuda = '13.0';"
        "print(next(s.reason for s in fastcal.backends.status() if s.name == 'cuda'));"
        "print(fastcal.ensemble_entropy([torch.zeros(1, 4, 2, 2)] * 2)[0, 0, 0].item())"
    )
    folder, reason, entropy = output(
        clean_python, "-P", "-c", program, CUDA_VISIBLE_DEVICES=""
    ).splitlines()
    assert folder == str(tmp_path / "fastcal")
    assert reason.startswith("not built")
    assert float(entropy) == pytest.approx(math.log(4), abs=1e-6)


def test_clean_environment_holds_no_optional_package(clean_python: Path) -> None:
    found = output(
        clean_python,
        "-c",
        "from importlib.util import find_spec;"
        f"print([name for name in {NEVER_REQUIRED!r} if find_spec(name)])",
    )
    assert found.strip() == "[]"


def test_wheel_computes_in_a_clean_environment_without_gpu(clean_python: Path) -> None:
    program = (
        "import fastcal, torch;"
        "print(fastcal.__file__);"
        "print([s.available for s in fastcal.backends.status() if s.name == 'cpu']);"
        "print(fastcal.ensemble_entropy([torch.zeros(1, 4, 2, 2)] * 2)[0, 0, 0].item())"
    )
    file, available, entropy = output(
        clean_python, "-P", "-c", program, CUDA_VISIBLE_DEVICES=""
    ).splitlines()
    assert Path(file).is_relative_to(clean_python.parent.parent)
    assert available == "[True]"
    assert float(entropy) == pytest.approx(math.log(4), abs=1e-6)


def test_command_runs_in_a_clean_environment(wheel: Path, clean_python: Path) -> None:
    report = output(clean_python.parent / "fastcal", "info", CUDA_VISIBLE_DEVICES="")
    assert wheel_metadata(wheel)["Version"] in report


@pytest.mark.slow
def test_benchmark_runs_in_a_clean_environment(clean_python: Path, tmp_path: Path) -> None:
    words = "--volume 8 --classes 2 --members 2 --dtype float32 --background 0 --layout ncdhw"
    shown = output(
        *(clean_python.parent / "fastcal", "bench", *words.split(), "--no-peers", "-o", tmp_path),
        CUDA_VISIBLE_DEVICES="",
    )
    assert "roofline.png: No module named 'matplotlib'" in shown
    assert "REFUSED" not in shown
    assert {path.name for path in tmp_path.iterdir()} == {"kernels.json", "kernels.md"}


def test_editable_install_runs_the_source_tree(tmp_path: Path) -> None:
    editable = build("editable", tmp_path)
    python = clean_environment(tmp_path / "venv", editable)
    file, isa = output(
        python,
        "-P",
        "-c",
        "import fastcal._cpu; print(fastcal.__file__); print(fastcal._cpu.isa())",
    ).splitlines()
    assert Path(file) == ROOT / "fastcal" / "__init__.py"
    assert isa != ""
    assert wheel_metadata(editable)["Requires-Python"] == ">=3.11"


def configure(folder: Path, source: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Run CMake on a source tree, the folders of PATH that hold an nvcc left out."""
    path = [str(Path(sys.executable).parent), *os.environ["PATH"].split(os.pathsep)]
    without_nvcc = os.pathsep.join(name for name in path if not (Path(name) / "nvcc").exists())
    ninja = shutil.which("ninja", path=without_nvcc)
    pybind11 = output(sys.executable, "-m", "pybind11", "--cmakedir").strip()
    return run(
        *(shutil.which("cmake", path=without_nvcc) or "cmake", "-G", "Ninja"),
        *("-S", source, "-B", folder),
        f"-DCMAKE_MAKE_PROGRAM={ninja}",
        f"-DPython_EXECUTABLE={sys.executable}",
        f"-Dpybind11_DIR={pybind11}",
        "-DSKBUILD=ON",
        "-DSKBUILD_PROJECT_NAME=fastcal",
        f"-DSKBUILD_PROJECT_VERSION={metadata.version('fastcal')}",
        *options,
        PATH=without_nvcc,
        CUDACXX="",
        CUDA_PATH="",
        CUDA_HOME="",
    )


def test_asking_for_cuda_without_nvcc_is_an_error_that_says_so(tmp_path: Path) -> None:
    result = configure(tmp_path, ROOT, "-DFASTCAL_CUDA=ON")
    assert result.returncode != 0
    assert "FASTCAL_CUDA" in result.stderr
    assert "nvcc" in result.stderr


@pytest.mark.parametrize(
    ("cuda", "reason"), [("AUTO", "no working nvcc was found"), ("OFF", "FASTCAL_CUDA=OFF")]
)
def test_without_nvcc_the_cpu_build_configures(tmp_path: Path, cuda: str, reason: str) -> None:
    result = configure(tmp_path, ROOT, f"-DFASTCAL_CUDA={cuda}")
    assert result.returncode == 0, result.stderr
    assert "fastcal: no CUDA module" in result.stdout
    assert reason in result.stdout
    assert "_cuda" not in (tmp_path / "build.ninja").read_text()


def test_unknown_cuda_setting_is_an_error_that_lists_the_known(tmp_path: Path) -> None:
    result = configure(tmp_path, ROOT, "-DFASTCAL_CUDA=MAYBE")
    assert result.returncode != 0
    assert "AUTO" in result.stderr


@pytest.mark.slow
def test_two_builds_of_the_sdist_are_equal(tmp_path: Path) -> None:
    built = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        hook = "from scikit_build_core.build import build_sdist as hook; print(hook({!r}))"
        program = hook.format(str(tmp_path / name))
        where = output(sys.executable, "-c", program, SOURCE_DATE_EPOCH="1700000000")
        built.append((tmp_path / name / where.splitlines()[-1]).read_bytes())
    assert built[0] == built[1]


def test_a_tree_without_git_has_the_version_of_its_sdist(sdist: Path, tmp_path: Path) -> None:
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    (tree,) = (path for path in tmp_path.iterdir() if path.is_dir())
    read = (
        "import os; from scikit_build_core.metadata import setuptools_scm as scm; "
        f"os.chdir({str(tree)!r}); print(scm.dynamic_metadata('version', {{}}))"
    )
    assert output(sys.executable, "-c", read).strip() == tree.name.removeprefix("fastcal-")
    (tree / "PKG-INFO").unlink()
    assert output(sys.executable, "-c", read).strip() == "0.1.0.dev0"


def test_sdist_holds_every_source_and_configures(sdist: Path, tmp_path: Path) -> None:
    assert sdist.stat().st_size < SIZE_LIMIT
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    (tree,) = (path for path in tmp_path.iterdir() if path.is_dir())
    for folder in ("csrc", "fastcal"):
        kinds = {".h", ".inl", ".cpp", ".cu", ".cuh", ".py", ".pyi", ".typed"}
        here, there = (
            {str(f.relative_to(root)) for f in (root / folder).rglob("*") if f.suffix in kinds}
            for root in (ROOT, tree)
        )
        assert there == here
    top = {path.name for path in tree.iterdir()}
    assert {"pyproject.toml", "CMakeLists.txt", "LICENSE", "README.md"} <= top
    assert not {".venv", "build", "demo-run", "dist"} & top
    result = configure(tmp_path / "build", tree, "-DFASTCAL_CUDA=OFF")
    assert result.returncode == 0, result.stderr
