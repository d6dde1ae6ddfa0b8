"""The console's files as they stand: nothing from elsewhere, no text as HTML, and colours that can be read."""

from __future__ import annotations

import re
from importlib import resources

import pytest

from tenure.master.console.files import load_files

FILES = load_files()
SCRIPTS = {path: file.body.decode() for path, file in FILES.items() if path.endswith(".js")}
SHEET = FILES["/style.css"].body.decode()
LIGHT, DARK = SHEET.split("@media (prefers-color-scheme: dark)")
# What carries text, on what it stands.
PAIRS = [
    ("--text", "--back"),
    ("--text", "--panel"),
    ("--quiet", "--back"),
    ("--quiet", "--panel"),
    ("--quiet", "--line-soft"),
    ("--accent", "--back"),
    ("--accent", "--panel"),
    ("--accent", "--accent-soft"),
    ("--accent", "--busy-soft"),
    ("--panel", "--accent"),
    ("--good", "--good-soft"),
    ("--busy", "--busy-soft"),
    ("--wait", "--wait-soft"),
    ("--wait", "--panel"),
    ("--bad", "--bad-soft"),
    ("--bad", "--panel"),
    ("--bad", "--raised"),
    ("--raised", "--bad"),
]


def palette(sheet: str) -> dict[str, str]:
    """The colours of a palette; what the dark one leaves out is the light one's."""
    return dict(re.findall(r"(--[\w-]+): (#[0-9a-f]{6});", sheet.partition("* {")[0]))


def luminance(color: str) -> float:
    """By WCAG 2."""
    parts = [int(color[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize(("text", "ground"), PAIRS)
@pytest.mark.parametrize("colors", [palette(LIGHT), palette(LIGHT) | palette(DARK)], ids=["light", "dark"])
def test_text_can_be_read_on_its_ground(colors: dict[str, str], text: str, ground: str) -> None:
    bright, dark = sorted((luminance(colors[text]), luminance(colors[ground])), reverse=True)
    assert (bright + 0.05) / (dark + 0.05) >= 4.5


def test_nothing_comes_from_elsewhere() -> None:
    for path, file in FILES.items():
        text = file.body.decode()
        urls = set(re.findall(r"(?:https?:)?//[\w.-]+\.\w+[^\s\"')]*", text))
        assert {url for url in urls if not url.startswith("http://www.w3.org/")} == set(), path
        assert "@import" not in text


@pytest.mark.parametrize("path", SCRIPTS)
def test_no_script_makes_html_or_code_of_text(path: str) -> None:
    for word in (
        "innerHTML",
        "outerHTML",
        "insertAdjacentHTML",
        "document.write",
        "DOMParser",
        "eval(",
        "new Function",
        "srcdoc",
    ):
        assert word not in SCRIPTS[path], word


@pytest.mark.parametrize("path", SCRIPTS)
def test_every_module_says_what_it_is_for_and_imports_what_is_there(path: str) -> None:
    text = SCRIPTS[path]
    assert text.startswith("// ")
    for module in re.findall(r'from "([^"]+)"', text):
        folder = "" if not path.startswith("/views/") or module.startswith("../") else "/views"
        assert f"{folder}/{module.removeprefix('../').removeprefix('./')}" in FILES, module


def test_every_file_of_the_folder_is_served() -> None:
    static = resources.files("tenure.master.console").joinpath("static")
    names = {f"/{entry.name}" for entry in static.iterdir() if entry.is_file()}
    assert names <= set(FILES)
    assert "<script>" not in FILES["/"].body.decode()
    assert not re.search(r"\son\w+=|style=", FILES["/"].body.decode())
