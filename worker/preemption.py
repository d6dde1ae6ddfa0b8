"""Notices that this machine is about to be taken away: a signal, a file that appears, or a cloud's metadata service.

The signal (SIGUSR1) is ``main.py``'s; here the file and the URL are watched. A cloud says it in one of two ways: AWS
answers 404 until there is a notice, GCP and Azure always answer and the body says it. So an answer of 200 counts whose
body matches a pattern. Whatever else the URL does (no route, errors, garbage) is no notice and never stops the worker.
"""

from __future__ import annotations

import asyncio
import http.client
import random
import re
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path

import structlog

from tenure.common.errors import InvalidSetting

log = structlog.get_logger()

BODY_BYTES_MAX = 64 * 1024
HEADERS_MAX = 16
_TOKEN_BYTES_MAX = 4096
# Such a service is on the machine itself; an exit waits for a look that is under way.
_ANSWER_SECONDS_MAX = 2.0
_TOKEN_LIFE = {"X-aws-ec2-metadata-token-ttl-seconds": "300"}
_TOKEN_HEADER = "X-aws-ec2-metadata-token"
_HEADER = re.compile(r"^[!#$%&'*+.^_`|~0-9A-Za-z-]+$")
# Metadata services are on the machine itself, and redirect nobody; a proxy would answer for its own machine.
_OPENER = urllib.request.OpenerDirector()
for _handler in (
    urllib.request.HTTPHandler,
    urllib.request.HTTPSHandler,
    urllib.request.HTTPDefaultErrorHandler,
    urllib.request.HTTPErrorProcessor,
):
    _OPENER.add_handler(_handler())


@dataclass(frozen=True)
class NoticeSource:
    """Where notices of preemption may come from, checked.

    Attributes:
        file: A path; its existence is a notice. None: not watched.
        url: Asked by GET; an answer of 200 whose body matches is a notice. Empty: not asked.
        headers: Sent with it.
        pattern: Searched for in the body. The empty pattern matches every body.
        token_url: Asked by PUT before, for a session token (AWS's IMDSv2). Empty: no token.
        poll_seconds: The pause between two looks, give or take a fifth.
    """

    file: Path | None = None
    url: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    pattern: re.Pattern[str] = re.compile("")
    token_url: str = ""
    poll_seconds: float = 5.0

    @property
    def watched(self) -> bool:
        """Whether there is anything to look at."""
        return self.file is not None or bool(self.url)


def checked_url(text: str, name: str) -> str:
    """``text``, if it is empty or an HTTP URL; raises InvalidSetting that names ``name``."""
    if text:
        try:
            parts = urllib.parse.urlsplit(text)
            usable = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
        except ValueError:
            usable = False
        if not usable or not text.isprintable() or " " in text:
            raise InvalidSetting(
                "is no HTTP URL", field=name, given=repr(text), expected="give http://host/path or https://host/path"
            )
    return text


def parse_headers(text: str, name: str) -> dict[str, str]:
    """``Name: value[,Name: value…]``; raises InvalidSetting that names ``name``."""
    headers: dict[str, str] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        header, colon, value = (piece.strip() for piece in part.partition(":"))
        if not colon or not _HEADER.match(header) or not (value.isascii() and value.isprintable()):
            raise InvalidSetting(
                "is no list of headers",
                field=name,
                given=repr(part),
                expected="give Name: value[,Name: value…], for example Metadata-Flavor: Google",
            )
        headers[header] = value
    if len(headers) > HEADERS_MAX:
        raise InvalidSetting(f"has {len(headers)} headers", field=name, expected=f"at most {HEADERS_MAX} are allowed")
    return headers


def parse_pattern(text: str, name: str) -> re.Pattern[str]:
    """A regular expression; raises InvalidSetting that names ``name``."""
    try:
        return re.compile(text)
    except re.error as error:
        raise InvalidSetting(
            f"is no regular expression: {error}",
            field=name,
            given=repr(text),
            expected='give what the body of a notice contains, for example ^TRUE$ or "Preempt"',
        ) from error


class PreemptionWatch:
    """Looks at the file and the URL until one of them is a notice.

    Args:
        source: What to look at.
        on_failure: Called with each look at the URL that gave no answer.
    """

    def __init__(self, source: NoticeSource, on_failure: Callable[[], None]) -> None:
        self._source = source
        self._on_failure = on_failure
        self._failing = False

    async def notice(self) -> str:
        """Wait for a notice; returns where it came from, ``file`` or ``url``."""
        # A file that is there at the start counts at once: no task is to be begun first.
        if await asyncio.to_thread(self._file_says_so):
            return "file"
        while True:
            # Before the first look at the URL, too: a fleet that starts as one doesn't ask as one.
            await asyncio.sleep(self._source.poll_seconds * random.uniform(0.8, 1.2))
            if (where := await asyncio.to_thread(self._look)) is not None:
                return where

    def _look(self) -> str | None:
        """Blocks a little; never raises."""
        source = self._source
        if self._file_says_so():
            return "file"
        if source.url:
            try:
                status, body = self._ask()
            except (OSError, ValueError, http.client.HTTPException) as error:
                self._failed("url", error)
                return None
            if status == HTTPStatus.OK and source.pattern.search(body):
                return "url"
            if status not in (HTTPStatus.OK, HTTPStatus.NOT_FOUND):
                self._failed("url", f"it answers {status}")
                return None
        if self._failing:
            log.info("preemption.poll_recovered")
        self._failing = False
        return None

    def _file_says_so(self) -> bool:
        file = self._source.file
        try:
            return file is not None and file.exists() and not file.is_dir()
        except OSError as error:
            self._failed("file", error)
            return False

    def _ask(self) -> tuple[int, str]:
        """(status, body) of the URL. Raises OSError, ValueError or HTTPException."""
        source = self._source
        headers = dict(source.headers)
        if source.token_url:
            status, token = self._fetch(source.token_url, _TOKEN_LIFE, "PUT", _TOKEN_BYTES_MAX)
            if status != HTTPStatus.OK:
                raise OSError(f"the token's URL answers {status}")
            headers[_TOKEN_HEADER] = token.strip()
        return self._fetch(source.url, headers, "GET", BODY_BYTES_MAX)

    def _fetch(self, url: str, headers: Mapping[str, str], method: str, bytes_max: int) -> tuple[int, str]:
        request = urllib.request.Request(url, headers=dict(headers), method=method)
        seconds = min(self._source.poll_seconds, _ANSWER_SECONDS_MAX)
        try:
            with _OPENER.open(request, timeout=seconds) as response:
                return response.status, response.read(bytes_max).decode("utf-8", "replace")
        except urllib.error.HTTPError as error:
            with error:
                return error.code, ""

    def _failed(self, what: str, error: object) -> None:
        """Said once until it works again: a worker off the cloud would fill its log with it."""
        self._on_failure()
        if not self._failing:
            log.warning("preemption.poll_failed", source=what, error=str(error))
        self._failing = True
