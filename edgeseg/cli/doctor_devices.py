"""Doctor's checks of video input and output, depth cameras and NVIDIA hardware."""

from __future__ import annotations

import ctypes.util
import os
import shutil
import subprocess
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from edgeseg.cli.doctor import Finding
from edgeseg.cli.doctor_machine import package_version

_TIMEOUT_S = 5


def video() -> Iterator[Finding]:
    """Decoders and encoders, cameras, windows, GStreamer and the web page."""
    yield _pyav()
    web = package_version("aiohttp")
    yield Finding(
        "aiohttp", web is not None, web or "not installed", "the live page (http:// sinks)", "pip install 'edgeseg[live]'"
    )
    yield _opencv()
    yield _window()
    yield _cameras()
    launcher = shutil.which("gst-launch-1.0")
    purpose = "RTSP with the lowest latency, and hardware decoders"
    yield Finding(
        "GStreamer",
        launcher is not None,
        launcher or "not found",
        purpose,
        "apt install gstreamer1.0-tools gstreamer1.0-plugins-good",
    )


def _pyav() -> Finding:
    purpose, fix = "reading clips and streams, writing MP4", "pip install 'edgeseg[live]'"
    if find_spec("av") is None:
        return Finding("PyAV", False, "not installed", purpose, fix)
    import av

    encoders = [name for name in ("libx264", "libopenh264", "h264_v4l2m2m", "h264_nvenc", "mpeg4") if _can_encode(av, name)]
    h264 = any("264" in name for name in encoders)
    detail = f"{av.__version__}, encoders in the build: {', '.join(encoders) or 'none'}"
    return Finding("PyAV with H.264", h264, detail, purpose, "" if h264 else fix)


def _can_encode(av: object, name: str) -> bool:
    try:
        return bool(av.codec.Codec(name, "w"))  # type: ignore[attr-defined]
    except Exception:  # PyAV's error types differ between versions; each means that there is none
        return False


def _opencv() -> Finding:
    names = ("opencv-python-headless", "opencv-python", "opencv-contrib-python", "opencv-contrib-python-headless")
    found = [f"{name} {package_version(name)}" for name in names if package_version(name)]
    return Finding(
        "OpenCV", bool(found), ", ".join(found) or "not installed", "pictures and windows", "pip install opencv-python-headless"
    )


def _window() -> Finding:
    display = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    gui = any(package_version(name) for name in ("opencv-python", "opencv-contrib-python"))
    reasons = [] if display else ["no DISPLAY"]
    reasons += [] if gui else ["OpenCV is headless"]
    fix = "pip install opencv-python in place of the headless one, apt install libgl1 libsm6 libxcb1, run in a desktop session"
    return Finding("desktop window", not reasons, ", ".join(reasons) or f"display {display}", "the window: sink", fix)


def _cameras() -> Finding:
    devices = sorted(Path("/dev").glob("video*"))
    usable = [str(path) for path in devices if os.access(path, os.R_OK | os.W_OK)]
    locked = [str(path) for path in devices if str(path) not in usable]
    detail = ", ".join(usable) + (f" (no rights: {', '.join(locked)})" if locked else "")
    fix = "add yourself to group video: sudo usermod -aG video $USER" if locked else "plug in a camera"
    return Finding("V4L2 camera", bool(usable), detail or "no /dev/video*", "live from a camera", fix)


def depth() -> Iterator[Finding]:
    """Drivers of depth cameras."""
    yield _library("libfreenect", "freenect", "Kinect v1", "apt install libfreenect0.5")
    yield _library("libfreenect2", "freenect2", "Kinect v2", "pip install 'edgeseg[kinect]', or build libfreenect2")
    yield _library("OpenNI2", "OpenNI2", "Kinect and Xtion, .oni recordings", "apt install libopenni2-0")
    found = package_version("pyrealsense2")
    yield Finding("RealSense", found is not None, found or "not installed", "Intel RealSense cameras", "pip install pyrealsense2")


def _library(name: str, soname: str, purpose: str, fix: str) -> Finding:
    path = ctypes.util.find_library(soname)
    return Finding(name, path is not None, path or "not found", purpose, fix)


def nvidia() -> Iterator[Finding]:
    """GPU, driver, CUDA compiler and TensorRT."""
    gpu = _first_line(["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"])
    model = Path("/proc/device-tree/model")
    jetson = model.read_text(errors="replace").strip("\0") if model.is_file() else ""
    board = jetson if "NVIDIA" in jetson or "Jetson" in jetson else ""
    found = gpu or board
    yield Finding(
        "NVIDIA GPU", bool(found), found or "none found", "TensorRT engines", "a machine with an NVIDIA GPU and its driver"
    )
    compiler = next((line for line in _output(["nvcc", "--version"]) if "release" in line), "")
    yield Finding("nvcc", bool(compiler), compiler or "not found", "building the TensorRT plugins", "install the CUDA toolkit")
    yield _cuda()
    yield _plugins()


def _cuda() -> Finding:
    from edgeseg.engines.nvidia import device

    found, missing = device.gpu(), device.why_no_gpu()
    detail = missing if found is None else f"{found.name}, {found.sm}, {found.memory_mb} MiB, driver {found.driver}"
    fix = missing.partition(": ")[2] if missing == device.MISSING_BINDINGS else "install the NVIDIA driver"
    return Finding("CUDA", found is not None, detail, "running the engines of tensorrt and rtx", fix)


def _plugins() -> Finding:
    from edgeseg.errors import BackendError
    from edgeseg.plugins import plugin_library

    purpose = "our operators in TensorRT, and frames that stay on the GPU"
    try:
        library = plugin_library()
    except BackendError as error:
        return Finding("TensorRT plugins", False, error.what, purpose, error.fix)
    return Finding("TensorRT plugins", True, f"{library.path}, sha256 {library.sha256[:12]}", purpose)


def _output(command: list[str]) -> list[str]:
    if shutil.which(command[0]) is None:
        return []
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return [line.strip() for line in done.stdout.splitlines() if line.strip()] if done.returncode == 0 else []


def _first_line(command: list[str]) -> str:
    return next(iter(_output(command)), "")
