"""URIs of sources and sinks: ``scheme:rest?key=value``; a bare path is a file or a folder."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, urlsplit

from edgeseg.errors import SourceError

_SCHEME = re.compile(r"^([a-z][a-z0-9+.-]+):", re.IGNORECASE)
_CREDENTIALS = re.compile(r"(?<=//)[^/@\s]+@")
_SECRET_KEYS = re.compile(r"((?:token|password|passwd|pwd|key|secret)=)[^&\s]+", re.IGNORECASE)


@dataclass(frozen=True)
class Uri:
    """A parsed URI. ``rest`` is what follows ``scheme:`` without our query options; network URIs keep theirs in ``text``."""

    text: str
    scheme: str
    rest: str
    options: dict[str, str] = field(default_factory=dict)

    @property
    def shown(self) -> str:
        """The URI without user names, passwords and tokens."""
        return redact(self.text)

    def take(self, name: str, default: str) -> str:
        return self.options.get(name, default)

    def integer(self, name: str, default: int, low: int, high: int) -> int:
        """Option ``name`` as an integer in ``low..high``."""
        return int(self.number(name, default, low, high, whole=True))

    def number(self, name: str, default: float, low: float, high: float, whole: bool = False) -> float:
        """Option ``name`` as a number in ``low..high``.

        Raises:
            SourceError: it is none, or outside.
        """
        raw = self.options.get(name)
        if raw is None:
            return default
        try:
            value = int(raw) if whole else float(raw)
        except ValueError:
            value = float("nan")
        if not low <= value <= high:
            kind = "a whole number" if whole else "a number"
            raise SourceError(f"{self.shown}: {name}={raw!r}", f"{kind} from {low:g} to {high:g}", f"correct ?{name}=")
        return value

    def only(self, *known: str) -> Uri:
        """Refuse options that nothing reads."""
        if unknown := sorted(set(self.options) - set(known)):
            listed = ", ".join(known) or "none"
            raise SourceError(f"{self.shown}: unknown option {unknown[0]!r}", f"options: {listed}", f"remove {unknown[0]!r}")
        return self


def redact(text: str) -> str:
    """``text`` with credentials in URLs and secret query values replaced by ``***``."""
    return _SECRET_KEYS.sub(r"\1***", _CREDENTIALS.sub("***@", text))


def parse_uri(text: str) -> Uri:
    """Split ``text``; a text with no scheme, or one of a single letter, is a path and taken literally."""
    match = _SCHEME.match(text)
    if not match:
        return Uri(text, "", text)
    scheme, rest = match.group(1).lower(), text[match.end() :]
    if rest.startswith("//") and scheme != "file":
        return Uri(text, scheme, rest, dict(parse_qsl(urlsplit(text).query, keep_blank_values=True)))
    path, _, query = rest.partition("?")
    return Uri(text, scheme, path[2:] if path.startswith("//") else path, dict(parse_qsl(query, keep_blank_values=True)))
