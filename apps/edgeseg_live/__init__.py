"""The live app: camera or clip in, segmentation overlay out, with bounded latency. See docs/live.md."""
