"""The zoo's table: train, export, calibrate and measure every family, and write what was found.

    python tools/zoo_table.py --work DIR [ROW ...] [--train-only] [--update README.md]

Each row is a recipe of edgeseg/recipes, trained from scratch on procedural scenes in minutes; parameters and GFLOPs are those of
the published network. A row that is measured already is taken from DIR, so that a run that was stopped goes on where it was.
Exits with 1 where a row stays under its floor.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tools.zoo_table_lib.measure import measure_row, train_row
from tools.zoo_table_lib.rows import Row, read_rows
from tools.zoo_table_lib.scenes import keep_scenes
from tools.zoo_table_lib.table import markdown, put


def main() -> int:
    arguments = _arguments()
    rows = [row for row in read_rows() if not arguments.rows or row.recipe in arguments.rows]
    if unknown := set(arguments.rows) - {row.recipe for row in rows}:
        print(f"no such row: {', '.join(sorted(unknown))}", file=sys.stderr)
        return 2
    keep_scenes(arguments.work / "scenes")
    done, failed = [], []
    for row in rows:
        try:
            if arguments.train_only:
                train_row(row, arguments.work / row.recipe / "model", _speaker(row))
                continue
            figures = measure_row(row, arguments.work, arguments.threads, arguments.images, _speaker(row))
        except Exception as error:
            print(f"{row.recipe}: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
            failed.append(row.recipe)
            continue
        done.append((row, figures))
        reached = max(figures["ort_fp32"], figures["openvino_fp32"])
        if reached < row.floor:
            print(f"{row.recipe}: {figures['headline']} {reached:.3f} is under its floor {row.floor}", file=sys.stderr)
            failed.append(row.recipe)
    if done:
        print(markdown(done))
        if arguments.update:
            put(markdown(done), arguments.update)
    return 1 if failed else 0


def _speaker(row: Row):
    return lambda text: print(f"{time.strftime('%H:%M:%S')} {row.recipe}: {text}", file=sys.stderr, flush=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="*", help="recipes; all of them by default")
    parser.add_argument("--work", type=Path, required=True, help="where models and figures are kept")
    parser.add_argument("--threads", type=int, default=1, help="of the engines that are timed")
    parser.add_argument("--images", type=int, default=100, help="pictures to calibrate on")
    parser.add_argument("--train-only", action="store_true", help="only train")
    parser.add_argument("--update", type=Path, help="document whose table is replaced")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
