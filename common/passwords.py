"""URLs and texts as they may be shown: passwords in them become ``***``."""

from __future__ import annotations

import re

# In a text, up to a space or a quote that is not escaped: what else ends a URL may stand in a password.
_URL = re.compile(r"://(?:\\.|[^\s\"\\])*")


def without_password(url: str) -> str:
    """The URL as it may be logged, whether it is one or not."""
    shown = re.sub(r"(?<=//)([^/?#@:]*):.*@", r"\1:***@", url)
    return re.sub(r"([?&](?:sentinel_)?password=)[^&]*", r"\1***", shown)


def without_passwords(text: str) -> str:
    """Any text as it may be shown: each URL in it as `without_password` leaves it."""
    return _URL.sub(lambda found: without_password(found[0]) if "@" in found[0] or "=" in found[0] else found[0], text)
