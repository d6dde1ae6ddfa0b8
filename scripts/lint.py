#!/usr/bin/env python3
"""Every check that reads the code without running it, one on each core; all are run even if one fails.

Style and format by ruff, types by mypy, and the generated files against what their generators write now.
Every ``scripts/generate_*.py`` is one: it knows ``--check``.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent


def checks() -> list[tuple[str, list[str]]]:
    """(name, command) of each check."""
    found = [
        ("ruff check", [str(BIN / "ruff"), "check", "--quiet", "."]),
        ("ruff format --check", [str(BIN / "ruff"), "format", "--check", "--quiet", "."]),
        ("mypy --strict", [str(BIN / "mypy"), "--no-error-summary"]),
        ("compile_protos --check", [sys.executable, "scripts/compile_protos.py", "--check"]),
    ]
    for generator in sorted((ROOT / "scripts").glob("generate_*.py")):
        script = str(generator.relative_to(ROOT))
        found.append((f"{generator.stem} --check", [sys.executable, script, "--check"]))
    return found


def passes(name: str, command: list[str]) -> bool:
    """Run one check; show its output only if it fails."""
    started = time.monotonic()
    done = subprocess.run(
        command,
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    verdict = "ok" if done.returncode == 0 else "FAILED"
    told = f"  {name:<34} {verdict:<7} {time.monotonic() - started:5.1f} s\n"
    # In one piece: others tell theirs at the same time.
    sys.stdout.write(told + (f"{done.stdout}\n" if done.returncode != 0 else ""))
    sys.stdout.flush()
    return done.returncode == 0


def main() -> int:
    """Exit status: 0 all passed, 1 some failed."""
    # None of them changes what another reads, and each keeps one core busy.
    todo = checks()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        passed = list(pool.map(lambda check: passes(*check), todo))
    failed = [name for (name, _), good in zip(todo, passed, strict=True) if not good]
    if failed:
        print(f"lint: {', '.join(failed)} failed", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
