"""The parts of ``tools/gpu_check.py``: build, cases, oracles, sanitizer, timing, report.

The parent process (gpu_check.py) holds no CUDA context: each stage runs in a child (worker.py), so that a kernel that crashes or
hangs costs one case and not the run.
"""
