"""Takes secrets out of text that is going to be sent to somebody.

Three nets, one behind the other: what stands under a name that says so (``password=``, ``"token": …``, ``--api-key …``,
``Authorization: …``); what has the form of a credential (logins in URLs, keys of well-known services, private keys), or
stands in a form that tells one (redaction_forms.py); and, wherever else it stands, each value that was found under such
a name in the settings of this machine's processes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from urllib.parse import quote, unquote

from safekeeping.redaction_forms import GONE, forms
from tenure.common.passwords import without_passwords

# Shorter values would blot out half of the text.
_VALUE_CHARACTERS_MIN = 5
# The end of a name: families, for people glue such words together (PGPASSWORD, dbPassword, AWS_SECRET_ACCESS_KEY). It
# begins with what is rare, so that logs of many megabytes are read fast.
_NAME = (
    r"(?=[acdelmpstw])(?:"
    r"pass(?<!compass)(?<!bypass)(?<!surpass)(?<!trespass)(?<!overpass)(?<!underpass)(?:wd|word|phrase)?|"
    r"pwd(?<=[a-z0-9][_-]pwd)|secret[a-z0-9]{0,20}|token|masterauth|"
    r"auth(?<![a-z0-9]auth)(?:orization)?|(?<![a-z0-9])(?:cookie|credentials?|dsn)|"
    r"(?:secret|private|access|api|account|storage|master|auth|encryption|signing|session|license|webhook)"
    r"[_-]?key(?:[_-]?id)?)"
)
# In quotes to the quote that is not escaped, or to the end of what was cut off; and the same inside of a JSON text.
_QUOTED = (
    r"\"(?:\\.|[^\"\\\n])+(?:\"|$)|'(?:\\.|[^'\\\n])+(?:'|$)|"
    r"\\\"(?:\\\\(?:\\[\"\\]|[^\"\\])|[^\"\\\n])+(?:\\\"|$)"
)
_SECRET_NAME = re.compile(rf"{_NAME}$", re.IGNORECASE)
_RULES: list[tuple[re.Pattern[str], str]] = [
    # A private key, whole.
    (re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?-----END [A-Z ]*PRIVATE KEY-----", re.DOTALL), GONE),
    # Authorization: Bearer …, Basic …
    (re.compile(r"(?i)\b(bearer|basic)\s+[A-Za-z0-9._~+/=-]{6,}"), rf"\1 {GONE}"),
    # The form says it.
    (re.compile(r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b"), GONE),
    (re.compile(r"\bgh[pousr]_[A-Za-z0-9]{30,}"), GONE),
    (re.compile(r"\b(?:hf|sk|glpat|xox[abp])[_-][A-Za-z0-9_-]{16,}"), GONE),
    (re.compile(r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*"), GONE),
]
_FORMS = forms(_NAME)
# What stands under a name.
_NAMED = [
    # --name value; also as a list of words, in JSON or as Python shows it
    re.compile(rf"(?im)((?<!-)--(?!-)[a-z0-9_-]*{_NAME}(?:\s+|([\"']),\s*(?=\2)))({_QUOTED}|[^\s\"']+)"),
    # NAME=value: without quotes, to the space
    re.compile(rf"(?im)({_NAME}(=))({_QUOTED}|(?:\\.|[^\s\"'&\\])+)"),
    # NAME = value, NAME: value, "NAME": "value"
    re.compile(rf"(?im)({_NAME}(\\?[\"'])?\s*[=:]\s*)({_QUOTED}|[^\s\"',;&}}\])\\]+)"),
]
_URL_START = re.compile(r"(?=[a-z][a-z0-9+.-]*://)", re.IGNORECASE)
_URL_LOGIN = re.compile(r"://[^/?#@:]*:(.+)@", re.DOTALL)
_URL_OPTION = re.compile(rf"(?i)[?&][a-z0-9_-]*{_NAME}=([^&\s]+)")


class Redaction:
    """What must not be told; learns values as it goes.

    Attributes:
        values: Each is replaced wherever it stands.
    """

    def __init__(self) -> None:
        self.values: set[str] = set()

    def learn(self, settings: Mapping[str, str]) -> None:
        """Remember the secrets among settings by name, and those inside URLs; also as JSON and URLs write them."""
        for name, value in settings.items():
            found = _URL_OPTION.findall(value)
            for url in _URL_START.split(value) if "://" in value else ():
                found += _URL_LOGIN.findall(url)
            if is_secret(name):
                found.append(value)
            for each in [*found, *map(unquote, found)]:
                written = (each, json.dumps(each)[1:-1], json.dumps(each, ensure_ascii=False)[1:-1], quote(each, ""))
                self.values |= {form for form in written if len(each) >= _VALUE_CHARACTERS_MIN}

    def __call__(self, text: str) -> str:
        """The text without secrets."""
        # First, for the rules might leave a part of one. The longest first: one may be part of another.
        for value in sorted(self.values, key=len, reverse=True):
            text = text.replace(value, GONE)
        text = without_passwords(text)
        for pattern, replacement in _RULES:
            text = pattern.sub(replacement, text)
        lowered = text.lower()
        for form in _FORMS:
            if any(hint in lowered for hint in form.hints):
                text = form.pattern.sub(form.replacement, text)
        for pattern in _NAMED:
            text = pattern.sub(_without_value, text)
        return text


def is_secret(name: str) -> bool:
    """Whether a setting of this name holds a secret."""
    return _SECRET_NAME.search(name) is not None


def _without_value(found: re.Match[str]) -> str:
    mark = re.match(r"\\?[\"']", found[3])
    around = mark[0] if mark else ""
    return f"{found[1]}{around}{GONE}{around}"
