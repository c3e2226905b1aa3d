"""Building in a process of its own, seen from the parent: progress, cancelling, time limit, and how it died."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterator
from typing import Any

from edgeseg.engines.session import Progress
from edgeseg.errors import BackendError

_GRACE_S = 10.0  # from asking a build to stop to killing it: a step of the builder may take seconds
_TAIL_LINES, _TICK_S = 12, 0.25
# sys.path travels along: the parent may find edgeseg where a fresh interpreter would not.
_START = "import sys, json; sys.path[:] = json.loads(sys.argv.pop(1)); from edgeseg.engines.nvidia.worker import main; main()"


def build_in_child(request: dict[str, Any], progress: Progress, timeout_s: float | None = None) -> dict[str, Any]:
    """Run ``worker.build`` on a JSON request; returns what it reports as done.

    Args:
        progress: told in words what is being done.
        timeout_s: kill the build after so long.

    Raises:
        BackendError: as the worker raised it; or the process died or took too long, with the last lines it printed.
    """
    library = request["library"]
    with tempfile.TemporaryFile() as printed:
        try:
            with _running(request, printed) as (process, lines):
                answer = _listen(process, lines, progress, timeout_s)
                code = process.wait()
        except TimeoutError as error:
            what = f"{library}: the build took longer than {timeout_s:g} s"
            raise BackendError(what, fix="a larger --timeout, or a lower --builder-level") from error
        if "done" in answer and code == 0:
            done: dict[str, Any] = answer["done"]
            return done
        if "error" in answer:
            raise BackendError(*answer["error"])
        raise BackendError(
            f"{library}: the build process {_death(code)}: {_tail(printed)}", fix="see docs/tensorrt.md, or --backend ort"
        )


@contextlib.contextmanager
def _running(request: dict[str, Any], printed: Any) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """The started worker and the descriptor of its messages; however the block ends, the worker is gone after it."""
    read, write = os.pipe()
    command = [sys.executable, "-c", _START, json.dumps([os.path.abspath(item) for item in sys.path]), str(write)]
    try:
        # A session of its own: Ctrl-C at the terminal must reach the builder through its monitor, not in mid-step.
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=printed, stderr=printed, pass_fds=(write,), start_new_session=True
        )
    finally:
        os.close(write)
    try:
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError), process.stdin:
            process.stdin.write(json.dumps(request).encode())
        yield process, read
    finally:
        _stop(process)
        os.close(read)


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is not None:
        return
    process.send_signal(signal.SIGINT)
    try:
        process.wait(_GRACE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _listen(process: subprocess.Popen[bytes], descriptor: int, progress: Progress, timeout_s: float | None) -> dict[str, Any]:
    """Pass progress on until the worker closes its pipe; returns its last word, empty if it said none."""
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    answer: dict[str, Any] = {}
    rest = b""
    with selectors.DefaultSelector() as selector:
        selector.register(descriptor, selectors.EVENT_READ)
        while True:
            if deadline is not None and time.monotonic() > deadline:
                process.kill()
                raise TimeoutError
            if not selector.select(_TICK_S):
                continue
            chunk = os.read(descriptor, 1 << 16)
            if not chunk:
                return answer
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                message = json.loads(line)
                if "progress" in message:
                    progress(message["progress"])
                else:
                    answer = message


def _death(code: int) -> str:
    if code >= 0:
        return f"ended with code {code}"
    try:
        return f"died of {signal.Signals(-code).name}"
    except ValueError:
        return f"died of signal {-code}"


def _tail(printed: Any) -> str:
    """The last lines that the process printed, as one line."""
    printed.seek(max(0, printed.seek(0, os.SEEK_END) - (1 << 14)))
    lines = deque((line.strip() for line in printed.read().decode(errors="replace").splitlines() if line.strip()), _TAIL_LINES)
    telling = [line for line in lines if not line.startswith(("File ", "at ", "^"))]
    return " | ".join(telling[-3:])[:400] or "it printed nothing"
