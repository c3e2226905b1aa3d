"""The parts of ``tools/zoo_table.py``."""
