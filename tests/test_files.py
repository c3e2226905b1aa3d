"""Writes survive kills and full disks: a reader finds the old content or the new, never half."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from edgeseg.errors import EdgesegError
from edgeseg.files import (
    atomic_directory,
    atomic_path,
    check_writable,
    file_lock,
    sha256_file,
    sha256_json,
    write_bytes,
    write_json,
)

PRELUDE = "import os, signal, sys\nfrom pathlib import Path\nfrom edgeseg.files import *\ntarget = Path(sys.argv[1])\n"


def child(code: str, target: Path) -> subprocess.CompletedProcess[str]:
    """Run ``code`` in a process of its own with ``target`` as argument."""
    return subprocess.run(
        [sys.executable, "-c", PRELUDE + code, str(target)], capture_output=True, text=True, timeout=60, check=False
    )


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_file_is_replaced_whole_with_the_users_rights(tmp_path: Path) -> None:
    target = tmp_path / "sub" / "a.json"
    write_json(target, {"a": 1})
    write_json(target, {"a": 2})
    assert json.loads(target.read_text()) == {"a": 2}
    assert names(target.parent) == ["a.json"]
    assert target.stat().st_mode & 0o111 == 0
    (tmp_path / "plain").write_text("")
    assert target.stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_an_error_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    target = tmp_path / "a.bin"
    write_bytes(target, b"old")

    def fail() -> None:
        with atomic_path(target) as temporary:
            temporary.write_bytes(b"half of the n")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert target.read_bytes() == b"old"
    assert names(tmp_path) == ["a.bin"]


def test_kill_in_the_middle_of_a_file_leaves_the_old(tmp_path: Path) -> None:
    target = tmp_path / "a.bin"
    write_bytes(target, b"old")
    code = "with atomic_path(target) as t:\n    t.write_bytes(b'half'); os.kill(os.getpid(), signal.SIGKILL)"
    assert child(code, target).returncode == -signal.SIGKILL
    assert target.read_bytes() == b"old"
    write_bytes(target, b"new")
    assert target.read_bytes() == b"new"


@pytest.mark.parametrize("moment", ["before", "inside"])
def test_kill_around_the_swap_of_a_directory_leaves_a_whole_one(tmp_path: Path, moment: str) -> None:
    target = tmp_path / "model"
    with atomic_directory(target) as temporary:
        (temporary / "a").write_text("old")
    kill = "os.kill(os.getpid(), signal.SIGKILL)"
    if moment == "before":
        code = f"with atomic_directory(target) as t:\n    (t / 'a').write_text('half'); {kill}"
        expected = "old"
    else:  # after the swap, while the old one is removed
        code = (
            f"import edgeseg.files as f\nf.shutil.rmtree = lambda *a, **k: {kill}\n"
            "with atomic_directory(target) as t:\n    (t / 'a').write_text('new')"
        )
        expected = "new"
    assert child(code, target).returncode == -signal.SIGKILL
    assert (target / "a").read_text() == expected


def test_there_is_no_moment_without_the_directory(tmp_path: Path) -> None:
    target, missing, stop = tmp_path / "model", [], threading.Event()
    with atomic_directory(target) as temporary:
        (temporary / "a").write_text("0")

    def watch() -> None:
        while not stop.is_set():
            try:
                (target / "a").read_text()
            except FileNotFoundError:
                missing.append(1)

    watcher = threading.Thread(target=watch)
    watcher.start()
    for count in range(30):
        with atomic_directory(target) as temporary:
            (temporary / "a").write_text(str(count))
    stop.set()
    watcher.join()
    assert not missing
    assert names(tmp_path) == ["model"]


def test_directory_is_replaced_without_an_exchange_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgeseg.files._exchange", lambda first, second: False)
    target = tmp_path / "model"
    for text in ("old", "new"):
        with atomic_directory(target) as temporary:
            (temporary / "a").write_text(text)
    assert (target / "a").read_text() == "new"
    assert names(tmp_path) == ["model"]


def test_an_error_leaves_the_old_directory_and_no_other(tmp_path: Path) -> None:
    target = tmp_path / "model"

    def fail() -> None:
        with atomic_directory(target) as temporary:
            (temporary / "a").write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert names(tmp_path) == []


def test_a_full_disk_leaves_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "a.bin"
    write_bytes(target, b"old")
    code = (
        "import resource\nsignal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "try:\n    write_bytes(target, b'x' * 5000)\nexcept OSError as error:\n    sys.exit(77)"
    )
    assert child(code, target).returncode == 77
    assert target.read_bytes() == b"old"
    assert names(tmp_path) == ["a.bin"]


def test_sync_failure_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "a.bin"
    write_bytes(target, b"old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_bytes(target, b"new")
    assert target.read_bytes() == b"old"
    assert names(tmp_path) == ["a.bin"]


def test_terminated_writer_cleans_up(tmp_path: Path) -> None:
    code = (
        "from edgeseg.cli import app\nsignal.signal(signal.SIGTERM, app._terminate)\n"
        "with atomic_path(target) as t, atomic_directory(target.parent / 'd') as d:\n"
        "    t.write_bytes(b'half'); (d / 'a').write_text('half'); os.kill(os.getpid(), signal.SIGTERM); signal.pause()"
    )
    assert child(code, tmp_path / "a.bin").returncode == 143
    assert names(tmp_path) == []


def test_lock_is_exclusive_and_dies_with_its_holder(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    code = "with file_lock(target):\n    print('held', flush=True); sys.stdin.readline()"
    holder = subprocess.Popen(
        [sys.executable, "-c", PRELUDE + code, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    got = threading.Event()

    def take() -> None:
        with file_lock(path):
            got.set()

    waiter = threading.Thread(target=take)
    waiter.start()
    assert not got.wait(0.2)
    holder.kill()
    holder.communicate()
    assert got.wait(10)
    waiter.join()


def test_check_writable_refuses_before_any_work(tmp_path: Path) -> None:
    check_writable(tmp_path / "new" / "deep")
    assert names(tmp_path / "new" / "deep") == []
    (tmp_path / "file").write_text("")
    for bad in (tmp_path / "file" / "sub", Path("/proc/edgeseg")):
        with pytest.raises(EdgesegError, match="fix: "):
            check_writable(bad)


def test_digests(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert sha256_file(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert sha256_json({"b": 1, "a": [1.5]}) == sha256_json({"a": [1.5], "b": 1})
