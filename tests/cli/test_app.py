"""The command line as a whole: light help, one-line errors, exit codes, JSON on stdout alone."""

from __future__ import annotations

import errno
import json
import os
import shlex
import signal
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer

from edgeseg.cli import app as cli
from edgeseg.cli import common
from edgeseg.errors import EdgesegError
from tests.manifests import folder

HEAVY = ("torch", "openvino", "onnxruntime", "av", "aiohttp", "cv2", "onnx", "numpy", "edgeseg_live")


def edgeseg(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run ``edgeseg`` in a process of its own."""
    command = [sys.executable, "-m", "edgeseg", *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=120, check=False, env={**os.environ, "COLUMNS": "120", **environment}
    )


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = cli.run(list(arguments))
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def one_error(stderr: str) -> str:
    assert stderr.startswith("error: ")
    assert stderr.count("\n") == 1
    assert "Traceback" not in stderr
    return stderr


# --- help --------------------------------------------------------------------------------------------------------


def test_help_lists_every_command_and_imports_nothing_heavy() -> None:
    code = (
        "import sys\nfrom edgeseg.cli.app import run\ncode = run(['--help'])\n"
        f"heavy = sorted(set({HEAVY}) & set(sys.modules))\nassert code == 0 and not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    for name in cli.COMMANDS:
        assert f" {name} " in done.stdout


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_has_help_and_examples(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    module = cli.COMMANDS[name][0]
    assert find_spec(module) is not None, f"{module} is in COMMANDS and does not exist"
    code, out, err = run(capsys, name, "--help")
    assert (code, err) == (0, "")
    assert f"edgeseg {name}" in out
    assert "Examples" in out


def test_help_is_shown_without_arguments_and_the_version_on_demand(capsys: pytest.CaptureFixture[str]) -> None:
    assert "Usage: edgeseg" in run(capsys)[1]
    code, out, _ = run(capsys, "--version")
    assert (code, out.split()[0]) == (0, "edgeseg")


def test_completion_knows_commands_and_options() -> None:
    done = edgeseg(_EDGESEG_COMPLETE="complete_bash", COMP_WORDS="edgeseg ca", COMP_CWORD="1")
    assert set(done.stdout.split()) == {"calibrate", "cache"}


# --- errors ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["nonsense"], 2, "No such command"),
        (["zo"], 2, "Did you mean 'zoo'"),
        (["zoo", "--nope"], 2, "--nope"),
        (["inspect"], 2, "DIR"),
        (["inspect", "/no/such/model"], 1, "edgeseg zoo"),
        (["import", "none.onnx", "--classes", "a,b", "-o", "{tmp}/m"], 1, "none.onnx"),
        (["import", "none.onnx", "--classes", "a,a", "-o", "{tmp}/m"], 1, "repeated names"),
        (["import", "none.onnx", "--classes", "a,b", "--size", "1x", "-o", "{tmp}/m"], 1, "--size"),
        (["import", "none.onnx", "--classes", "a,b", "--mean", "0,x,0", "-o", "{tmp}/m"], 1, "--mean"),
        (["import", "none.onnx", "--classes", "a,b", "--scale", "1/0", "-o", "{tmp}/m"], 1, "--scale"),
        (["import", "none.onnx", "--classes", "a,b", "--colour-order", "hsv", "-o", "{tmp}/m"], 1, "--colour-order"),
        (["import", "none.onnx", "--classes", "@none.txt", "-o", "{tmp}/m"], 1, "none.txt"),
        (["import", "none.onnx", "--classes", "a,b", "-o", "{tmp}"], 1, "exists"),
    ],
)
def test_mistakes_are_one_line_and_an_exit_code(arguments: list[str], code: int, told: str, tmp_path: Path, capsys: Any) -> None:
    found, out, err = run(capsys, *(item.replace("{tmp}", str(tmp_path)) for item in arguments))
    assert (found, out) == (code, "")
    assert told in one_error(err)
    assert list(tmp_path.iterdir()) == []


class CalibrationError(Exception):
    """As calibration raises it, which knows nothing of edgeseg."""


@pytest.mark.parametrize(
    ("error", "code", "told"),
    [
        (EdgesegError("a", "b", "c"), 1, "a; expected b; fix: c"),
        (EdgesegError("two\nlines"), 1, "two lines"),
        (CalibrationError("no images"), 1, "no images"),
        (OSError(28, "No space left on device", "/disk"), 1, "/disk: No space left on device"),
        (ModuleNotFoundError("No module named 'torch'", name="torch"), 1, "pip install 'edgeseg[train]'"),
        (MemoryError(), 1, "out of memory"),
        (ZeroDivisionError("a bug"), 70, "EDGESEG_DEBUG=1"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_every_exception_has_a_line_and_a_code(error: BaseException, code: int, told: str, monkeypatch: Any, capsys: Any) -> None:
    def fail() -> None:
        raise error

    monkeypatch.setattr(cli, "load_command", lambda name: typer.main.get_command(_single(fail)))
    monkeypatch.delenv("EDGESEG_DEBUG", raising=False)
    found, _, err = run(capsys, "zoo")
    assert found == code
    assert told in one_error(err)


def _single(function: Any) -> typer.Typer:
    holder = typer.Typer(add_completion=False)
    holder.command("zoo")(function)
    return holder


def test_debug_shows_the_traceback() -> None:
    assert "Traceback" in edgeseg("--debug", "inspect", "/no/such/model").stderr
    assert "Traceback" in edgeseg("inspect", "/no/such/model", EDGESEG_DEBUG="1").stderr
    assert "Traceback" not in edgeseg("inspect", "/no/such/model", EDGESEG_DEBUG="0").stderr


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_signals_clean_up_and_exit_with_their_code(tmp_path: Path, number: int, code: int) -> None:
    target = tmp_path / "out"
    program = (
        "import os, signal, sys, time, typer\nfrom edgeseg.cli import app\nfrom edgeseg.files import atomic_directory, Path\n"
        "def work():\n    with atomic_directory(Path(sys.argv[1])) as d:\n"
        "        (d / 'half').write_text('x'); print('ready', flush=True); time.sleep(60)\n"
        "holder = typer.Typer(add_completion=False); holder.command('zoo')(work)\n"
        "app.load_command = lambda name: typer.main.get_command(holder)\nsys.exit(app.main(['zoo']))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(target)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    _, err = process.communicate(timeout=30)
    assert process.returncode == code
    assert "Traceback" not in err
    assert list(tmp_path.iterdir()) == []


def test_a_reader_that_goes_away_is_no_error() -> None:
    script = f"{shlex.quote(sys.executable)} -m edgeseg doctor | head -c 1 > /dev/null"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=120, check=False)
    assert done.stderr == ""


def test_a_hanging_daemon_thread_does_not_change_the_exit() -> None:
    program = (
        "import atexit, sys, threading, time, typer\nfrom edgeseg.cli import app\n"
        "atexit.register(lambda: print('tidied'))\n"
        "def work():\n    threading.Thread(target=time.sleep, args=(60,), daemon=True).start(); print('done')\n"
        "holder = typer.Typer(add_completion=False); holder.command('zoo')(work)\n"
        "app.load_command = lambda name: typer.main.get_command(holder)\nsys.argv = ['edgeseg', 'zoo']\nsys.exit(app.main())"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stdout.split(), done.stderr) == (0, ["done", "tidied"], "")


# --- JSON --------------------------------------------------------------------------------------------------------


def test_only_json_reaches_stdout(tmp_path: Path) -> None:
    model = folder(tmp_path / "model")
    for arguments in (["zoo"], ["inspect", str(model.path)], ["doctor"]):
        done = edgeseg(*arguments, "--json")
        assert done.returncode == 0, done.stderr
        assert isinstance(json.loads(done.stdout), dict)


def test_native_prints_do_not_reach_the_json(tmp_path: Path) -> None:
    program = (
        "import os\nfrom edgeseg.cli import common\ncommon.keep_stdout_for_json()\n"
        "os.write(1, b'noise of a library')\nprint('more noise', flush=True)\ncommon.print_json({'a': float('nan')})"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert json.loads(done.stdout) == {"a": None}
    assert "noise of a library" in done.stderr


def test_plain_turns_everything_into_json_types() -> None:
    value = {
        "n": np.float32("nan"),
        "i": np.int64(3),
        "a": np.array([[1.0, np.inf]]),
        "p": Path("x"),
        "t": (True, None),
        "g": iter("ab"),
    }
    assert common.plain(value) == {"n": None, "i": 3, "a": [[1.0, None]], "p": "x", "t": [True, None], "g": ["a", "b"]}
    assert common.plain(EdgesegError.exit_code) == 1
    with pytest.raises(TypeError):
        common.plain(object())


def test_progress_is_silent_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with common.progress("work", 10) as bar:
        bar(3)
        bar.advance()
        bar.describe("other")
    assert bar.done == 4
    assert capsys.readouterr() == ("", "")


# --- our commands ------------------------------------------------------------------------------------------------


def test_import_then_inspect(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    graph = folder(tmp_path / "from").graph
    target = tmp_path / "my model"
    names = tmp_path / "names.txt"
    names.write_text("road\ncar\n", encoding="utf-8")
    arguments = ["import", str(graph), "--classes", f"@{names}", "--mean", "0.5,0.5,0.5", "--std", "1/4,1/4,1/4", "-o", str(target)]
    code, out, _ = run(capsys, *arguments, "--json")
    assert code == 0
    assert json.loads(out)["parity"]["argmax_agreement"] == 1.0
    assert run(capsys, *arguments)[0] == 1
    assert run(capsys, *arguments, "--force", "--name", "other")[0] == 0
    code, out, _ = run(capsys, "inspect", str(target), "--json")
    result = json.loads(out)
    assert result["manifest"]["name"] == "other"
    assert result["manifest"]["input"]["std"] == [0.25] * 3
    assert result["files"] == {"model.onnx": "ok"}
    assert result["graph"]["operators"] == {"Conv": 1}
    assert result["graph"]["parameters"] == 54
    assert result["graph"]["gmacs"] == pytest.approx(4 * 6 * 54 / 1e9)
    assert "Conv 1" in run(capsys, "inspect", str(target))[1]


def test_inspect_counts_the_work_of_half_precision_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("EDGESEG_HOME", str(tmp_path))
    code, out, _ = run(capsys, "inspect", "streets", "--json")
    assert code == 0
    assert json.loads(out)["graph"]["gmacs"] == pytest.approx(1.312, abs=0.001)


def test_a_title_wider_than_its_table_stays_on_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    title = "a title much longer than the table it stands over"
    common.print_table(title, ["a"], [["1"]])
    assert capsys.readouterr().out.splitlines()[0] == title


def test_inspect_reports_a_damaged_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = folder(tmp_path / "model")
    model.graph.write_bytes(model.graph.read_bytes()[:-1])
    code, out, err = run(capsys, "inspect", str(model.path), "--json")
    assert code == 1
    assert json.loads(out)["files"]["model.onnx"] != "ok"
    assert "model.onnx" in one_error(err)


def test_force_never_replaces_what_is_no_model_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    graph = folder(tmp_path / "from").graph
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "thesis.tex").write_text("x")
    code, _, err = run(capsys, "import", str(graph), "--classes", "a,b", "-o", str(precious), "--force")
    assert code == 1
    assert "not a model folder" in one_error(err)
    assert (precious / "thesis.tex").read_text() == "x"


def test_import_into_a_read_only_place_is_told_before_the_file_is_read(tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    def refuse(**_: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    code, _, err = run(capsys, "import", "none.onnx", "--classes", "a,b", "-o", str(tmp_path / "m"))
    assert code == 1
    assert "Read-only" in one_error(err)


def test_zoo_lists_every_shipped_model(capsys: pytest.CaptureFixture[str]) -> None:
    from edgeseg.folder import shipped_models

    _, out, _ = run(capsys, "zoo", "--json")
    models = json.loads(out)["models"]
    assert [item["name"] for item in models] == shipped_models()
    for item in models:
        assert item["parameters"] > 0
        assert item["training_data"]
        assert item["licence"]


def test_doctor_tells_what_for_and_how_of_everything_missing(capsys: pytest.CaptureFixture[str]) -> None:
    from edgeseg.cli.doctor import CHECKS

    _, out, _ = run(capsys, "doctor", "--json")
    groups = json.loads(out)
    assert list(groups) == list(CHECKS)
    for item in (item for group in groups.values() for item in group):
        assert item["detail"], item
        if item["present"] is False:
            assert item["purpose"], item
            assert item["fix"], item


def test_doctor_survives_a_broken_check(monkeypatch: pytest.MonkeyPatch) -> None:
    from edgeseg.cli import doctor

    monkeypatch.setitem(doctor.CHECKS, "video", "edgeseg.cli.doctor_devices:no_such_check")
    (finding,) = doctor.findings("video")
    assert finding.present is False
    assert "no_such_check" in finding.detail


# --- documents ---------------------------------------------------------------------------------------------------


def command_lines() -> list[list[str]]:
    """Every ``edgeseg ...`` line in the code blocks of docs/cli.md."""
    text = (Path(__file__).parents[2] / "docs" / "cli.md").read_text(encoding="utf-8")
    blocks = text.split("```")[1::2]
    return [line.split()[1:] for block in blocks for line in block.splitlines() if line.startswith("edgeseg ")]


def test_the_document_shows_every_command() -> None:
    assert {line[0] for line in command_lines()} == set(cli.COMMANDS)


@pytest.mark.parametrize("line", command_lines(), ids=" ".join)
def test_the_documents_examples_use_options_that_exist(line: list[str]) -> None:
    command = cli.load_command(line[0])
    for name in line[1:2]:
        command = getattr(command, "commands", {}).get(name, command)
    known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    assert {item for item in line if item.startswith("-")} <= known
