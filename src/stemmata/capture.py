"""Capture: what is masked in everything that is written down of a process.

Refuses to let a secret through: by the shape of known tokens, by the names that values stand under, and by
the values that this process's own environment keeps under such names.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from urllib.parse import quote

MASK = "***"


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_SECRET_WORDS = _words(
    "password passwd passphrase pwd pass secret secrets credential credentials cred creds apikey authkey auth"
    " authorization authentication bearer cookie privatekey accesskey secretkey sessionkey"
)
_KEY_OWNERS = _words("api access private secret account signing encryption ssh service session auth master")
_TOKEN_OWNERS = _words("auth access api hub hf refresh secret bearer session oauth jwt push")
_MODEL_TOKENS = _words(
    "pad bos eos unk cls sep mask num max min n per new ids type special embedding image video audio"
    " trainable count limit budget length len size level accuracy loss prob probs index position top next"
    " stop start end begin decoder forced suppress draft assistant entropy mean text boi eoi vision dropout"
    " seen average input output chat im think label labels word first last total"
)
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
    r")"
)
_PRIVATE_KEY = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL
)
_BEARER = re.compile(r"(?i)\b(bearer)([\s+]+|%20)(?!\*\*\*)[^\s'\"]+")
_BASIC = re.compile(r"(?i)\b(authorization[\"']?\s*[:=]\s*[\"']?\s*[a-z]+\s+)[^\s'\"]+")
# user@ or user:password@. A password may hold '/' and '@'; digits and '/' after the colon are a port.
_USER_INFO = re.compile(r"(?i)\b([a-z][a-z0-9+.-]{0,30}://)([^\s/:@'\"]*:(?!\d+/)[^\s'\"]*|[^\s/?#'\"]*)@")
# key=value, key: value, "key": "value", --key value. The value runs to a blank or its closing quote:
# masking too much of a command line costs little.
_ASSIGNED = re.compile(
    r"""(?P<lead>(?<![\w.])(?P<dashes>--?)?["']?(?P<key>[A-Za-z_][A-Za-z0-9_.-]{0,127})["']?)"""
    r"""(?P<between>\s{0,9}[=:]\s{0,9}|(?P<blank>\s{1,9}))"""
    r"""(?P<value>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|[^\s'"]+)"""
)
_MAX_MASKED_CHARACTERS = 1 << 20
_LEAST_KNOWN = 8
GIVEN = "STEMMATA_ARG_"
"""Variables that give a masked argument of a command again begin so."""
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
    if "token" in found:
        return words[-2:] != ["token", "id"] and not found & _MODEL_TOKENS
    return "tokens" in found and bool(found & _TOKEN_OWNERS) and not found & _MODEL_TOKENS


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
    text = _BASIC.sub(rf"\1{MASK}", text)
    text = _BEARER.sub(rf"\1\2{MASK}", text)
    return _USER_INFO.sub(_mask_user_info, text)


def known_secrets(environment: Mapping[str, str] | None = None) -> tuple[str, ...]:
    """Values that the environment keeps under secrets' names, longest first: to be masked wherever they
    stand. Paths (`PWD`), short values and plain words (`AUTH_MODE=disabled`) are none."""
    variables = os.environ if environment is None else environment
    found = {
        value.strip() for name, value in variables.items() if looks_secret(name) or name.startswith(GIVEN)
    }
    return tuple(sorted(filter(_tells_something, found), key=lambda value: (-len(value), value)))


def _tells_something(value: str) -> bool:
    if len(value) < _LEAST_KNOWN or value[0] in "/.~" or MASK in value:
        return False
    return not _PLAIN_WORD.fullmatch(value)


def mask_known(text: str, secrets: Iterable[str]) -> str:
    """`text` without these values, as they are, in JSON or in an address."""
    for secret in secrets:
        for form in (secret, json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1]):
            text = text.replace(form, MASK)
        text = text.replace(quote(secret, safe=""), MASK)
    return text


def _mask_user_info(found: re.Match[str]) -> str:
    # "git@" is how everybody reaches a host by ssh; a lone user elsewhere may be a token.
    return found[0] if found[2] == "git" else f"{found[1]}{MASK}@"


def mask_assigned(text: str, harmless: Callable[[str], bool] = lambda _value: False) -> str:
    """`text` without the values that stand under secrets' names, but those that are `harmless`."""
    parts: list[str] = []
    position = 0
    while found := _ASSIGNED.search(text, position):
        by_blank = found["blank"] is not None
        secret = looks_secret(found["key"]) and (not by_blank or found["dashes"] is not None)
        secret = secret and not harmless(found["value"])
        if secret and not (by_blank and found["value"].startswith("--")):
            value = found["value"]
            quote = value[0] if value[0] in "\"'" else ""
            parts.append(text[position : found.start("value")] + quote + MASK + quote)
            position = found.end()
        else:
            # The value may itself hold an assignment (--set token=x): look again right after the key.
            parts.append(text[position : found.end("lead")])
            position = found.end("lead")
    return "".join([*parts, text[position:]])


def mask_command(argv: Sequence[str]) -> list[str]:
    """A command line, argument by argument; the argument after a secret flag goes whole."""
    masked: list[str] = []
    after_secret = False
    for argument in argv:
        if after_secret and not argument.startswith("--"):
            masked.append(MASK)
            after_secret = False
            continue
        name, equals, _ = argument.partition("=")
        secret = looks_secret(name) and not any(c.isspace() for c in name)
        after_secret = secret and not equals and argument.startswith("-")
        masked.append(f"{name}={MASK}" if secret and equals else mask(argument))
    return masked


def mask_value(key: str, value: object) -> object:
    """`value` as it may be kept under `key`: numbers and flags that are no secret stay what they are."""
    if isinstance(value, Mapping):
        return {str(k): mask_value(f"{key}.{k}", v) for k, v in value.items()}
    if value is None or isinstance(value, bool) or value == "":
        return value
    # What lies below a secret's name (`credentials.value`) is one too.
    if any(looks_secret(part) for part in key.split(".")):
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
