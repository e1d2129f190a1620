"""Secrets out of a text before it is kept: keys of well-known shapes, assigned passwords, values of the environment."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from typing import Any

REMOVED = "[secret removed]"

# No pattern can run twice over the same long stretch: repeats are possessive, or bounded, or both.

_KEY_BLOCK = re.compile(
    r"(?P<value>-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----(?:"
    r"(?:[^-]++|-(?!----))*+-----END [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----"
    r"|(?:(?:\s|\\[nr])*+[A-Za-z0-9+/=]{16,}+)++))"  # its end was cut off
)
_URL = re.compile(r"""://[^\s:@/?#"'<>]{0,200}:(?P<value>[^\s/?#"'<>]{1,500})@""")
_AUTHORIZATION = re.compile(
    r"""(?:Authorization\\?["']?\]?[ \t]{0,8}[:=,][ \t]{0,8}[bf]?\\?["']?(?:Bearer|Basic|Token)|\bBearer)[ \t]{1,8}"""
    r"(?P<value>[\w.~+/=-]{6,}+)",
    re.ASCII | re.IGNORECASE,
)
_SHAPE = re.compile(
    r"(?:(?<![A-Za-z0-9])|(?<=\\[nrt]))(?P<value>"
    r"sk-(?:proj|svcacct|admin|None|ant)-[\w-]{16,}+"  # OpenAI, Anthropic
    r"|sk-(?:[a-z0-9]{1,10}-){0,2}(?=[A-Za-z]{0,40}[0-9])[A-Za-z0-9]{20,}+[\w-]*+"  # words-with-hyphens are none
    r"|gh[pousr]_[A-Za-z0-9_]{20,}+|github_pat_\w{20,}+"
    r"|gl(?:pat|dt|rt|ptt|cbt|ft)-[\w-]{16,}+(?:\.\w{2,}+)*+"
    r"|(?:hf|npm|gsk|r8)_[A-Za-z0-9]{30,}+"  # Hugging Face, npm, Groq, Replicate
    r"|(?:AKIA|ASIA)[A-Z0-9]{16,}+"
    r"|AIza[\w-]{30,}+|ya29\.[\w-]{20,}+|GOCSPX-[\w-]{20,}+"
    r"|xox[a-z](?:\.xox[a-z])?-[\w-]{10,}+|xapp-[\w-]{20,}+"
    r"|[rs]k_(?:live|test)_[A-Za-z0-9]{10,}+|whsec_[A-Za-z0-9+/=]{24,}+"
    r"|pypi-[\w-]{40,}+|(?:xai|pplx|nvapi)-[\w-]{40,}+"
    r"|dckr_pat_[\w-]{20,}+|dop_v1_[0-9a-f]{40,}+|SG\.[\w-]{16,}+\.[\w-]{16,}+"
    r"|(?:(?<![\w-])|(?<=\\[nrt]))eyJ[\w-]{8,}+(?:\.{1,2}[\w-]++){2,4}"  # JSON web tokens, RFC 7519
    r")",
    re.ASCII,
)
_ASSIGNED = re.compile(
    r"(?P<name>pass(?:word|wd|phrase|code)|secret|token|(?:api|access|private|auth|account|signing)[_-]?key|credential)"
    r"(?:[_-]?(?:access[_-]?)?key)?(?:[_-]?\d{1,3}|[_-](?:prod|dev|test|live|staging|old|new|value))?"
    r"""(?:\\?["'`]\]?|\*\*)?"""
    r"(?:[ \t]{0,8}:[ \t]{0,8}[A-Za-z_][\w.\[\]|, ]{0,40}? = |[ \t]{0,40}(?::=|={1,3}>?|:)[ \t]{0,40})"
    r'''(?:[rbfu]{0,2}(?P<quote>"""|\'\'\'|\\?["'`])(?P<quoted>(?:(?!(?P=quote))(?:\\.|[^\\\n])){6,4000}+)'''
    r"""|(?P<bare>[^\s"'`]{6,100}))""",
    re.ASCII | re.IGNORECASE,
)

_WORD = re.compile(r"[-_]*+[^\W\d_]++(?:[-_]++[^\W\d_]++)*+")
_LINE_BEGIN = re.compile(r"""\s*(?:export |set |- |-e )?[\w.-]*["']?""", re.ASCII | re.IGNORECASE)
_NO_SECRET_TOKENS = re.compile(  # of a tokenizer, of a parser
    r"(?:\A|[^A-Za-z])(?:eos|bos|pad|unk|sep|cls|mask|stop|end|start|next|first|last|prev|previous|special|new|best|top|image|sub)"
    r"[_-]?\Z",
    re.IGNORECASE,
)
_VALUE_REST = re.compile(r"""[^\s"'`]*+""")
_TOKEN_LETTERS = re.compile(r"[\w.~+/=%:@-]+", re.ASCII)
_PLACE_HOLDER = re.compile(
    r"\$?\{[^{}]*+\}|\$\([^()]*+\)|<[^<>]*+>|\[[^\[\]]*+\]|%\(\w+\)s|%s|\.{3}|…|\*{3,}"
    r"|\A\$(?:[A-Z_][A-Z0-9_]*|[a-z_]+)\Z|\A(.)\1*\Z|\Ayour[-_ ].*",
    re.IGNORECASE,
)
_CODE = re.compile(
    r"-?[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*[(\[]|[A-Za-z_]\w*(?:(?:\.|->|::)[A-Za-z_]\w*)+\Z|[\[({$]|&?[A-Za-z_]\w*\{"
    r"|[a-z]+://|\.{1,2}/|~/|/(?:run|etc|home|usr|var|tmp|opt|mnt|srv|Users)/|[<>=!|&]",
    re.ASCII,
)
_TYPE_NAMES = {"string", "number", "boolean", "object", "integer", "secretstr", "required", "optional", "undefined"}
_ENVIRONMENT_NAMES = ("KEY", "TOKEN", "SECRET", "PASSWORD", "PASSWD", "CREDENTIAL")


def scrub(text: str, environment: Mapping[str, str] | None = None) -> tuple[str, int]:
    """The text with what looks like a secret replaced, and how many were. Scrubbing again finds none.

    `environment` (that of this process) gives exact values that are secrets too. What has no known shape and
    stands behind no telling name is not found.

    >>> scrub('password = "hunter22"; url = "ftp://ada:lovelace@example.org"', {})
    ('password = "[secret removed]"; url = "ftp://ada:[secret removed]@example.org"', 2)
    >>> scrub("The password is used for token = getpass()", {})
    ('The password is used for token = getpass()', 0)
    """
    find_exact = _exact_finder(os.environ if environment is None else environment)
    pieces = text.split(REMOVED)
    n_before, n_seen = len(pieces), 0
    while n_seen != len(pieces):  # again, for what a removed neighbour had hidden
        n_seen = len(pieces)
        for find in (_find_key_blocks, find_exact, _find_urls, _find_authorizations, _find_assigned, _find_shapes):
            pieces = [part for piece in pieces for part in _cut(piece, find(piece))]
    return REMOVED.join(pieces), len(pieces) - n_before


def scrub_value(value: Any, name: str = "", depth: int = 0) -> tuple[Any, int]:
    """A value as JSON has it, with no secret in any of its texts, and how many there were.

    >>> scrub_value({"api_key": "abcdef", "stop": ("end",)})
    ({'api_key': '[secret removed]', 'stop': ['end']}, 1)
    """
    if value is None or isinstance(value, bool | float) or (isinstance(value, int) and abs(value) < 1 << 63):
        return value, 0
    if isinstance(value, Mapping) and depth < 20:  # and no further, should it hold itself
        keys = [write_text(key) for key in value]
        items = [scrub_value(item, key, depth + 1) for key, item in zip(keys, value.values(), strict=True)]
        clean = [scrub(key) for key in keys]
        return {key: item for (key, _), (item, _) in zip(clean, items, strict=True)}, sum(n for _, n in items + clean)
    if isinstance(value, list | tuple | set | frozenset) and depth < 20:
        items = [scrub_value(item, name, depth + 1) for item in value]
        return [item for item, _ in items], sum(n for _, n in items)
    text, n = scrub(write_text(value))
    if name and not n and scrub(f"{name}: {json.dumps(text)}")[1]:
        return REMOVED, 1  # by its name
    return text, n


def write_text(value: Any) -> str:
    """As text that can be stored: half a surrogate pair cannot."""
    try:
        text = "" if value is None else str(value)
    except Exception:  # of a user's object
        text = f"<{type(value).__name__}>"
    return text.encode("utf-8", "backslashreplace").decode()


def _cut(text: str, spans: Iterator[tuple[int, int]]) -> Iterator[str]:
    """What stands between the spans."""
    at = 0
    for start, end in spans:
        yield text[at:start]
        at = end
    yield text[at:]


def _exact_finder(environment: Mapping[str, str]):
    """Finds the values that the environment gives to telling names; the longest first, since one may hold another."""
    values = {
        value.strip()
        for name, value in environment.items()
        if any(part in name.upper() for part in _ENVIRONMENT_NAMES) and len(value.strip()) >= 8
    }
    if not values:
        return lambda text: iter(())
    exact = re.compile("|".join(re.escape(value) for value in sorted(values, key=len, reverse=True)))
    return lambda text: (match.span() for match in exact.finditer(text))


def _find_key_blocks(text: str) -> Iterator[tuple[int, int]]:
    for match in _KEY_BLOCK.finditer(text):
        if re.search(r"[A-Za-z0-9+/=]{16}", match["value"]):  # a mere mention of the two lines has no key
            yield match.span("value")


def _find_urls(text: str) -> Iterator[tuple[int, int]]:
    for match in _URL.finditer(text):
        if _PLACE_HOLDER.sub("", match["value"]):
            yield match.span("value")


def _find_authorizations(text: str) -> Iterator[tuple[int, int]]:
    for match in _AUTHORIZATION.finditer(text):
        value = match["value"]
        is_header = match[0][0] in "aA"  # else prose may have a bearer of good news
        if len(value) >= 16 or (is_header and re.search(r"\d|[a-z][A-Z]", value)):
            if not re.fullmatch(r"[a-z]+\.?", value) and _PLACE_HOLDER.sub("", value):
                yield match.span("value")


def _find_shapes(text: str) -> Iterator[tuple[int, int]]:
    return (match.span("value") for match in _SHAPE.finditer(text))


def _find_assigned(text: str) -> Iterator[tuple[int, int]]:
    at = 0
    while match := _ASSIGNED.search(text, at):
        value = match["quoted"] or match["bare"]
        start = at = match.start("quoted" if match["quote"] else "bare")  # in what is no secret there may be one
        is_quoted = bool(match["quote"]) and text.startswith(match["quote"], match.end())
        if not is_quoted:
            value = value.split(maxsplit=1)[0] if not value[0].isspace() else ""
            if "&" in value and (match["name"].lower() == "token" or _lead(text, match)[:1] in ("?", "&", "#")):
                value = value.split("&")[0]  # the query of a URL
            value = value.rstrip(",;:)]}>.")
        if _is_secret(text, match, start, value, is_quoted):
            at = start + len(value)
            if at == match.end() and not is_quoted:  # the pattern is bounded, the secret may be longer
                at = _VALUE_REST.match(text, at).end()
            yield start, at


def _lead(text: str, match: re.Match[str]) -> str:
    """The beginning of a name, and what divides it from the one before."""
    return re.search(r"[?&#]?[\w-]*\Z", text[max(0, match.start() - 40) : match.start()], re.ASCII)[0]


def _is_secret(text: str, match: re.Match[str], start: int, value: str, is_quoted: bool) -> bool:
    """Whether the value behind a telling name is one, not code, a word of prose, or a place to put it."""
    if len(value) < 6:
        return False
    is_word = _WORD.fullmatch(value) is not None
    if match["name"].lower() == "token":  # of a language more often than of a service
        n_digits = len(re.findall("[0-9]", value[:64]))
        is_mixed = len(value) >= 16 and n_digits < 2 and value[1:].lower() != value[1:]
        if not (is_mixed or (1 if is_quoted and len(value) < 16 else 2) <= n_digits):
            return False
        if not re.search("[A-Za-z]", value) or not _TOKEN_LETTERS.fullmatch(value):
            return False
        if ("_" in value and is_word) or _NO_SECRET_TOKENS.search(_lead(text, match)):
            return False
    if (not is_quoted and _CODE.match(value)) or len(_PLACE_HOLDER.sub("", value)) < 6:
        return False
    if is_quoted or not is_word:
        return True
    if value.lower() in _TYPE_NAMES or "_" in value or text[start - 2 : start] == "= ":
        return False  # a type, or a name in code
    return _is_whole_line(text, match.start(), start + len(value))


def _is_whole_line(text: str, start: int, end: int) -> bool:
    """Whether nothing else stands on the line, as in a file of settings."""
    begin = text.rfind("\n", max(0, start - 60), start) + 1
    if not begin and start > 60:
        return False
    stop = text.find("\n", end, end + 60)
    rest = text[end:stop] if stop >= 0 else text[end : end + 60]
    return _LINE_BEGIN.fullmatch(text, begin, start) is not None and not rest.strip()
