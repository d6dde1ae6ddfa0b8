"""What the ``generate_*.py`` scripts share: write pages, or check that they are what would be written."""

from __future__ import annotations

import argparse
import difflib
import os
from collections.abc import Callable, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def main(description: str | None, pages: Mapping[Path, Callable[[], str]]) -> int:
    """Write each page, or with ``--check`` compare it. Exit status: 0 done or equal, 1 drift."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 if a committed page differs")
    arguments = parser.parse_args()
    status = 0
    for path, render in pages.items():
        text = render()
        committed = path.read_text() if path.exists() else ""
        # Beside the checkout's own pages a test may name one elsewhere.
        name = os.path.relpath(path, ROOT)
        if text == committed:
            print(f"{name} is up to date")
        elif arguments.check:
            status = 1
            before, after = committed.splitlines(), text.splitlines()
            print("\n".join(difflib.unified_diff(before, after, f"committed/{name}", f"generated/{name}", lineterm="")))
        else:
            path.write_text(text)
            print(f"wrote {name}")
    return status


def replace_section(text: str, marker: str, content: str) -> str:
    """``text`` with what stands between ``<!-- marker -->`` and ``<!-- /marker -->`` replaced."""
    before, opening, rest = text.partition(f"<!-- {marker} -->\n")
    _, closing, after = rest.partition(f"<!-- /{marker} -->\n")
    if not opening or not closing:
        raise ValueError(f"no section <!-- {marker} --> … <!-- /{marker} -->")
    return f"{before}{opening}{content}{closing}{after}"
