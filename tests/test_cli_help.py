"""Help, completion and interrupts: the command line answers at once, and in 80 columns."""

from __future__ import annotations

import inspect
import os
import re
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import typer

from fastcal.cases.told import told
from fastcal.cli import main
from fastcal.cli.app import app
from fastcal.cli.command import summary_of
from fastcal.cli.commands import COMMANDS
from fastcal.cli.values import FORMER, NNUNET, read_arguments

METAVAR = re.compile(r"[A-Z][A-Z]*([,=][A-Z]+)*|\[[A-Z]+\]")
HEAVY = {"torch", "numpy", "nibabel", "scipy", "matplotlib", "monai"}


def every_command() -> list[Any]:
    found = []
    group: Any = typer.main.get_command(app)
    for name, command in group.commands.items():
        inner = getattr(command, "commands", {})
        found += [([name, *more], each) for more, each in [((n,), c) for n, c in inner.items()]]
        found += [] if inner else [([name], command)]
    return [pytest.param(words, command, id=" ".join(words)) for words, command in found]


EVERY = every_command()


# --- what is loaded -------------------------------------------------------------------------------


def run_python(program: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        timeout=60,
    )


@pytest.mark.parametrize(
    ("words", "light"),
    [
        ("--help", True),
        ("--version", True),
        ("predict --help", True),
        ("recalibrate fit --help", True),
        ("no-such-command", True),
        ("train", False),
        ("predict --no-such-option", True),
        ("evaluate --bins many", False),
        ("ensemble -i a b -o out --map entropie", False),
    ],
)
def test_an_answer_that_needs_no_data_loads_few_modules(words: str, light: bool) -> None:
    # A loaded machine takes its time; what takes the time is modules, and they can be counted.
    done = run_python(f"""
        import sys
        from fastcal.cli import main
        main({words.split()!r})
        heavy = {HEAVY!r} | ({{"rich", "pydantic"}} if {light} else set())
        print("loaded", sorted(heavy & set(sys.modules)), len(sys.modules))
    """)
    *_, loaded = done.stdout.splitlines()
    assert loaded.startswith("loaded [] "), done.stdout + done.stderr
    assert int(loaded.split()[-1]) < (330 if light else 550)


@pytest.mark.parametrize("name", COMMANDS)
def test_the_list_of_commands_says_what_their_help_says(name: str) -> None:
    command = COMMANDS[name].load(name)
    assert command.name == name
    assert COMMANDS[name].summary == summary_of(command)


# --- help -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("words", "command"), EVERY)
def test_help_fits_80_columns_and_groups_its_options(
    words: list[str],
    command: Any,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert main([*words, "--help"]) == 0
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines())) <= 80
    assert not re.search(r"[A-Za-z]-$|…|\[default:$", printed, re.MULTILINE)
    assert "Examples:\n" in printed or "Example:\n" in printed
    assert printed.startswith(f"Usage: fastcal {' '.join(words)} ")
    options = [p for p in command.params if p.param_type_name == "option"]
    assert all(option.opts[-1] in printed for option in options)
    assert len(options) < 6 or len(re.findall(r"^[A-Z].*:$", printed, re.MULTILINE)) > 3


def test_the_list_of_commands_fits_80_columns(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    for words in ([], ["quality"], ["ood", "--help"], ["recalibrate", "--help"]):
        main(words)
        printed = "".join(capsys.readouterr())
        assert max(map(len, printed.splitlines())) <= 80


@pytest.mark.parametrize(("words", "command"), EVERY)
def test_options_that_take_a_value_name_it_by_an_upper_case_noun(
    words: list[str], command: Any
) -> None:
    del words
    for option in command.params:
        if not getattr(option, "is_flag", False):
            assert METAVAR.fullmatch(option.metavar or ""), option.opts


@pytest.mark.parametrize(("words", "command"), EVERY)
def test_repeated_options_are_named_in_the_singular(words: list[str], command: Any) -> None:
    # "--classes 2 4", "--members 5 50" of a benchmark are how many, and export has "--member" too.
    counts = {"--classes", "--members"} if words in (["bench"], ["export"]) else set()
    for option in command.params:
        if getattr(option, "multiple", False):
            assert {flag for flag in option.opts if flag.endswith("s")} <= counts | {
                "--loss",
                "--predictions",
            }


@pytest.mark.parametrize(("words", "command"), EVERY)
def test_examples_of_a_command_are_read_by_it(words: list[str], command: Any) -> None:
    _, _, text = command.help.partition("Example")
    examples = [line.split() for line in text.split("\n") if line.strip().startswith("fastcal ")]
    assert examples
    for example in examples:
        assert example[1 : 1 + len(words)] == words
        arguments = example[1 + len(words) :]
        context = command.make_context("fastcal", arguments, resilient_parsing=True)
        assert not context.args
        known = {flag for p in command.params for flag in (*p.opts, *p.secondary_opts)}
        assert {word for word in arguments if re.match(r"--?[a-z]", word)} <= known


def test_words_of_nnunet_are_called_so() -> None:
    group: Any = typer.main.get_command(app)
    predict, evaluate = group.commands["predict"], group.commands["evaluate"]
    texts = {flag: p.help for p in (*predict.params, *evaluate.params) for flag in p.opts}
    for word, option in NNUNET.items():
        assert f"nnU-Net's {word}" in texts[option]
    assert "--chill is nnU-Net's word" in texts["--chill"]


# --- former names ---------------------------------------------------------------------------------


def test_former_names_of_options_are_read_and_not_shown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    calls = []

    def stand_in(*args: Any, **kwargs: Any) -> Any:
        calls.append((args, kwargs))
        return SimpleNamespace(
            out="out", done=(), skipped=(), failed=(), statistics=None, journal=None
        )

    monkeypatch.setattr("fastcal.predict.ensemble_folders", stand_in)
    former = "--inputs a b --maps entropy mean -o x --weights 1 2 --closed=left"
    today = "--input a b --map entropy mean -o x --weight 1 2 --bin-edge=left"
    for words in (former, today, "-i a b -o x --save_probabilities -num_parts 2 -part_id 1"):
        assert main(["ensemble", *words.split()]) == 0
    assert calls[0] == calls[1]
    assert calls[0][1]["maps"] == ["entropy", "mean"]
    found = {name: calls[2][1][name] for name in ("save_probabilities", "num_parts", "part_id")}
    assert found == {"save_probabilities": True, "num_parts": 2, "part_id": 1}
    capsys.readouterr()
    main(["ensemble", "--help"])
    assert not {*FORMER, "-num_parts,"} & set(capsys.readouterr().out.split())


def test_a_command_means_its_own_option_by_a_former_name() -> None:
    group: Any = typer.main.get_command(app)
    read = {
        name: read_arguments(["--members", "3"], group.commands[name].params)
        for name in ("train", "predict", "bench")
    }
    assert read["train"] == read["bench"] == ["--members", "3"]
    assert read["predict"] == ["--member", "3"]


def test_words_behind_two_dashes_are_not_options() -> None:
    group: Any = typer.main.get_command(app)
    words = ["--", "--closed"]
    assert read_arguments(words, group.commands["study"].params) == words


# --- completion -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("fastcal e", {"export", "ensemble", "evaluate"}),
        ("fastcal recalibrate ", {"fit", "apply"}),
        ("fastcal ensemble --fi", {"--fine-bins"}),
        ("fastcal predict --precision ", {"float32", "bf16", "fp16"}),
    ],
)
def test_the_shell_completes_commands_options_and_values(line: str, offered: set[str]) -> None:
    words = line.split(" ")
    done = run_python(
        f"""
        import sys
        from fastcal.cli import main
        try:
            main()
        finally:
            sys.stderr.write("heavy: %s" % ({HEAVY!r} & set(sys.modules)))
        """,
        _FASTCAL_COMPLETE="complete_bash",
        COMP_WORDS=line,
        COMP_CWORD=str(len(words) - 1),
    )
    assert offered == set(done.stdout.split()), done.stderr
    assert done.stderr.endswith("heavy: set()")


# --- Ctrl-C ---------------------------------------------------------------------------------------

INTERRUPTED_AT = """
import signal, sys
from importlib.abc import MetaPathFinder
signal.signal(signal.SIGINT, signal.default_int_handler)

class AtModule(MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == {module!r}:
            sys.meta_path.remove(self)
            signal.raise_signal(signal.SIGINT)

sys.meta_path.insert(0, AtModule())
sys.argv = ["fastcal", "evaluate", "-g", "no-labels", "-p", "nowhere", "-o", "out.json"]
from fastcal.cli import run
run()
"""


@pytest.mark.parametrize(
    "module",
    ["fastcal.cli.app", "typer", "fastcal.cli.evaluate", "torch._C"],
)
def test_an_interrupt_while_modules_are_imported_prints_no_traceback(
    module: str, tmp_path: Path
) -> None:
    program = INTERRUPTED_AT.format(module=module)
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path, timeout=60
    )
    assert done.returncode == 130, done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) <= 1
    assert list(tmp_path.iterdir()) == []


def test_an_interrupt_in_a_finaliser_is_not_lost() -> None:
    done = run_python("""
        import signal, time
        # A process of a shell in the background ignores it.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        from fastcal.cli.interrupts import heard_everywhere

        class Folder:
            def __del__(self):
                raise KeyboardInterrupt

        heard_everywhere()
        try:
            Folder()
            time.sleep(5)
            print("lost")
        except KeyboardInterrupt:
            print("heard")
    """)
    assert (done.stdout, done.stderr) == ("heard\n", "")


def test_an_interrupt_that_became_another_error_is_still_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stand_in(*_: object, **__: object) -> None:
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt as error:
            raise ImportError("initialization failed") from error

    monkeypatch.setattr("fastcal.evaluate.evaluate_folder", stand_in)
    assert main(["evaluate", "-g", "labels", "-p", "predictions", "-o", "scores.json"]) == 130
    assert capsys.readouterr().err == "fastcal: interrupted; the same command resumes from here\n"


# --- progress -------------------------------------------------------------------------------------


def test_cases_are_told_when_they_are_done_with_the_time_that_is_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seconds = iter([0.0, 60.0, 180.0, 300.0])
    monkeypatch.setattr(time, "monotonic", lambda: next(seconds))
    lines: list[str] = []
    seen = [(case, len(lines)) for case in told("abc", lambda state: lines.append(str(state)))]
    assert seen == [("a", 0), ("b", 1), ("c", 2)]
    assert lines == ["1/3 a, 2:00 left", "2/3 b, 1:30 left", "3/3 c, 0:00 left"]


def test_a_folder_where_nothing_is_to_do_is_up_to_date(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["ensemble", "-i", "a", "b", "-o", "out"]
    found = SimpleNamespace(
        out=Path("out"), done=(), skipped=("a", "b", "c"), failed=(), statistics=None, journal=None
    )
    monkeypatch.setattr("fastcal.predict.ensemble_folders", lambda *_, **__: found)
    assert main(words) == 0
    assert capsys.readouterr().out == "Up to date: 3 cases in out\n"
    found.done = ("d",)
    assert main(words) == 0
    assert capsys.readouterr().out == "1 case written to out, 3 were there already\n"


def test_every_long_function_of_cases_has_the_same_progress() -> None:
    from fastcal import convert, evaluate, ood, predict, quality, recalibrate

    functions = [
        *(convert.convert_dataset, evaluate.evaluate_folder, predict.predict_cases),
        *(predict.ensemble_folders, recalibrate.apply_folders, recalibrate.fit_folders),
        *(quality.fit_quality, quality.evaluate_quality),
        *(ood.fit_ood, ood.predict_ood, ood.evaluate_ood),
    ]
    for function in functions:
        parameter = inspect.signature(function).parameters["progress"]
        assert (parameter.annotation, parameter.default) == ("ProgressOption", False), function


# --- waiting --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("loads", "environment", "policy"),
    [
        (["1.0 1.0 1.0 2/99 7"] * 3, {}, "PASSIVE"),
        (["9.0 9.0 9.0 1/99 7"] * 3, {}, None),  # the build before it has ended
        (["0.1 0.1 0.1 3/99 7", "0.1 0.1 0.1 1/99 7", "0.1 0.1 0.1 3/99 7"], {}, None),
        (["1.0 1.0 1.0 4/99 7"] * 3, {"OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE"),
        (["something else"] * 3, {}, None),
    ],
)
def test_threads_sleep_at_barriers_where_another_process_runs(
    loads: list[str],
    environment: dict[str, str],
    policy: str | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from fastcal.cli import waiting

    monkeypatch.setattr(os, "environ", dict(environment))
    texts = iter(loads)
    monkeypatch.setattr(waiting, "_LOAD", SimpleNamespace(read_text=lambda **_: next(texts)))
    waiting.wait_politely_where_it_is_busy()
    assert os.environ.get("OMP_WAIT_POLICY") == policy
