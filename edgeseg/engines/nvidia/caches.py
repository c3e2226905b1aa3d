"""Two files that only save time: measured tactics (timing cache) and kernels compiled on first use (TensorRT-RTX).

Each starts with the SHA-256 of the rest and is written atomically; one that is damaged counts as absent. The library itself
ignores what another version or GPU made.
"""

from __future__ import annotations

import hashlib
import logging
import warnings
from pathlib import Path
from typing import Any

from edgeseg.errors import BackendError
from edgeseg.files import write_bytes

_DIGEST_BYTES = 32
log = logging.getLogger("edgeseg.engines")


def read_sealed(path: Path) -> bytes:
    """The bytes that ``write_sealed`` wrote; empty where there are none or they were changed since."""
    try:
        data = path.read_bytes()
    except OSError:
        return b""
    digest, content = data[:_DIGEST_BYTES], data[_DIGEST_BYTES:]
    if hashlib.sha256(content).digest() != digest:
        log.warning("%s: damaged; what it kept is made again", path)
        return b""
    return content


def write_sealed(path: Path, content: bytes) -> None:
    """Write ``content`` with its digest, atomically; nothing for nothing.

    Raises:
        OSError: the place cannot be written.
    """
    if content:
        write_bytes(path, hashlib.sha256(content).digest() + content)


def load_timing_cache(config: Any, path: Path) -> None:
    """Attach the cache in ``path``, or an empty one. The caller holds its lock."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # TensorRT-RTX keeps the calls without effect
        cache = config.create_timing_cache(read_sealed(path))
        if cache is None or not config.set_timing_cache(cache, False):
            config.set_timing_cache(config.create_timing_cache(b""), False)


def save_timing_cache(config: Any, path: Path) -> None:
    """Write the cache of a finished build.

    Raises:
        BackendError: the place cannot be written.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        cache = config.get_timing_cache()
        data = b"" if cache is None else bytes(cache.serialize())
    try:
        write_sealed(path, data)
    except OSError as error:
        raise BackendError(f"{path}: {error.strerror}", "a timing cache that can be written", "another --timing-cache") from error


def make_context(engine: Any, jit_cache: Path | None) -> Any:
    """An execution context; with TensorRT-RTX, which compiles kernels here, out of ``jit_cache`` as far as it fits.

    Gives None where the library fails.
    """
    if jit_cache is None or not hasattr(engine, "create_runtime_config"):
        return engine.create_execution_context()
    config = engine.create_runtime_config()
    if not hasattr(config, "create_runtime_cache"):
        return engine.create_execution_context()
    cache, known = config.create_runtime_cache(), read_sealed(jit_cache)
    if known:
        cache.deserialize(known)
    config.set_runtime_cache(cache)
    context = engine.create_execution_context(config)
    try:
        if (compiled := bytes(cache.serialize())) != known:
            write_sealed(jit_cache, compiled)
    except OSError as error:
        log.warning("%s: %s; kernels are compiled again next time", jit_cache, error.strerror)
    return context
