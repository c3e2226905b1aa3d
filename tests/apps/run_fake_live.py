"""``edgeseg live`` with a stand-in for the engine, as a program: for tests that send signals."""

from __future__ import annotations

import sys

from edgeseg.cli import app, live
from tests.apps.fakes import FakeSegmenter

if __name__ == "__main__":
    live._open_model = lambda *_: FakeSegmenter(infer_s=0.005)  # type: ignore[assignment,return-value]
    sys.exit(app.main(["live", "fake", *sys.argv[1:]]))
