"""Takes secrets out of text that is going to be sent to somebody.

Three nets, one behind the other: what stands under a name that says so (``password=``, ``"token": …``, ``--api-key …``,
``Authorization: …``); what has the form of a credential (logins in URLs, keys of well-known services, private keys);
and, wherever else it stands, each value that was found under such a name in the settings of this machine's processes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

GONE = "***"
# Shorter values would blot out half of the text.
_VALUE_CHARACTERS_MIN = 5
_NAME = (
    r"(?:pass(?:wd|word|phrase)?|requirepass|masterauth|[a-z]*secret[a-z]*|[a-z]*token|api[_-]?key|"
    r"access[_-]?key(?:[_-]?id)?|private[_-]?key|auth(?:orization)?|cookie|credentials?|key-file-pass|dsn)"
)
_SECRET_NAME = re.compile(rf"(?:^|[^a-z0-9])(?:[a-z0-9]+[_-])*{_NAME}$", re.IGNORECASE)
_RULES: list[tuple[re.Pattern[str], str]] = [
    # A private key, whole.
    (re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?-----END [A-Z ]*PRIVATE KEY-----", re.DOTALL), GONE),
    # The login of a URL.
    (re.compile(r"(://[^\s/:@\"']*:)[^\s/@\"']+@"), rf"\1{GONE}@"),
    # Authorization: Bearer …, Basic …
    (re.compile(r"(?i)\b(bearer|basic)\s+[A-Za-z0-9._~+/=-]{6,}"), rf"\1 {GONE}"),
    # --name value
    (re.compile(rf"(?i)(--(?:[a-z0-9]+[_-])*{_NAME}\s+)[^\s\"']+"), rf"\1{GONE}"),
    # The form says it.
    (re.compile(r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b"), GONE),
    (re.compile(r"\bgh[pousr]_[A-Za-z0-9]{30,}"), GONE),
    (re.compile(r"\b(?:hf|sk|glpat|xox[abp])[_-][A-Za-z0-9_-]{16,}"), GONE),
    (re.compile(r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*"), GONE),
]
# NAME=value, NAME: value, "NAME": "value"; names may have parts before (AWS_SECRET_ACCESS_KEY).
_NAMED = re.compile(
    rf"(?i)(?<![a-z0-9])((?:[a-z0-9]+[_-])*{_NAME}[\"']?\s*[=:]\s*)(\"[^\"\n]+\"|'[^'\n]+'|[^\s\"',;&}}\])]+)"
)
_URL_LOGIN = re.compile(r"://[^\s/:@\"']*:([^\s/@\"']+)@")
_URL_OPTION = re.compile(rf"(?i)[?&](?:[a-z0-9]+[_-])*{_NAME}=([^&\s]+)")


class Redaction:
    """What must not be told; learns values as it goes.

    Attributes:
        values: Each is replaced wherever it stands.
    """

    def __init__(self) -> None:
        self.values: set[str] = set()

    def learn(self, settings: Mapping[str, str]) -> None:
        """Remember the secrets among settings by name, and those inside URLs."""
        for name, value in settings.items():
            found = [*_URL_LOGIN.findall(value), *_URL_OPTION.findall(value)]
            if is_secret(name):
                found.append(value)
            self.values |= {each for each in found if len(each) >= _VALUE_CHARACTERS_MIN}

    def __call__(self, text: str) -> str:
        """The text without secrets."""
        for pattern, replacement in _RULES:
            text = pattern.sub(replacement, text)
        text = _NAMED.sub(_without_value, text)
        # The longest first: one may be part of another.
        for value in sorted(self.values, key=len, reverse=True):
            text = text.replace(value, GONE)
        return text


def is_secret(name: str) -> bool:
    """Whether a setting of this name holds a secret."""
    return _SECRET_NAME.search(name) is not None


def _without_value(found: re.Match[str]) -> str:
    quote = found[2][0] if found[2][0] in "\"'" else ""
    return f"{found[1]}{quote}{GONE}{quote}"
