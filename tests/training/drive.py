"""A training run in a process of its own.

``drive.py die_at CONFIG.json DIR STEP``, or under torchrun ``drive.py log SEEN ARGS...``
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import torch

from edgeseg.training import batches


def die_at(settings: str, directory: str, step: str) -> None:
    """Train, and be killed by SIGKILL after so many steps."""
    from edgeseg.training.config import TrainConfig
    from edgeseg.training.loop import train

    def progress(done: int, total: int, text: str) -> None:
        if done == int(step) and "frames/s" not in text:
            os.kill(os.getpid(), signal.SIGKILL)

    train(TrainConfig.from_json(json.loads(Path(settings).read_text())), Path(directory), progress=progress)


def log(seen: str, *arguments: str) -> int:
    """Run the command line; which frames this process reads goes to SEEN.RANK."""
    from edgeseg.cli.app import main

    read = batches._Frames._read

    def spy(self: batches._Frames, index: int) -> object:
        with open(f"{seen}.{os.environ['RANK']}", "a") as stream:
            stream.write(f"{index}\n")
        return read(self, index)

    batches._Frames._read = spy  # type: ignore[method-assign, assignment]
    return main(list(arguments))


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.exit({"die_at": die_at, "log": log}[sys.argv[1]](*sys.argv[2:]))
