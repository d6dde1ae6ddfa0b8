"""The browser that makes a picture of a page."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
TIMEOUT_SECONDS = 120


class BrowserError(Exception):
    """There is no browser, or it made no picture."""


def find() -> str:
    """A browser's path.

    Raises:
        BrowserError: None is installed.
    """
    for name in NAMES:
        if (path := shutil.which(name)) is not None:
            return path
    raise BrowserError(f"no browser: install chromium (looked for {', '.join(NAMES)}), or give --browser PATH")


def photograph(browser: str, html: str, width: int, height: int, target: Path) -> None:
    """Write a PNG of the page.

    Raises:
        BrowserError: No picture came of it; with what the browser said.
    """
    with tempfile.TemporaryDirectory(prefix="dashboard-image-") as folder:
        page, picture = Path(folder) / "page.html", Path(folder) / "page.png"
        page.write_text(html)
        command = [
            browser,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--hide-scrollbars",
            "--force-device-scale-factor=1",
            f"--user-data-dir={folder}/profile",
            f"--window-size={width},{height}",
            f"--screenshot={picture}",
            page.as_uri(),
        ]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise BrowserError(f"{browser} made no picture: {error}") from error
        if done.returncode != 0 or not picture.exists():
            raise BrowserError(f"{browser} made no picture (status {done.returncode}): {done.stderr[-1000:]}")
        shutil.copyfile(picture, target)
