"""What the source looks like: size, names, docstrings, no prints."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import pytest
from tidy.tree import PACKAGE_FOLDERS, ROOT, Module, files, is_generated, package_modules

# "About 350": ten per cent above it a file is too long whatever it is about.
LINES_MAX = 385
FUNCTION_LINES_MAX = 60

# Longer files, each with the reason why splitting it would make it worse.
LONGER: dict[str, str] = {
    "tests/unit/test_graph.py": "one test for each sentence of docs/architectures.md, in its order",
    "tests/unit/torch/test_builder_networks.py": "one test for each sentence of docs/architectures.md, in its order",
}

FORBIDDEN_WORDS = {
    "job": "task",
    "jobs": "tasks",
    "trial": "task (Optuna's word stays inside the code that talks to Optuna)",
    "trials": "tasks",
    "reservation": "lease",
    "manager": "what it does: supervisor, reaper, …",
    "helper": "what it helps with",
    "helpers": "what they help with",
    "util": "its subject",
    "utils": "its subject",
    "misc": "its subject",
}
# Optuna's vocabulary is right where Optuna is spoken to.
OPTUNA_PLACES = ("client/optuna", "client/integrations/", "client/cli/demo", "client/demo")

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def definitions(module: Module) -> Iterator[tuple[Definition, str]]:
    """Classes, functions and methods, with their dotted names; not those inside functions."""

    def inside(node: ast.Module | ast.ClassDef, prefix: str) -> Iterator[tuple[Definition, str]]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, Definition):
                yield child, f"{prefix}{child.name}"
            if isinstance(child, ast.ClassDef):
                yield from inside(child, f"{prefix}{child.name}.")

    return inside(module.tree, "")


def is_public(dotted: str) -> bool:
    return not any(part.startswith("_") for part in dotted.split("."))


def explains_itself_elsewhere(node: Definition, module: Module) -> bool:
    """An RPC's contract stands in the .proto file; an overload's at its implementation; a setter's at its property."""
    decorators = {ast.unparse(decorator) for decorator in node.decorator_list}
    is_rpc = module.name.startswith(("master/rpc/", "worker/")) and node.name[:1].isupper()
    described = any(text == "overload" or text.endswith(".setter") or text == "override" for text in decorators)
    return described or (is_rpc and not isinstance(node, ast.ClassDef))


def words(name: str) -> set[str]:
    """``taskManager``, ``TaskManager`` and ``task_manager`` all have the word ``manager``."""
    return set(re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", name).lower().split("_"))


def test_no_file_outgrows_a_readers_head() -> None:
    longer = {}
    for path in files(".py", ".lua", ".sh"):
        name = str(path.relative_to(ROOT))
        lines = len(path.read_text().splitlines())
        if lines > LINES_MAX and not is_generated(path) and name not in LONGER:
            longer[name] = lines
    assert longer == {}, f"more than {LINES_MAX} lines: split by subject, or give the reason in LONGER"


def test_the_list_of_longer_files_is_not_stale() -> None:
    for name in LONGER:
        assert len((ROOT / name).read_text().splitlines()) > LINES_MAX, name


def body_lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """From the first statement to the last: a long signature or docstring is no burden."""
    statements = node.body[1:] if ast.get_docstring(node) is not None else node.body
    return statements[-1].end_lineno - statements[0].lineno + 1 if statements else 0


def test_a_function_fits_a_screen() -> None:
    longer = {
        f"{module.name}:{node.lineno} {name}": body_lines(node)
        for module in package_modules()
        for node, name in definitions(module)
        if not isinstance(node, ast.ClassDef) and body_lines(node) > FUNCTION_LINES_MAX
    }
    assert longer == {}


def test_modules_say_what_they_are_for() -> None:
    silent = [module.name for module in package_modules() if module.tree.body and not ast.get_docstring(module.tree)]
    assert silent == []


def test_public_classes_and_functions_have_docstrings() -> None:
    silent = [
        f"{module.name}:{node.lineno} {name}"
        for module in package_modules()
        for node, name in definitions(module)
        if is_public(name) and ast.get_docstring(node) is None and not explains_itself_elsewhere(node, module)
    ]
    assert silent == []


@pytest.mark.parametrize("word", sorted(FORBIDDEN_WORDS))
def test_names_keep_to_the_vocabulary(word: str) -> None:
    named = [
        (module.name, module.path.stem) for module in package_modules() if not module.name.startswith(OPTUNA_PLACES)
    ]
    named += [
        (f"{module.name}:{node.lineno}", node.name)
        for module in package_modules()
        if not module.name.startswith(OPTUNA_PLACES)
        for node, _ in definitions(module)
    ]
    strays = [f"{place} {name}" for place, name in named if word in words(name)]
    assert strays == [], f"say {FORBIDDEN_WORDS[word]} instead of {word}"


def test_the_package_does_not_print() -> None:
    """Processes log; the command line has one place to write from. A start that fails says so on stderr."""
    prints = [
        f"{module.name}:{node.lineno}"
        for module in package_modules()
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
        if not any(keyword.arg == "file" and ast.unparse(keyword.value) == "sys.stderr" for keyword in node.keywords)
    ]
    assert prints == []


def test_nothing_is_unpickled() -> None:
    """Neither what came over the wire nor what lies on a disk."""
    strays = [
        f"{module.name}:{node.lineno}"
        for module in package_modules()
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        if {"pickle", "marshal", "shelve", "dill", "cloudpickle"}
        & ({alias.name for alias in node.names} | {getattr(node, "module", None)})
    ]
    assert strays == []


def test_no_unfinished_business() -> None:
    """Work that is left to do stands in an issue, not in the source."""
    marks = re.compile(r"\b(TO" + r"DO|FIX" + r"ME|XX" + r"X|HA" + r"CK)\b|NotImplemented" + "Error")
    left = [
        f"{path.relative_to(ROOT)}:{number}"
        for folder in (*PACKAGE_FOLDERS, "scripts", "ops", "tests", "examples", "bench")
        for path in files(".py", ".lua", ".proto", ".sh", ".yml", ".yaml", under=folder)
        if not is_generated(path)
        for number, line in enumerate(path.read_text().splitlines(), start=1)
        if marks.search(line)
    ]
    assert left == []
