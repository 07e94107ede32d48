"""Capture: how a version came about. Owns what is recorded of the process, and what is masked in it.

Refuses to write a secret down: command line, remote addresses and environment pass `mask` first,
and of the environment only a short list of variables is kept at all.
"""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path

MASK = "***"

_GIT_SECONDS = 2.0
_KEPT_VARIABLES = frozenset(
    {
        "ACCELERATE_MIXED_PRECISION",
        "CUBLAS_WORKSPACE_CONFIG",
        "CUDA_DEVICE_ORDER",
        "CUDA_LAUNCH_BLOCKING",
        "CUDA_VISIBLE_DEVICES",
        "HF_DATASETS_OFFLINE",
        "HF_HUB_OFFLINE",
        "LOCAL_RANK",
        "LOCAL_WORLD_SIZE",
        "MKL_NUM_THREADS",
        "NUMEXPR_NUM_THREADS",
        "OMP_NUM_THREADS",
        "OPENBLAS_NUM_THREADS",
        "PYTHONHASHSEED",
        "PYTORCH_ALLOC_CONF",
        "PYTORCH_CUDA_ALLOC_CONF",
        "RANK",
        "SLURM_ARRAY_TASK_ID",
        "SLURM_JOB_ID",
        "SLURM_NNODES",
        "SLURM_NTASKS",
        "TF32_OVERRIDE",
        "TOKENIZERS_PARALLELISM",
        "TORCH_COMPILE_DISABLE",
        "TRANSFORMERS_OFFLINE",
        "WORLD_SIZE",
    }
)


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
    text = _PRIVATE_KEY.sub(MASK, text)
    text = _KNOWN_TOKENS.sub(MASK, text)
    text = _BASIC.sub(rf"\1{MASK}", text)
    text = _BEARER.sub(rf"\1\2{MASK}", text)
    text = _USER_INFO.sub(_mask_user_info, text)
    return _mask_assigned(text)


def _mask_user_info(found: re.Match[str]) -> str:
    # "git@" is how everybody reaches a host by ssh; a lone user elsewhere may be a token.
    return found[0] if found[2] == "git" else f"{found[1]}{MASK}@"


def _mask_assigned(text: str) -> str:
    parts: list[str] = []
    position = 0
    while found := _ASSIGNED.search(text, position):
        by_blank = found["blank"] is not None
        secret = looks_secret(found["key"]) and (not by_blank or found["dashes"] is not None)
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
    return {str(key): mask_value(str(key), value) for key, value in config.items()}


def collect(folder: Path | None = None) -> dict[str, bytes]:
    """Provenance of this process as JSON texts: command, environment, packages and, under git, code.

    `folder` is where the code lies; by default the running script's folder, else the working one.
    """
    found: dict[str, object] = {
        "command": _command(),
        "environment": _environment(),
        "packages": _packages(),
    }
    code = _code(folder or _code_folder())
    if code:
        found["code"] = code
    return {kind: to_json(value) for kind, value in found.items()}


def to_json(value: object) -> bytes:
    """JSON as provenance objects keep it: sorted, so that equal facts are equal bytes."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, indent=1, default=str)
    return text.encode("utf-8", "replace")


def _command() -> dict[str, object]:
    argv = [*sys.orig_argv] if sys.orig_argv else [sys.executable, *sys.argv]
    try:
        folder = str(Path.cwd())
    except OSError:
        folder = ""  # the working directory was removed
    return {"argv": mask_command(argv), "folder": mask(folder)}


def _environment() -> dict[str, object]:
    variables = {k: mask(v) for k, v in os.environ.items() if k in _KEPT_VARIABLES and not looks_secret(k)}
    return {**_machine(), "variables": variables}


@lru_cache(maxsize=1)
def _machine() -> dict[str, object]:
    return {
        "python": platform.python_version(),
        "implementation": platform.python_implementation(),
        "platform": platform.platform(),
        "machine": platform.machine(),
        "cpu": _cpu_name(),
        "cpus": os.cpu_count(),
        **_gpus(_NVIDIA),
    }


_NVIDIA = Path("/proc/driver/nvidia")
"""Where NVIDIA's driver tells of itself on Linux: asked without loading anything of CUDA."""
_GPU = re.compile(r"^Model:\s*(\S.*?)\s*$", re.MULTILINE)
_DRIVER = re.compile(r"^NVRM version:.*?\s(\d+(?:\.\d+)+)\b", re.MULTILINE)


def _gpus(told: Path) -> dict[str, object]:
    """The models of the GPUs and their driver's release; nothing where there is no such driver."""
    found: dict[str, object] = {}
    try:
        texts = [path.read_text(errors="replace") for path in sorted(told.glob("gpus/*/information"))]
        models = [model for text in texts for model in _GPU.findall(text)]
        driver = _DRIVER.search((told / "version").read_text(errors="replace"))
    except OSError:
        return found
    if models:
        found["gpus"] = models
    if driver is not None:
        found["driver"] = driver[1]
    return found


def _cpu_name() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as lines:
            for line in lines:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass  # not Linux
    return platform.processor()


_FIELD = re.compile(r"^(Name|Version): *(\S+)", re.MULTILINE)


@lru_cache(maxsize=1)
def _packages() -> dict[str, str]:
    from importlib.metadata import distributions

    found: dict[str, str] = {}
    for distribution in distributions():
        # Not through `metadata`, which parses all of it as a mail: a quarter of a second for 200 packages.
        text = distribution.read_text("METADATA") or distribution.read_text("PKG-INFO") or ""
        fields = dict(_FIELD.findall(text.partition("\n\n")[0]))
        if name := fields.get("Name"):
            # The first on the path is the one that imports.
            found.setdefault(name, mask(fields.get("Version", "")))
    return dict(sorted(found.items(), key=lambda item: item[0].lower()))


def _code_folder() -> Path:
    script = getattr(sys.modules.get("__main__"), "__file__", None)
    if script and script.endswith(".py"):
        path = Path(script).resolve()
        if not path.is_relative_to(Path(sys.prefix).resolve()):
            return path.parent
    return Path()


def _code(folder: Path) -> dict[str, object]:
    head = _git(folder, "rev-parse", "HEAD", "--abbrev-ref", "HEAD")
    if head is None or len(head.split()) < 2:
        return {}
    commit, branch = head.split()[:2]
    changes = _git(folder, "status", "--porcelain", "--untracked-files=no")
    remote = _git(folder, "config", "--get", "remote.origin.url")
    return {
        "commit": commit,
        "branch": mask(branch),
        "dirty": None if changes is None else bool(changes.strip()),
        "remote": mask(remote.strip()) if remote else None,
    }


def _git(folder: Path, *arguments: str) -> str | None:
    """What git says, or None: not there, no repository, or too slow."""
    # fsmonitor is a program that a repository's own config names; it is not run for a question.
    command = ["git", "-c", "core.fsmonitor=false", "-C", os.fspath(folder), *arguments]
    environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0"}
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            timeout=_GIT_SECONDS,
            env=environment,
            stdin=subprocess.DEVNULL,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.decode("utf-8", "replace") if done.returncode == 0 else None
