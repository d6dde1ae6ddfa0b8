"""The pages people read: links that lead somewhere, a changelog in its format, decisions that are all listed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tidy.tree import ROOT, files

PAGES = files(".md")
CHANGE_KINDS = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


def prose(text: str) -> str:
    """A page without its code, where brackets mean something else."""
    without_blocks = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"`[^`\n]*`", "", without_blocks)


def anchors(text: str) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ +(.+?)\s*$", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S), re.MULTILINE)
    plain = [re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading) for heading in headings]
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in plain}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    text = page.read_text()
    targets = re.findall(r"\]\(\s*<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\s*\)", prose(text))
    targets += re.findall(r"^\[[^\]]+\]:\s*(\S+)", prose(text), re.MULTILINE)
    broken = []
    for target in targets:
        if re.match(r"[a-z][a-z+.-]*:", target):
            continue
        name, _, anchor = target.partition("#")
        linked = (page.parent / name).resolve() if name else page
        exists = linked.exists() and linked.is_relative_to(ROOT)
        if not exists or (anchor and linked.suffix == ".md" and anchor not in anchors(linked.read_text())):
            broken.append(target)
    assert broken == []


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "LICENSE", "docs/architecture.md"])
def test_the_pages_everybody_looks_for_are_there(name: str) -> None:
    assert len((ROOT / name).read_text()) > 200


def test_every_page_is_linked_from_another() -> None:
    linked = set()
    for page in PAGES:
        for target in re.findall(r"\]\(([^)\s#]+)", page.read_text()):
            if not re.match(r"[a-z]+:", target):
                linked.add((page.parent / target).resolve())
    # GitHub shows these by itself.
    entrances = {ROOT / "README.md", ROOT / "CHANGELOG.md", ROOT / "CONTRIBUTING.md"}
    orphans = [str(page.relative_to(ROOT)) for page in PAGES if page not in linked | entrances]
    assert orphans == []


def test_contributing_names_every_folder_of_tests() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    folders = {
        f"tests/{path.relative_to(ROOT).parts[1]}/"
        for path in files(".py", under="tests")
        if path.parent.name != "tests"
    }
    assert {folder for folder in folders if folder not in text} == set()


def test_the_changelog_keeps_its_format() -> None:
    """Keep a Changelog 1.1: Unreleased first, then versions with dates, changes by kind."""
    text = (ROOT / "CHANGELOG.md").read_text()
    assert text.startswith("# Changelog\n")
    assert "https://keepachangelog.com/" in text
    releases = re.findall(r"^## (.+)$", text, re.MULTILINE)
    assert releases[0] == "[Unreleased]"
    for release in releases[1:]:
        assert re.fullmatch(r"\[\d+\.\d+\.\d+\] - \d{4}-\d{2}-\d{2}", release), release
    kinds = re.findall(r"^### (.+)$", text, re.MULTILINE)
    assert set(kinds) <= CHANGE_KINDS
    for section in re.split(r"^### .+$", text, flags=re.MULTILINE)[1:]:
        assert re.search(r"^- \S", section, re.MULTILINE), "a kind of change without a change"


def test_decision_records_are_numbered_and_listed() -> None:
    folder = ROOT / "docs" / "adr"
    records = sorted(path for path in folder.glob("[0-9]*.md"))
    assert [path.name[:5] for path in records] == [f"{number:04d}-" for number in range(1, len(records) + 1)]
    index = (folder / "README.md").read_text()
    for path in records:
        text = path.read_text()
        title = re.match(r"# (\d{4})\. (.+)\n", text)
        assert title is not None, f"{path.name} begins with '# NNNN. Title'"
        assert title[1] == path.name[:4]
        assert f"[{title[1]}. {title[2]}]({path.name})" in index, path.name
        for heading in ("## Context", "## Decision", "## Consequences"):
            assert heading in text, f"{path.name} has no {heading}"
        assert len(text.splitlines()) <= 60, f"{path.name} is longer than half a page should be"


def test_nothing_names_a_developers_machine() -> None:
    personal = re.compile(
        r"/roo[t]/|/home/(?!tenure\b)\w|/Users/\w|" + re.escape(f"{ROOT}/") + "|" + re.escape(f"{Path.home()}/")
    )
    suffixes = (".py", ".lua", ".md", ".proto", ".sh", ".toml", ".yml", ".yaml", ".json", ".txt", ".service", "")
    found = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in files(*suffixes)
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), start=1)
        if personal.search(line)
    ]
    assert found == []


@pytest.mark.parametrize("page", [page for page in PAGES if page.parent.name == "docs"], ids=lambda page: page.name)
def test_every_test_that_a_page_names_is_there(page: Path) -> None:
    named = re.findall(r"`(tests/[\w/]+(?:\.py|/)?)(?:::(\w+))?`", page.read_text())
    missing = [
        name
        for name, function in named
        if not (ROOT / name).exists() or (function and f"def {function}(" not in (ROOT / name).read_text())
    ]
    assert missing == []
