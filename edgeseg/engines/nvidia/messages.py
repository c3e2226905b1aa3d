"""The library's messages: kept for the error line and for what it prints of the finished engine."""

from __future__ import annotations

from typing import Any

_KEPT_ERRORS, _NOISE = 20, ("--- Begin node ---", "--- End node ---", "Node name:", "Thread context has not been set")


class Log:
    """A logger to hand to the library as ``sink``; never raises into native code.

    Attributes:
        errors: its last error messages.
        layers: the description of the engine's layers, where the builder printed one; "" otherwise.
    """

    def __init__(self, trt: Any) -> None:
        self.errors: list[str] = []
        self.layers = ""
        self.sink = _sink(trt, self)

    def take(self, severity: str, message: str) -> None:
        """One message; ``severity`` as the library names it."""
        if "ERROR" in severity and not any(noise in message for noise in _NOISE):
            self.errors = [*self.errors, " ".join(message.split())][-_KEPT_ERRORS:]
        elif message.startswith("Layers:\n"):
            self.layers = message

    def cause(self) -> str:
        """The message that tells most: the last that is not a mere consequence."""
        return self.errors[-1][:400] if self.errors else "no reason given"


def _sink(trt: Any, log: Log) -> Any:
    class Sink(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()

        def log(self, severity: Any, message: str) -> None:
            log.take(str(severity), message)

    return Sink()
