#!/usr/bin/env python3
"""Regenerate the committed gRPC stubs from proto/*.proto, exactly.

The generator is pinned (grpcio-tools 1.62.3: its output imports on every protobuf and grpcio that Tenure
supports, see proto/README.md) and lives in an environment of its own, so that nobody's runtime packages decide
what is generated. Beside the stubs it writes proto/stubs.sha256, the digests of what went in and came out: where
the generator has no wheels (Python 3.13), ``--check`` compares those.

Examples:
    scripts/compile_protos.py            # rewrite proto/*_pb2.py, *_pb2.pyi, *_pb2_grpc.py
    scripts/compile_protos.py --check    # exit 1 and show the drift if the committed files differ
    scripts/compile_protos.py --python /usr/bin/python3.12
"""

from __future__ import annotations

import argparse
import difflib
import hashlib
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROTO_DIR = ROOT / "proto"
PROTO_FILES = ("worker.proto", "tenure.proto")
# setuptools: grpcio-tools 1.62 imports pkg_resources, which setuptools 81 removed.
# grpcio: the plugin is inside grpcio-tools, the runtime only has to be importable.
REQUIREMENTS = ("grpcio-tools==1.62.3", "grpcio==1.62.3", "protobuf==4.25.8", "setuptools==75.8.0")
PYTHONS = ("python3.11", "python3.12")
DIGESTS = PROTO_DIR / "stubs.sha256"


class CompileError(Exception):
    """The stubs can't be generated here; the message says what would help."""


class NoGenerator(CompileError):
    """No Python here that the pinned generator has wheels for."""


def find_python(wanted: str | None) -> str:
    """A Python for which the pinned generator has wheels (3.11 or 3.12)."""
    candidates = [wanted] if wanted else [sys.executable, *PYTHONS]
    for candidate in candidates:
        path = shutil.which(candidate)
        if path is None:
            continue
        probe = subprocess.run(
            [path, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"],
            capture_output=True,
            text=True,
            check=False,
        )
        if probe.returncode == 0 and f"python{probe.stdout.strip()}" in PYTHONS:
            return path
    raise NoGenerator(
        f"no Python for grpcio-tools 1.62.3 among {', '.join(candidates)}: "
        "it has wheels for 3.11 and 3.12 only. Name one with --python PATH."
    )


def generator_environment(python: str) -> Path:
    """The pinned generator's interpreter, created once and kept under .make/."""
    tag = hashlib.sha256("\n".join((python, *REQUIREMENTS)).encode()).hexdigest()[:12]
    environment = ROOT / ".make" / f"protoc-{tag}"
    interpreter = environment / "bin" / "python"
    if not (environment / "complete").exists():
        print(f"creating the generator's environment {environment.relative_to(ROOT)} …", file=sys.stderr)
        shutil.rmtree(environment, ignore_errors=True)
        subprocess.run([python, "-m", "venv", str(environment)], check=True)
        subprocess.run([str(interpreter), "-m", "pip", "install", "--quiet", *REQUIREMENTS], check=True)
        (environment / "complete").touch()
    return interpreter


def generate(interpreter: Path, target: Path) -> None:
    """Run protoc into ``target`` and make its output part of the package ``tenure.proto``."""
    subprocess.run(
        [
            str(interpreter),
            "-m",
            "grpc_tools.protoc",
            f"--proto_path={PROTO_DIR}",
            f"--python_out={target}",
            f"--pyi_out={target}",
            f"--grpc_python_out={target}",
            *PROTO_FILES,
        ],
        check=True,
    )
    for path in target.glob("*_pb2.py"):
        path.write_text(use_private_pool(path.read_text()))
    for path in target.glob("*_pb2_grpc.py"):
        path.write_text(use_package_imports(path.read_text()))


def use_private_pool(source: str) -> str:
    """Register our descriptors in a pool of our own; MorphML's ``worker.proto`` can live beside them."""
    replaced = source.replace("_descriptor_pool.Default()", "_POOL")
    replaced = replaced.replace(
        "# @@protoc_insertion_point(imports)",
        "from tenure.proto.pool import POOL as _POOL\n# @@protoc_insertion_point(imports)",
    )
    if replaced.count("_POOL") != 2:
        raise CompileError("the generated *_pb2.py has another shape than grpcio-tools 1.62.3 writes")
    return replaced


def use_package_imports(source: str) -> str:
    """``import worker_pb2`` works only with proto/ on sys.path; import from the package instead."""
    return re.sub(r"^import (\w+_pb2) as (\w+)$", r"from tenure.proto import \1 as \2", source, flags=re.MULTILINE)


def drift(fresh_dir: Path) -> list[str]:
    """Unified diffs between the committed stubs and ``fresh_dir``; empty when they are equal."""
    lines: list[str] = []
    names = {path.name for path in fresh_dir.iterdir()} | {path.name for path in PROTO_DIR.glob("*_pb2*.py*")}
    names.add(DIGESTS.name)
    for name in sorted(names):
        committed, fresh = PROTO_DIR / name, fresh_dir / name
        before = committed.read_text().splitlines() if committed.exists() else []
        after = fresh.read_text().splitlines() if fresh.exists() else []
        lines += difflib.unified_diff(before, after, f"committed/{name}", f"generated/{name}", lineterm="", n=1)
    return lines


def digests(stubs: Path) -> str:
    """Lines as ``sha256sum`` writes them, for the .proto files and the stubs in ``stubs``."""
    paths = [PROTO_DIR / name for name in PROTO_FILES] + sorted(stubs.glob("*_pb2*.py*"))
    return "".join(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in paths)


def check_digests() -> int:
    """Without a generator: whether .proto files and stubs are the ones that were committed together."""
    if DIGESTS.exists() and DIGESTS.read_text() == digests(PROTO_DIR):
        print("the committed stubs are those generated from the committed .proto files (by their digests)")
        return 0
    print(f"proto/ differs from {DIGESTS.name}: regenerate where Python 3.11 or 3.12 is (make proto)")
    return 1


@contextmanager
def generated(python: str) -> Iterator[Path]:
    """A directory with fresh stubs and their digests."""
    interpreter = generator_environment(python)
    with tempfile.TemporaryDirectory(prefix="tenure-protos-") as scratch:
        target = Path(scratch)
        generate(interpreter, target)
        (target / DIGESTS.name).write_text(digests(target))
        yield target


def check(python: str) -> int:
    """Whether generating anew would change anything."""
    with generated(python) as fresh:
        lines = drift(fresh)
    print("\n".join(line[:160] for line in lines[:60]) if lines else "the committed stubs are up to date")
    return 1 if lines else 0


def write(python: str) -> int:
    """Generate into proto/."""
    with generated(python) as fresh:
        for path in sorted(fresh.iterdir()):
            shutil.copyfile(path, PROTO_DIR / path.name)
            print(f"wrote proto/{path.name}")
    return 0


def main(argv: list[str] | None = None) -> int:
    """Exit status: 0 done or equal, 1 drift, 2 can't generate here."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 if the committed files differ")
    parser.add_argument("--python", metavar="PATH", help="Python 3.11 or 3.12 that runs the generator")
    arguments = parser.parse_args(argv)
    try:
        python = find_python(arguments.python)
        return check(python) if arguments.check else write(python)
    except NoGenerator as error:
        if arguments.check and arguments.python is None:
            print(f"{error} Comparing digests instead.")
            return check_digests()
        print(f"compile_protos: {error}", file=sys.stderr)
    except (CompileError, subprocess.CalledProcessError) as error:
        print(f"compile_protos: {error}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    raise SystemExit(main())
