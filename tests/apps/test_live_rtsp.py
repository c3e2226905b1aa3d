"""A real RTSP camera on this machine that reboots, hangs and comes back with another size."""

from __future__ import annotations

import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from edgeseg_live.frames import Frame
from edgeseg_live.sources import source_factory
from edgeseg_live.supervise import Supervisor, SupervisorConfig

SYSTEM_PYTHON = "/usr/bin/python3"
PROBE = "import gi; gi.require_version('GstRtspServer', '1.0'); from gi.repository import Gst; Gst.init(None); "
PROBE += "import sys; sys.exit(0 if Gst.ElementFactory.find('x264enc') else 1)"


@pytest.fixture(scope="module")
def gstreamer() -> None:
    try:
        answer = subprocess.run([SYSTEM_PYTHON, "-c", PROBE], capture_output=True, timeout=60)
    except OSError:
        pytest.skip(f"no {SYSTEM_PYTHON}")
    if answer.returncode:
        packages = "gir1.2-gst-rtsp-server-1.0 python3-gi gstreamer1.0-plugins-{base,good,ugly}"
        pytest.skip(f"no GStreamer RTSP server (Debian: {packages})")


class Camera:
    """The server as a process that can be killed, stopped and started again on the same port."""

    def __init__(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.process: subprocess.Popen[str] | None = None

    def start(self, width: int, height: int) -> None:
        script = str(Path(__file__).with_name("rtsp_server.py"))
        arguments = [SYSTEM_PYTHON, script, str(self.port), str(width), str(height)]
        self.process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n"

    def signal(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.communicate()
            self.process = None


@pytest.fixture
def camera(gstreamer: None) -> Iterator[Camera]:
    made = Camera()
    made.start(320, 240)
    yield made
    made.kill()


def until(condition: Callable[[], bool], supervisor: Supervisor) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, supervisor.status()
        time.sleep(0.02)


def test_a_camera_that_reboots_with_another_size_and_then_hangs(camera: Camera) -> None:
    frames: list[Frame] = []
    config = SupervisorConfig(stall_s=1.0, backoff_first_s=0.1, backoff_most_s=0.5)
    supervisor = Supervisor(
        source_factory(f"rtsp://127.0.0.1:{camera.port}/cam"), lambda frame: frames.append(frame) is None, config
    )
    supervisor.start()
    until(lambda: len(frames) >= 20, supervisor)
    assert frames[-1].size == (240, 320)
    camera.kill()
    until(lambda: supervisor.status()["state"] == "waiting", supervisor)
    camera.start(160, 120)
    until(lambda: frames[-1].size == (120, 160), supervisor)
    assert supervisor.counters["size_changes"] == 1
    camera.signal(signal.SIGSTOP)
    until(lambda: supervisor.counters["stalled"] >= 1, supervisor)
    camera.signal(signal.SIGCONT)
    seen = len(frames)
    until(lambda: len(frames) >= seen + 10, supervisor)
    supervisor.stop()
    supervisor.join(10)
    assert supervisor.error is None
    assert all(frame.image.std() > 1 for frame in frames[-5:]), "the ball is seen"
