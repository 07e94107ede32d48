"""Capture: what is masked in everything that is written down of a process.

Refuses to let a secret through: by the shape of known tokens, by the names that values stand under, and by
the values that this process's own environment keeps under such names.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

MASK = "***"


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_SECRET_WORDS = _words(
    "password passwords passwd passphrase pwd pass secret secrets credential credentials cred creds"
    " apikey authkey auth authorization authentication bearer cookie cookies privatekey accesskey"
    " secretkey apikeys sessionkey apitoken authtoken accesstoken hftoken hubtoken"
)
_AMBIGUOUS = _words("pass auth cookie cookies")
_ANSWER = re.compile(
    r"true|false|yes|no|on|off|none|null|basic|enabled|disabled|required|optional|[0-9]{1,3}%?"
    r"|[0-9]{1,3}/[0-9]{1,3}|[0-9]{0,3}\.[0-9]{1,6}%?",
    re.IGNORECASE,
)
"""What is no password: `pass=45 fail=2` is said of tests, `auth: none` of a service."""
_KEY_OWNERS = _words("api access private secret account signing encryption ssh service session auth master")
_SERVICES = _words(
    "wandb openai comet neptune clearml huggingface anthropic cohere replicate groq gemini deepseek"
    " github gitlab aws azure gcp google kaggle runpod pinecone tavily serper slack telegram"
    " discord"
)
"""Whose keys are secrets; `hf_key` is the name of a tensor more often."""
_TOKEN_OWNERS = _words("auth access api hub hf refresh secret bearer session oauth jwt push user registry")
_MODEL_TOKENS = _words(
    "pad bos eos unk cls sep mask num max min n per new ids type special embedding image video audio"
    " trainable count limit budget length len size level accuracy loss prob probs index position top"
    " next stop start end begin decoder forced suppress draft assistant entropy mean text boi eoi vision"
    " dropout seen average input output chat im think label labels word first last total strategy merge"
    " mode reduction weight weights ratio rate selection classification pooling shift sampling frequency"
    " split dim order overlap"
)
_COUNTS = _words("num max min n count total avg average mean")
_BENIGN_KEYS = frozenset({"author", "authors"})
_SIGNATURE_KEYS = frozenset({"sig", "signature", "xamzsignature", "xgoogsignature", "sharedaccesssignature"})

_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")

_KNOWN_TOKENS = re.compile(
    r"(?<![A-Za-z0-9])(?:"
    r"eyJ[A-Za-z0-9_-]{6,4096}\.[A-Za-z0-9_-]{4,}(?:\.[A-Za-z0-9_-]*)?"
    r"|(?:hf|api_org)_[A-Za-z0-9]{8,}"
    r"|sk-[A-Za-z0-9_-]{8,}"
    r"|gh[pousr]_[A-Za-z0-9]{8,}"
    r"|github_pat_[A-Za-z0-9_]{8,}"
    r"|glpat-[A-Za-z0-9_-]{8,}"
    r"|xox[a-z]-[A-Za-z0-9-]{8,}"
    r"|(?:AKIA|ASIA)[0-9A-Z]{12,}"
    r"|AIza[0-9A-Za-z_-]{20,}"
    r"|npm_[A-Za-z0-9]{20,}"
    r"|pypi-[A-Za-z0-9_-]{16,}"
    r"|dop_v1_[a-f0-9]{16,}"
    r"|wandb_v1_[A-Za-z0-9_-]{8,}"
    r"|gsk_[A-Za-z0-9]{20,}"
    r"|nvapi-[A-Za-z0-9_-]{20,}"
    r"|r8_[A-Za-z0-9]{30,}"
    r")"
)
_PRIVATE_KEY = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL
)
_BEARER = re.compile(r"(?i)\b(bearer)([\s+]+|%20)(?!\*\*\*)[^\s'\"]+")
_BASIC = re.compile(r"(?i)\b(authorization[\"']?\s*[:=]\s*[\"']?\s*[a-z]+\s+)[^\s'\"]+")
# user@ or user:password@. A password may hold '/' and '@'; digits and '/' after the colon are a port.
_SCHEME = re.compile(r"(?i)\b[a-z][a-z0-9+.-]{0,30}://")
_USER = re.compile(r"[^\s/:@'\"]*:(?!\d+/)")
_ALONE = re.compile(r"[^\s/?#'\"]*@")
_WORD_END = re.compile(r"[\s'\"]|\Z")
# What is a key of W&B by its place alone: forty hexadecimal digits are a commit as well.
_LOGIN = re.compile(
    r"""(?i)\b(wandb\s+login\s+(?:-[\w-]+(?:=\S+|\s+https?://\S+)?\s+)*["']?)"""
    r"""(?=[^\s'"]*[0-9]|[^\s'"]{16})(?![-$<{*])[^\s'"]+"""
)
_NETRC = re.compile(r"""(?i)\b(machine\s+\S+\s+login\s+\S+\s+password\s+)(?![$<{*])[^\s'"\\]+""")
_CURL = re.compile(r"""\b(curl\b[^\n|;]{0,400}?\s(?:-u|--user)[\s=]+["']?[^\s:'"$]+:)(?![$<{*])[^\s'"]+""")
# key=value, key: value, "key": "value", --key value. The value runs to a blank or its closing quote:
# masking too much of a command line costs little.
_ASSIGNED = re.compile(
    r"""(?P<lead>(?<![\w.])(?P<dashes>--?)?["']?(?P<key>[A-Za-z_][A-Za-z0-9_.-]{0,127})(?P<after>\\?["'])?)"""
    r"""(?:\s{0,9}[=:]\s{0,9}|(?P<blank>\s{1,9}))(?=[^\s])"""
)
_VALUE = r"""\\"(?:(?!\\").)*\\"|"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|[^\s'"]+"""
# Read only where it is masked: a long line without blanks may be one value after each of its keys.
_ASSIGNED_VALUE = re.compile(_VALUE)
_MARK = re.compile(r"[|>][-+0-9]{0,2}")
"""What announces a block of YAML."""
# A line that is a key and no more, of YAML or INI: what is indented below it is its value.
_HEAD = (
    r"""(?P<indent>[ \t]*(?:-[ \t]+)*)["']?(?P<key>[A-Za-z_][\w.-]{0,127})["']?[ \t]*[:=][ \t]*"""
    r"""(?:[|>][-+0-9]{0,2})?[ \t]*(?:#.*)?\r?$"""
)
_HEADS = {0: re.compile("^" + _HEAD, re.MULTILINE), 1: re.compile("^[ +-]" + _HEAD, re.MULTILINE)}
_TO_NAME = r"""(?<![\w.-])\\?["']?(?:name|key|variable|var)\\?["']?\s{0,9}[:=]\s{0,9}"""
_TO_VALUE = r"""(?<![\w.-])\\?["']?value\\?["']?\s{0,9}[:=]\s{0,9}"""
_NAMED = r"""\\?["']?(?P<key>[A-Za-z_][\w.-]{0,127})\\?["']?"""
# {"name": "WANDB_API_KEY", "value": "..."}, as containers are told their variables; either may come first.
_PAIRS = (
    re.compile(rf"{_TO_NAME}{_NAMED}[\s,+-]{{1,40}}{_TO_VALUE}(?P<value>{_VALUE})"),
    re.compile(
        rf"""{_TO_VALUE}(?P<value>{_VALUE.replace("+", "{1,4096}?")})[\s,+-]{{1,40}}{_TO_NAME}{_NAMED}"""
    ),
)
_DECLARED = re.compile(
    r"^[+ -]?[ \t]*(?:ENV|ARG|setenv|%(?:set_)?env|set -g?x)[ \t]+"
    r"(?P<key>[A-Za-z_]\w{0,127})[ \t]+(?P<value>[^\s=].*)$",
    re.MULTILINE,
)
_BRACKETS = re.compile(r"""\\"(?:(?!\\").)*\\"|"(?:[^"\\]|\\.)*"|'(?:[^'\\\n]|\\.)*'|[\[({]|[\])}]""")
_MAX_BRACKET = 1 << 16
Span = tuple[int, int, str]
"""Where something is replaced, and by what."""
Harmless = Callable[[str], bool]
_MAX_MASKED_CHARACTERS = 1 << 20
_LEAST_KNOWN = 8
_FOLDERS = frozenset(("PWD", "OLDPWD"))
GIVEN = "STEMMATA_ARG_"
"""Variables that give a masked argument of a command again begin so."""
_PLURAL = re.compile(r"(?i)(?:keys|tokens|secrets|passwords|credentials|creds)$")
_PLAIN_WORD = re.compile(r"[a-z_-]+|[A-Z_-]+|[0-9]{1,11}")


def looks_secret(key: str) -> bool:
    """Whether a value under this key (a flag, variable or config field) is to be masked.

    `hub_token`, `HF_TOKEN`, `api-key`, `dbPassword` are; `num_tokens`, `pad_token`, `tokenizer`,
    `max_tokens`, `author` are not.
    """
    words = [word.lower() for word in _WORDS.findall(key)]
    if not words or "".join(words) in _BENIGN_KEYS:
        return False
    if "".join(words) in _SIGNATURE_KEYS:
        return True
    found = set(words)
    if found & _SECRET_WORDS:
        return True
    if found & {"key", "keys"} and found & _KEY_OWNERS:
        return True
    named = words[:-1] if words[-1].isdigit() else words
    if named[-1:] in (["key"], ["keys"], ["pat"]) and _SERVICES.intersection(named[-2:-1]):
        return True
    return _is_token(words)


def is_answer(key: str, value: object) -> bool:
    """Whether a value under what `looks_secret` tells something else: of a word with two meanings, a number,
    yes or no."""
    words = {word.lower() for word in _WORDS.findall(key)}
    if not words & _AMBIGUOUS or words & (_SECRET_WORDS - _AMBIGUOUS) or words & {"key", "keys", "token"}:
        return False
    return _ANSWER.fullmatch(str(value).strip("'\"")) is not None


def _is_token(words: list[str]) -> bool:
    at = next((number for number, word in enumerate(words) if word in ("token", "tokens")), None)
    if at is None or words[at:] == ["token", "id"] or _MODEL_TOKENS.intersection(words[at + 1 :]):
        return False
    if words[at] == "tokens" and _COUNTS.intersection(words[:at]):
        return False
    if at and words[at - 1] in _TOKEN_OWNERS:
        return True  # whatever is before that: the token of an API of labels is one of an API
    if _MODEL_TOKENS.intersection(words):
        return False
    return words[at] == "token" or bool(_TOKEN_OWNERS.intersection(words))


def mask(text: str) -> str:
    """`text` with everything that looks like a secret replaced by `***`.

    Known token shapes, JSON web tokens, private keys, `Bearer …`, user:password in addresses, and
    the values of keys that `looks_secret`. Text beyond 1 Mi characters is cut off.
    """
    if len(text) > _MAX_MASKED_CHARACTERS:
        text = text[:_MAX_MASKED_CHARACTERS] + "…"
    return mask_assigned(mask_shapes(text))


def mask_shapes(text: str) -> str:
    """`text` without what is a secret by its own shape, whatever stands before it."""
    text = _PRIVATE_KEY.sub(MASK, text)
    text = _KNOWN_TOKENS.sub(MASK, text)
    for named in (_LOGIN, _NETRC, _CURL):
        text = named.sub(rf"\1{MASK}", text)
    text = _BASIC.sub(rf"\1{MASK}", text)
    text = _BEARER.sub(rf"\1\2{MASK}", text)
    return replaced(text, _user_infos(text))


def is_token(text: str) -> bool:
    """Whether a text is nothing but a token of a known shape."""
    return _KNOWN_TOKENS.fullmatch(text) is not None


def known_secrets(environment: Mapping[str, str] | None = None) -> tuple[str, ...]:
    """Values that the environment keeps under secrets' names, longest first: to be masked wherever they
    stand. Paths that are there (`PWD`), short values and plain words (`AUTH_MODE=disabled`) are none."""
    variables = os.environ if environment is None else environment
    found = {
        value.strip()
        for name, value in variables.items()
        if (looks_secret(name) or name.startswith(GIVEN)) and _tells_something(name, value.strip())
    }
    return tuple(sorted(found, key=lambda value: (-len(value), value)))


def _tells_something(name: str, value: str) -> bool:
    if len(value) < _LEAST_KNOWN or MASK in value or _PLAIN_WORD.fullmatch(value):
        return False
    # Keys of AWS may begin as a path does.
    if value[0] not in "/.~":
        return True
    if name in _FOLDERS:
        return False  # of another machine, perhaps, and so not there
    try:
        return not Path(value).expanduser().exists()
    except (OSError, ValueError, RuntimeError):  # too long for a path, or of nobody's home
        return True


def mask_known(text: str, secrets: Iterable[str]) -> str:
    """`text` without these values, as they are, in JSON or in an address."""
    for secret in secrets:
        for form in (secret, json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1]):
            text = text.replace(form, MASK)
        text = text.replace(quote(secret, safe=""), MASK)
    return text


def _user_infos(text: str) -> Iterator[Span]:
    """Who an address is asked as: up to the last "@" of its word, which is looked for once a word."""
    done = end = last = -1
    for scheme in _SCHEME.finditer(text):
        start = scheme.end()
        if start <= done:
            continue
        if start > end:
            found = _WORD_END.search(text, start)
            end = found.start() if found is not None else len(text)
            last = text.rfind("@", start, end)
        if last < start:
            continue
        if _USER.match(text, start):
            stop = last
        elif alone := _ALONE.match(text, start):
            stop = alone.end() - 1
        else:
            continue
        done = stop
        # "git@" is how everybody reaches a host by ssh; a lone user elsewhere may be a token.
        if text[start:stop] != "git":
            yield start, stop, MASK


def mask_assigned(text: str, harmless: Harmless = lambda _value: False, margin: int = 0) -> str:
    """`text` without the values that stand under secrets' names, but those that are `harmless`: a word, a
    text in quotes, a whole bracket or an indented block. `margin`: 1 of a diff: its lines begin with a sign.
    """
    return replaced(
        text,
        [
            *assigned(text, harmless),
            *_blocks(text, harmless, margin),
            *paired(text, harmless),
            *_declared(text, harmless),
        ],
    )


def replaced(text: str, spans: Iterable[Span]) -> str:
    """`text` with each span replaced; of overlapping ones the first counts, as far as any of them reaches."""
    parts: list[str] = []
    end = 0
    for start, stop, mask in sorted(spans):
        if start >= end:
            parts += [text[end:start], mask]
        end = max(end, stop)
    return "".join([*parts, text[end:]])


def assigned(text: str, harmless: Harmless) -> Iterator[Span]:
    """What is assigned to a secret's name."""
    position = 0
    while found := _ASSIGNED.search(text, position):
        by_blank = found["blank"] is not None
        # The value may itself hold an assignment (--set token=x): look again right after the key.
        position = found.end("lead")
        if not looks_secret(found["key"]) or (by_blank and found["dashes"] is None):
            continue
        read = _ASSIGNED_VALUE.match(text, found.end())
        if read is None:
            continue
        start, end = read.start(), _end_of(text, read)
        value = text[start:end]
        if (
            harmless(value)
            or is_answer(found["key"], value)
            or _MARK.fullmatch(value)
            or (by_blank and value.startswith("--"))
        ):
            continue
        quote = _quote_of(value)
        if value[:1] in "[{(":
            quote = found["after"] or next((q for q in "\"'" if q in value), "")
        yield start, end, quote + MASK + quote
        position = end


def _end_of(text: str, found: re.Match[str]) -> int:
    """Where a value ends: that of a bracket where it is closed."""
    start, end = found.span()
    opens = re.match(r"\$?[\[({]", found[0])
    if opens is None:
        return end
    depth = 0
    for each in _BRACKETS.finditer(text, start + opens.end() - 1, start + _MAX_BRACKET):
        depth += {"[": 1, "(": 1, "{": 1, "]": -1, ")": -1, "}": -1}.get(each[0], 0)
        if depth == 0 and len(each[0]) == 1:
            return each.end()
    return end


def _quote_of(value: str) -> str:
    return value[:2] if value.startswith('\\"') else value[0] if value[:1] in ('"', "'") else ""


def _blocks(text: str, harmless: Harmless, margin: int) -> Iterator[Span]:
    """What is indented below a secret's name."""
    for head in _HEADS[margin].finditer(text):
        if not looks_secret(head["key"]):
            continue
        column, lines = len(head["indent"]), []
        position = head.end() + 1
        while position < len(text):
            end = text.find("\n", position)
            end = len(text) if end < 0 else end
            line = text[position + margin : end]
            bare = line.lstrip()
            inside = len(line) - len(bare) > column or (
                bare.startswith("- ") and len(line) - len(bare) == column
            )
            if bare and (not inside or (margin and text.startswith("@@", position))):
                break
            if bare:
                lines.append((end - len(bare), end, bare.rstrip()))
            position = end + 1
        if lines and not all(harmless(re.sub(r"^(?:- +)*(?:[^\s:]+: +)?", "", line)) for *_, line in lines):
            yield lines[0][0], lines[-1][1], MASK


def paired(text: str, harmless: Harmless, *, quoted: bool = False) -> Iterator[Span]:
    """The `value` beside a `name` that is a secret's; only values in quotes if they must be `quoted`."""
    for pattern in _PAIRS:
        for found in pattern.finditer(text):
            quote = _quote_of(found["value"])
            if looks_secret(found["key"]) and not harmless(found["value"]) and (quote or not quoted):
                yield *found.span("value"), quote + MASK + quote


def _declared(text: str, harmless: Harmless) -> Iterator[Span]:
    """`ENV NAME value`, as Dockerfiles and notebooks have it."""
    for found in _DECLARED.finditer(text):
        if looks_secret(found["key"]) and not harmless(found["value"].strip()):
            yield *found.span("value"), MASK


def mask_command(argv: Sequence[str]) -> list[str]:
    """A command line, argument by argument; the argument after a secret flag goes whole, after one in the
    plural (`--api-keys`) all up to the next flag, and so does what `wandb login` is given."""
    masked: list[str] = []
    left, login = 0, False
    """Arguments that go whole; whether the first that is no flag does."""
    for number, argument in enumerate(argv):
        before = argv[number - 1] if number else ""
        if left and not argument.startswith("--" if left == 1 else "-"):
            masked.append(MASK)
            left -= 1
            continue
        left = 0
        if login and not argument.startswith("-") and before != "--host":
            masked.append(MASK)
            login = False
            continue
        name, equals, _ = argument.partition("=")
        secret = looks_secret(name) and not any(c.isspace() for c in name)
        if secret and not equals and argument.startswith("-"):
            left = len(argv) if _PLURAL.search(name) else 1
        elif argument == "login" and before.rpartition("/")[2] == "wandb":
            login = True
        masked.append(f"{name}={MASK}" if secret and equals else mask(argument))
    return masked


def mask_value(key: str, value: object) -> object:
    """`value` as it may be kept under `key`: numbers and flags that are no secret stay what they are."""
    if isinstance(value, Mapping):
        named = [value[which] for which in ("name", "key", "variable", "var") if which in value]
        if "value" in value and any(isinstance(name, str) and looks_secret(name) for name in named):
            value = {**value, "value": MASK}
        return {str(k): mask_value(f"{key}.{k}", v) for k, v in value.items()}
    if value is None or isinstance(value, bool) or value == "":
        return value
    # What lies below a secret's name (`credentials.value`) is one too.
    if any(looks_secret(part) and not is_answer(part, value) for part in key.split(".")):
        return MASK
    if isinstance(value, str):
        return mask(value)
    if isinstance(value, list | tuple) and all(isinstance(item, str) for item in value):
        # It may be the words of a command: `["--token", "…"]`.
        return mask_command(value)
    if isinstance(value, list | tuple | set | frozenset):
        return [mask_value(key, item) for item in value]
    return value


def mask_config(config: Mapping[str, object]) -> dict[str, object]:
    """A config, flat or nested, with secret values replaced (`hub_token` -> `***`)."""
    masked = {str(key): mask_value(str(key), value) for key, value in config.items()}
    secrets = known_secrets()
    return {key: _without(value, secrets) for key, value in masked.items()} if secrets else masked


def _without(value: object, secrets: tuple[str, ...]) -> object:
    if isinstance(value, str):
        return mask_known(value, secrets)
    if isinstance(value, list):
        return [_without(item, secrets) for item in value]
    if isinstance(value, dict):
        return {key: _without(item, secrets) for key, item in value.items()}
    return value


def to_json(value: object) -> bytes:
    """JSON as provenance objects keep it: sorted, so that equal facts are equal bytes."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, indent=1, default=str)
    return text.encode("utf-8", "replace")
