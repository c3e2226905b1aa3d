"""What is wrong in a data set's annotations and does not stop a run: counted by kind, with the places."""

from __future__ import annotations

from collections.abc import Iterator


class Problems:
    """Kinds of problems and where they are; the same place is counted once, however often it is read."""

    def __init__(self) -> None:
        self._found: dict[str, dict[str, None]] = {}

    def add(self, kind: str, where: str) -> None:
        """Count one problem.

        Args:
            kind: what is wrong and what is done about it, the same words each time.
            where: the file, annotation or picture.
        """
        self._found.setdefault(kind, {})[where] = None

    @property
    def counts(self) -> dict[str, int]:
        return {kind: len(places) for kind, places in self._found.items()}

    def __len__(self) -> int:
        return sum(self.counts.values())

    def __iter__(self) -> Iterator[tuple[str, str]]:
        """(kind, where) in the order they were found, kind by kind."""
        return ((kind, where) for kind, places in self._found.items() for where in places)
