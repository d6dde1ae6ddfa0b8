#!/usr/bin/env python3
"""Check the protocol's model (docs/model/) exhaustively, and that its mutations fail.

For each configuration of docs/model/checks.toml spin makes a verifier, the C compiler compiles it, and it looks at
every state that can be reached. A search that was cut short (by depth, memory or time) is a failure, not a success.
Those with ``ends`` look for an endless run in which the task doesn't end though no process is passed over for ever.

Examples:
  scripts/check_model.py                          everything
  scripts/check_model.py --only rollback          one configuration, with its mutations
  scripts/check_model.py --no-mutations           the configurations alone
  scripts/check_model.py --trace                  with the steps of each counterexample

Exit status: 0 all as it must be, 1 something isn't, 2 spin or the compiler is missing or an argument is wrong.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

MODEL = Path(__file__).resolve().parent.parent / "docs" / "model"
DEPTH_MAX = 100_000
MEMORY_MB_MAX = 6_000
INSTALL = "install them: Debian and Ubuntu `apt-get install spin gcc`, macOS `brew install spin`"
COMPILERS = ("gcc", "cc", "clang")
UNFINISHED = ("max search depth too small", "out of memory", "Search not completed", "memory bound", "too many")


class Verifier(NamedTuple):
    """How a verifier is made and run. ``quick``: compiled in 2 s instead of 12, and half as fast."""

    bounds: dict[str, int]
    ends: bool = False
    quick: bool = True


# -E: that processes wait for ever is no error. -f: weak fairness; NFAIR: room for as many processes as there are.
SAFETY_FLAGS, SAFETY_RUN = ("-DSAFETY", "-DNOCLAIM"), ("-E",)
ENDS_FLAGS, ENDS_RUN = ("-DNFAIR=4",), ("-E", "-a", "-f")


@dataclass(frozen=True)
class Found:
    """What a verifier said: ``violated`` is the assertion that failed, empty if none did."""

    violated: str
    states: int
    depth: int
    seconds: float
    trace: str


class CheckError(Exception):
    """A check that could not be carried out to its end: neither passed nor failed."""


def main() -> int:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    checks = tomllib.loads((MODEL / "checks.toml").read_text())
    parser.add_argument("--only", choices=sorted(checks["configurations"]), help="this configuration alone")
    parser.add_argument("--thorough", action="store_true", help="the big configurations, too: many minutes")
    parser.add_argument("--no-mutations", action="store_true", help="don't try that the model can fail")
    parser.add_argument("--trace", action="store_true", help="print the steps of each counterexample")
    parser.add_argument("--seconds", type=float, default=600.0, help="the longest one search may take (default 600)")
    parser.add_argument("--at-once", type=int, default=os.cpu_count() or 1, help="searches at a time (default: cores)")
    options = parser.parse_args()
    if options.at_once < 1:
        parser.error(f"--at-once: given {options.at_once}, expected at least 1")
    missing = [*([] if shutil.which("spin") else ["spin"]), *([] if compiler() else ["a C compiler"])]
    if missing:
        print(f"check_model: {' and '.join(missing)} not found; {INSTALL}", file=sys.stderr)
        return 2
    configurations = checks["configurations"]
    chosen = [name for name, each in configurations.items() if options.thorough or not each.get("thorough")]
    if options.only:
        chosen = [options.only]
    failed = failures(chosen, lambda name: holds(name, checks, options), options.at_once)
    if not options.no_mutations:
        # A counterexample is soon found, in a big configuration too.
        wanted = [each for each in checks["mutations"] if options.only in (None, each["configuration"])]
        mutations = {each["name"]: each for each in wanted}
        failed += failures(mutations, lambda name: is_caught(mutations[name], checks, options), options.at_once)
    print(f"model: {'FAILED: ' + ', '.join(failed) if failed else 'everything as it must be'}")
    return 1 if failed else 0


def failures(names: Iterable[str], passes: Callable[[str], bool], at_once: int) -> list[str]:
    """Those that don't pass; so many are tried at a time."""
    names = list(names)
    with ThreadPoolExecutor(at_once) as pool:
        return [name for name, passed in zip(names, pool.map(passes, names), strict=True) if not passed]


def compiler() -> str | None:
    """The first C compiler on the path."""
    return next(filter(None, map(shutil.which, COMPILERS)), None)


def verifier_of(name: str, checks: dict[str, Any], *, quick: bool) -> Verifier:
    """Of a configuration."""
    configuration = checks["configurations"][name]
    return Verifier({**checks["base"], **configuration["bounds"]}, configuration.get("ends", False), quick)


def holds(name: str, checks: dict[str, Any], options: argparse.Namespace) -> bool:
    """Whether the configuration has no counterexample."""
    quick = not checks["configurations"][name].get("thorough", False)
    try:
        found = search(verifier_of(name, checks, quick=quick), options.seconds)
    except CheckError as error:
        print(f"  {name:<46} NOT FINISHED: {error}", flush=True)
        return False
    verdict = f"VIOLATED: {found.violated}" if found.violated else "holds"
    print(
        f"  {name:<46} {verdict}; {found.states:,} states, depth {found.depth:,}, {found.seconds:.1f} s",
        flush=True,
    )
    if found.violated:
        print(found.trace, flush=True)
    return not found.violated


def is_caught(mutation: dict[str, str], checks: dict[str, Any], options: argparse.Namespace) -> bool:
    """Whether the mutated model has a counterexample."""
    try:
        found = search(verifier_of(mutation["configuration"], checks, quick=True), options.seconds, mutation)
    except CheckError as error:
        print(f"  {mutation['name']:<46} NOT FINISHED: {error}", flush=True)
        return False
    verdict = f"caught: {found.violated}" if found.violated else "NOT CAUGHT"
    print(f"  {mutation['name']:<46} {verdict}; {found.states:,} states, {found.seconds:.1f} s", flush=True)
    if options.trace and found.violated:
        print(found.trace, flush=True)
    return bool(found.violated)


def search(verifier: Verifier, seconds: float, mutation: dict[str, str] | None = None) -> Found:
    """Make the verifier and run it.

    Raises:
        CheckError: It could not be made, or did not look at everything.
    """
    with tempfile.TemporaryDirectory(prefix="tenure-model-") as name:
        folder = Path(name)
        for source in MODEL.glob("*.pml"):
            (folder / source.name).write_text(source.read_text())
        if mutation is not None:
            mutate(folder / mutation["file"], mutation["find"], mutation["replace"])
        bounds = {**verifier.bounds, **({"LIVENESS": 1} if verifier.ends else {})}
        definitions = [f"-D{key}={value}" for key, value in bounds.items()]
        run(["spin", "-a", *definitions, "tenure.pml"], folder, 60)
        flags = ENDS_FLAGS if verifier.ends else SAFETY_FLAGS
        # -DCOLLAPSE: half the memory, and a quarter more time.
        effort = ["-O0"] if verifier.quick else ["-O2", "-DCOLLAPSE"]
        compile_it = [str(compiler()), *effort, *flags, f"-DMEMLIM={MEMORY_MB_MAX}", "-w", "-o", "pan", "pan.c"]
        run(compile_it, folder, 240)
        said = run(["./pan", *(ENDS_RUN if verifier.ends else SAFETY_RUN), f"-m{DEPTH_MAX}"], folder, seconds)
        return read(said, folder, definitions)


def mutate(path: Path, find: str, replace: str) -> None:
    """Replace the one place.

    Raises:
        CheckError: There is not exactly one: the model has changed, and the mutation with it must.
    """
    text = path.read_text()
    if text.count(find) != 1:
        raise CheckError(f"{path.name} has {text.count(find)} places {find!r}, expected one")
    path.write_text(text.replace(find, replace))


def run(command: list[str], folder: Path, seconds: float) -> str:
    """Its output.

    Raises:
        CheckError: It failed, or took too long.
    """
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=seconds, check=False)
    except subprocess.TimeoutExpired as error:
        raise CheckError(f"{command[0]} took more than {seconds:g} s") from error
    if done.returncode != 0:
        raise CheckError(f"{command[0]} ended with {done.returncode}: {(done.stdout + done.stderr)[-2000:]}")
    return done.stdout + done.stderr


def read(said: str, folder: Path, definitions: list[str]) -> Found:
    """What the verifier said, strictly: what can't be read is no success."""
    state_line = re.search(r"([\d.e+]+) states, stored", said)
    reached = re.search(r"depth reached (\d+), errors: (\d+)", said)
    seconds = re.search(r"elapsed time ([\d.e+]+) seconds", said)
    if not state_line or not reached:
        raise CheckError(f"can't read what the verifier said: {said[-2000:]}")
    violated = re.search(r"pan:\d+: (.+) \(at depth", said)
    if (int(reached[2]) > 0) != bool(violated):
        raise CheckError(f"can't read what the verifier said: {said[-2000:]}")
    if not violated:
        for words in UNFINISHED:
            if words in said:
                raise CheckError(words)
    took = float(seconds[1]) if seconds else 0.0
    trace = trace_of(folder, definitions) if violated else ""
    return Found(violated[1] if violated else "", int(float(state_line[1])), int(reached[1]), took, trace)


def trace_of(folder: Path, definitions: list[str]) -> str:
    """The calls of the store on the way to the counterexample, and its end."""
    said = run_trail(["spin", "-t", *definitions, "tenure.pml"], folder)
    lines = [" ".join(line.split()) for line in said.splitlines()]
    return "\n".join(f"    {line}" for line in lines if line.startswith(("call", "spin: tenure", "spin: text")))


def run_trail(command: list[str], folder: Path) -> str:
    """A replay ends with the violation, so its exit status says nothing."""
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60, check=False)
    return done.stdout + done.stderr


if __name__ == "__main__":
    raise SystemExit(main())
