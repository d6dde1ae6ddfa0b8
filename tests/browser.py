"""A real, headless Chromium, and everything that went wrong in it."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Literal

from playwright.async_api import BrowserContext, Page, async_playwright

FLAGS = (
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
# A picture or a wait takes long on a machine that runs other tests beside.
DEADLINE_MS = 30_000


@dataclass
class Trouble:
    """What a page complained of: script errors, violations of its policy, dialogs, requests to elsewhere."""

    found: list[str] = field(default_factory=list)
    # A master on a busy machine says that its store doesn't answer at this moment, and the page asks again. Chromium
    # tells of every such answer.
    expected: tuple[str, ...] = ("503",)

    def note(self, what: str) -> None:
        """One more, unless it was to be expected."""
        if not any(part in what for part in self.expected):
            self.found.append(what)


class Browser:
    """Opens pages; made by :func:`open_browser`."""

    def __init__(self, context: BrowserContext, trouble: Trouble) -> None:
        self._context = context
        self.trouble = trouble

    async def open(self, url: str, width: int = 1280, height: int = 900) -> Page:
        """A page of its own."""
        page = await self._context.new_page()
        await page.set_viewport_size({"width": width, "height": height})
        page.set_default_timeout(DEADLINE_MS)
        origin = url.split("/", 3)[2]
        page.on("console", lambda message: message.type in ("error", "warning") and self.trouble.note(message.text))
        page.on("pageerror", lambda error: self.trouble.note(str(error)))
        page.on("request", lambda request: origin in request.url or self.trouble.note(f"asked for {request.url}"))
        page.on("dialog", lambda dialog: self.trouble.note(f"dialog {dialog.message}"))
        await page.goto(url)
        return page


@asynccontextmanager
async def open_browser(program: str, scheme: Literal["light", "dark"] = "light") -> AsyncIterator[Browser]:
    """Start Chromium with a profile of its own; ended with the block."""
    # Its sandbox can't be had as root, as which containers run tests.
    flags = [*FLAGS, "--no-sandbox"] if os.geteuid() == 0 else [*FLAGS]
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=program, args=flags)
        try:
            context = await browser.new_context(color_scheme=scheme, reduced_motion="reduce")
            yield Browser(context, Trouble())
        finally:
            await browser.close()
