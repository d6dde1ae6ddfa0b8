"""How every script speaks: lines for people, or one document for programs."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any


class PlainConsole:
    """Says what happens: lines for people, or (``as_json``) lines on stderr and one document on stdout."""

    def __init__(self, *, as_json: bool = False) -> None:
        self.as_json = as_json
        self._stream = sys.stderr if as_json else sys.stdout

    def say(self, line: str = "") -> None:
        """One line, at once."""
        self._stream.write(line + "\n")
        self._stream.flush()

    def document(self, facts: dict[str, Any]) -> None:
        """The result as JSON, if that is wanted."""
        if self.as_json:
            sys.stdout.write(json.dumps(facts, indent=2, ensure_ascii=False) + "\n")


def add_output_options(parser: argparse.ArgumentParser) -> None:
    """Options that all commands have."""
    parser.add_argument("--dry-run", action="store_true", help="say what would be done; change nothing")
    parser.add_argument("--output", choices=("text", "json"), default="text", help="json: one document on stdout")
