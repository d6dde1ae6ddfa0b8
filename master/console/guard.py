"""Who may ask the console what. There are no passwords yet, so a browser must not become anybody's deputy.

The console listens on loopback, but every page that the same person has open in a browser can send requests there. So:

- A request must name the console by an IP address, ``localhost``, or a name that the operator gave. A name of somebody
  else's that resolves to this machine (DNS rebinding) is refused.
- What changes anything must come from the console's own page: POST, JSON, a header that no form can send and that other
  origins may not, and an Origin that is this host.
- Answers forbid to be framed, sniffed, or to run any script that isn't the console's.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple
from urllib.parse import urlsplit

CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)
HEADERS = (
    ("Content-Security-Policy", CONTENT_SECURITY_POLICY),
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
    ("Referrer-Policy", "no-referrer"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
)
OWN_HEADER = "HTTP_X_TENURE_CONSOLE"


class Refusal(NamedTuple):
    """Why a request isn't served."""

    status: str
    why: str
    headers: tuple[tuple[str, str], ...] = ()


def host_of(authority: str) -> str:
    """The host of ``host[:port]``, lower case and without brackets; empty if it can't be one."""
    try:
        return urlsplit(f"//{authority}").hostname or ""
    except ValueError:
        return ""


def refuse_host(environ: Mapping[str, Any], names: Collection[str]) -> Refusal | None:
    """None if the request names this console; ``names``, in lower case, are those it has besides its addresses."""
    host = host_of(environ.get("HTTP_HOST", ""))
    if host == "localhost" or host in names or _is_address(host):
        return None
    why = f"this console is not called {host[:100]!r}: start the master with --console-names to name it so"
    return Refusal("421 Misdirected Request", why)


def refuse_change(environ: Mapping[str, Any]) -> Refusal | None:
    """None if the request, which wants to change something, comes from the console's own page or from a program."""
    if environ.get("CONTENT_TYPE", "").partition(";")[0].strip().lower() != "application/json":
        return Refusal("415 Unsupported Media Type", "send application/json")
    if environ.get(OWN_HEADER) != "1":
        return Refusal("403 Forbidden", "the header X-Tenure-Console: 1 is missing")
    origin = environ.get("HTTP_ORIGIN")
    if origin is not None and _authority_of(origin) != environ.get("HTTP_HOST", "").lower():
        return Refusal("403 Forbidden", "another site's page may not do this")
    if environ.get("HTTP_SEC_FETCH_SITE", "same-origin") not in ("same-origin", "none"):
        return Refusal("403 Forbidden", "another site's page may not do this")
    return None


def _authority_of(origin: str) -> str:
    """``host[:port]`` in lower case; empty if there is none."""
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return ""


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
