"""Forms in which secrets stand without a name directly before them: signed URLs, commands, sentences, JSON in JSON."""

from __future__ import annotations

import re
from dataclasses import dataclass

GONE = "***"
# A word, or what is in quotes.
_VALUE = r"(?:\"[^\"\n]+\"|'[^'\n]+'|[^\s\"']+)"
# Between an option and its value: in a shell, or in a list of words as JSON or Python shows it.
_GAP = r"(?:=|\\?[\"'],\s*\\?[\"']|\s+)"
# Of the same command.
_BEFORE = r"[^\n|;]{0,500}?[\s\"']"
_WORDS = r"(?:pass(?:word|phrase|wd|code)|pwd|secret|token|(?:api|access|secret|private) ?key|credentials?)"


_VERBS = ("is", "was", "set to")
_OWNERS = ("password", "passphrase", "passwd", "passcode", "pwd", "secret", "token", "key", "credential", "credentials")
_SENTENCES = tuple(f"{owner} {verb}" for owner in _OWNERS for verb in _VERBS)


@dataclass(frozen=True)
class Form:
    """One form.

    Attributes:
        hints: Where none of these stands, in lower case, the pattern needn't be tried: logs are many megabytes.
        pattern, replacement: What is replaced by what.
    """

    hints: tuple[str, ...]
    pattern: re.Pattern[str]
    replacement: str = rf"\1{GONE}"


def _command(names: str, hint: str, option: str, value: str = _VALUE) -> Form:
    return Form((hint,), re.compile(rf"(\b{names}\b{_BEFORE}{option}){value}"))


def _any_case(hints: tuple[str, ...], pattern: str, replacement: str = rf"\1{GONE}") -> Form:
    return Form(hints, re.compile(pattern, re.IGNORECASE | re.MULTILINE), replacement)


def forms(name: str) -> list[Form]:
    """All; ``name`` is a pattern for names of secrets, without groups."""
    login = r"(?:\\?[\"'])?[^\s\"':]+:"
    user = rf"(?:-[a-zA-Z]{{0,9}}u|--user){_GAP}?{login}"
    return [
        # Who has such a URL has what it names: AWS, Google, Azure, CloudFront.
        _any_case(
            ("sig=", "signature=", "token=", "policy="),
            r"((?:[?&;]|\\u0026)(?:x-(?:amz|goog)-)?(?:signature|sig|security-token|policy)=)[^&\s\"'\\;]+",
        ),
        _any_case(("sig=", "signature="), r"((?:signature|\bsig)=)[a-z0-9%+/=_-]{16,}"),
        _any_case(("sharedaccesssignature=",), r"(SharedAccessSignature=)[^\s\"';]+"),
        # curl -u NAME:PASSWORD
        _command("curl", "curl", user, r"[^\s\"'\\][^\"'\n\\]*(?=\\?[\"'])"),
        _command("curl", "curl", user),
        _command("curl", "curl", rf"(?:-U|--proxy-user){_GAP}?{login}"),
        # mysql -pPASSWORD, sshpass -p PASSWORD, redis-cli -a PASSWORD
        _command(r"mysql[\w-]*", "mysql", "-p(?![;|&])"),
        _command(r"mariadb[\w-]*", "mariadb", "-p(?![;|&])"),
        _command("sshpass", "sshpass", rf"-p{_GAP}?"),
        _command(r"(?:redis|valkey|keydb)-cli", "-cli", rf"-a{_GAP}"),
        # "password is: x", "api key: x"; without a colon only what doesn't look like a word ("password is wrong").
        _any_case(_SENTENCES, rf"({_WORDS} (?:{'|'.join(_VERBS)})\s*[:=]\s*){_VALUE}"),
        _any_case(
            _SENTENCES,
            rf"({_WORDS} (?:{'|'.join(_VERBS)}) )"
            r"(?:\"[^\"\n]+\"|'[^'\n]+'|(?=[^\s\"']*[0-9@#$%^&*])[^\s\"',;]{5,})",
        ),
        _any_case((" key:", " key =", " key="), rf"((?:api|access|secret|private) key\s*[:=]\s*){_VALUE}"),
        # JSON in JSON in JSON: quotes have three backslashes, and more further in.
        _any_case(
            (r"\\\"",),
            rf"((?:{name})(\\{{2,63}})\"\s*:\s*)\2\"[^\n]*?(?:(?<!\\)\2\"|$)",
            rf'\1\2"{GONE}\2"',
        ),
        _any_case((r"\\\"",), rf"((?:{name})\\{{2,63}}\"\s*:\s*)[^\s\"\\,}}\]]+"),
    ]
