"""Every Triton kernel run by Triton's interpreter: the tests of the other backends, in a process
of their own, because the interpreter is chosen when a kernel is defined."""

from __future__ import annotations

import os
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="triton is not installed")

TESTS = Path(__file__).parent

# File -> words of which one is in the name of each test that is run: interpreted kernels are slow.
CASES = {
    "test_ensemble.py": (
        "match_the_oracle and (float32-4-12 or float16-4-5 or 17-1-contiguous)",
        "every_reading_matches_the_oracle and not 19",
        "empty_volumes",
    ),
    "test_ensemble_extremes.py": (
        "minus_infinity and 4",
        "invalid_voxel_is_nan and 3 and bfloat16",
        "ties_go_to_the_lowest_class and (4 or 17)",
        "votes_that_tie",
        "subnormal and float32",
        "out_of_range",
        "values_of_known_ensembles",
    ),
    "test_ensemble_arguments.py": (
        "given_outputs and strided",
        "integer_type_given and uint8",
    ),
    "test_accumulator.py": (
        "bits_of_one_shot_for_every_reading",
        "streamed_statistics_are_the_integers",
        "bits_of_one_shot and bfloat16-23-1",
    ),
    "test_calibration.py": (
        "golden",
        "scores_match_the_oracle and (float32-4-10 or float16-4-15 or float64-2-1)",
        "beside_every_edge and (float32 or float64) and 7-right",
        "exact_at_every_skew_and_tail and (0.6-1025 or 0.97-1025)",
        "binary_data",
        "multilabel_statistics and 3",
        "case_reduction",
        "clipped",
    ),
    "test_temperature.py": (
        "sums_match_the_oracle and (2-dtype or 5-dtype)",
        "saturated",
        "minus_infinity_is_read",
        "bad_voxels and True",
        "without_voxels",
    ),
    "test_loss_sums.py": (
        "sums_equal_the_formulas and (softmax-3 or sigmoid-1)",
        "layouts_and_types and (strided-dtype1 or channels_last-dtype2)",
        "gaps_equal_the_formulas and 7",
        "those_of_the_reference",
        "invalid_logits",
        "minus_infinity_is_a",
        "no_class and dtype1",
    ),
    "test_extras.py": (
        "counted_as_the_oracle and 2-True-dtype1",
        "bits_of_the_reference and dtype2-right-15",
    ),
    "test_segment_sums.py": (
        "every_sum_is_that_of_the_formulas and float32 and not True-True",
        "those_of_the_reference and 2-False-dtype1",
        "no_number_is_counted",
        "single_voxels",
    ),
    "test_regions.py": ("regions_have_the_bits_of_the_reference and False",),
    "triton_walk_cases.py": ("beyond_two_to_the_31", "class_strides"),
}
# More of what these files say, with --slow: they take ten to twenty seconds each.
SLOW = {
    "test_ensemble_extremes.py": ("invalid_voxel_is_nan and 18-nan and float32",),
    "test_extras.py": ("bits_of_the_reference and dtype0-left",),
}


@pytest.fixture(scope="module")
def outcomes(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, list[str]]:
    """Name of each test run -> the messages of those of its cases that did not pass."""
    report = tmp_path_factory.mktemp("interpreter") / "report.xml"
    # The words of a file choose from that file alone.
    chosen = [*CASES.items(), *(SLOW.items() if request.config.getoption("--slow") else ())]
    words = " or ".join(f"({file} and ({case}))" for file, cases in chosen for case in cases)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "triton_interpreter"]
    # The interpreter computes with NumPy, which warns where a voxel is not a number.
    command += ["-W", "ignore::RuntimeWarning"]
    command += ["-p", "no:cacheprovider", f"--junitxml={report}", "-k", f"triton and ({words})"]
    paths = [str(TESTS), str(TESTS.parent), os.environ.get("PYTHONPATH", "")]
    environment = {
        **os.environ,
        "TRITON_INTERPRET": "1",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join(path for path in paths if path),
    }
    run = subprocess.run(
        [*command, *(str(TESTS / file) for file in CASES)],
        capture_output=True,
        text=True,
        env=environment,
    )
    assert report.exists(), run.stdout[-2000:] + run.stderr[-2000:]
    found: dict[str, list[str]] = {}
    for case in ElementTree.parse(report).iter("testcase"):
        test, _, parameters = case.attrib["name"].partition("[")
        assert not parameters.startswith(("reference", "cpu"))
        failures = found.setdefault(test, [])
        failures += [
            f"[{parameters}: {problem.attrib.get('message', problem.tag)}" for problem in case
        ]
    return found


def test_interpreted_kernels_pass_the_tests_of_every_engine(outcomes):
    assert {test: problems for test, problems in outcomes.items() if problems} == {}


@pytest.mark.parametrize(
    "test",
    [
        "test_maps_match_the_oracle",
        "test_every_reading_matches_the_oracle",
        "test_streaming_gives_the_bits_of_one_shot",
        "test_streamed_statistics_are_the_integers_of_one_shot",
        "test_scores_match_the_oracle",
        "test_multilabel_statistics_match_the_oracle",
        "test_extras_have_the_bits_of_the_reference",
        "test_regions_have_the_bits_of_the_reference",
        "test_sums_match_the_oracle",
        "test_every_sum_is_that_of_the_formulas",
        "test_offsets_beyond_two_to_the_31_are_right",
    ],
)
def test_interpreted_kernels_were_put_to_the_oracle(outcomes, test):
    assert test in outcomes
