"""What the table has rows for: a recipe to train and measure, and the network of the paper to count."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgeseg.folder import recipes_directory

ROWS = Path(__file__).with_name("rows.json")


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        recipe: name of the settings in edgeseg/recipes; they are trained and measured.
        title: what people call it.
        paper: options that make the published network, and its number of classes and input size (width, height).
        floor: what the headline figure of the trained variant must reach on the test split.
    """

    recipe: str
    title: str
    floor: float
    classes: int = 21
    size: tuple[int, int] = (512, 512)
    paper: dict[str, Any] = field(default_factory=dict)

    @property
    def settings(self) -> dict[str, Any]:
        """The recipe's TrainConfig as JSON."""
        found: dict[str, Any] = json.loads((recipes_directory() / f"{self.recipe}.json").read_text("utf-8"))
        return found


def read_rows() -> list[Row]:
    """All rows, in the table's order."""
    rows = json.loads(ROWS.read_text("utf-8"))
    return [Row(**{**row, "size": tuple(row.get("size", (512, 512)))}) for row in rows]
