"""I10 in source text: what is masked in programs, settings, commands and cells, and what stays readable."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from stemmata.capture import MASK, known_secrets, looks_secret, mask, mask_command, mask_config
from stemmata.capturing import configs
from stemmata.capturing.secrets import holds_secrets, mask_source
from stemmata.hf.tokens import drop_tokens

ROOT = Path(__file__).parents[2]
KEY = "0123456789abcdef" * 2 + "01234567"
PLANTED = "Tr0ub4dor&3xyz"


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("a.yaml", "api_key: |\n  {}\nlr: 1\n"),
        ("a.yaml", "api_keys:\n  - first\n  - {}\nlr: 1\n"),
        ("a.yaml", "api_keys:\n- {}\nlr: 1\n"),
        ("a.yaml", "api_keys: [first, {}]\n"),
        ("a.yaml", "db:\n  credentials:\n    user: bob\n    value: {}\n"),
        ("a.yaml", "env:\n- name: WANDB_API_KEY\n  value: {}\n"),
        ("a.json", '{{"api_keys": ["first", "{}"]}}'),
        ("a.json", '{{"name": "WANDB_API_KEY", "value": "{}"}}'),
        ("a.json", '{{"value": "{}", "name": "WANDB_API_KEY"}}'),
        ("a.json", '{{"args": "{{\\"api_key\\": \\"{}\\"}}"}}'),
        ("a.toml", 'api_keys = [\n  "first",\n  "{}",\n]\n'),
        ("a.ini", "api_keys =\n  first\n  {}\n"),
        ("a.sh", "curl -u bob:{} https://example.org"),
        ("a.sh", 'echo "machine api.wandb.ai login user password {}" > ~/.netrc'),
        ("a.sh", f"wandb login --relogin {KEY} # {{}}".replace(" # {}", "")),
        ("Dockerfile", "ENV WANDB_API_KEY {}\n"),
        ("a.py", 'auth = ("bob", "{}")'),
        ("a.py", 'api_keys = [\n    "first",\n    "{}",\n]'),
        ("a.py", 'p.add_argument("--hub_token", type=str, default="{}")'),
        ("a.py", 'hub_token: str = field(default="{}")'),
        ("a.py", 'hub_token = str("{}")'),
        ("a.py", 'token = os.environ.get("HF_TOKEN") or "{}"'),
        ("a.py", 'token = getenv("X", "{}")'),
        ("a.py", 'os.system("python t.py --api_key {}")'),
        ("a.py", 'run("WANDB_API_KEY={} python t.py", shell=True)'),
        ("a.py", 'get("https://h/x?token={}")'),
        ("a.py", 'conn = "Server=h;Password={};"'),
        ("a.py", f'wandb.login(key="{KEY}")'),
        ("a.py", f'wandb.login("{KEY}")'),
        ("a.py", f'run(["wandb", "login", "{KEY}"])'),
        ("a.py", 'WANDB_KEY = "{}"'),
        ("a.py", f'note = "wandb_v1_{KEY}"'),
        ("cell.py", "!python t.py --api_key {}"),
        ("cell.py", f"x = 1\n!wandb login {KEY}"),
        ("cell.py", "%env WANDB_API_KEY={}"),
        ("cell.py", "%env WANDB_API_KEY {}"),
        ("cell.py", "%%bash\nexport WANDB_API_KEY={}"),
        ("cell.py", "%%writefile conf.yaml\napi_keys:\n- {}"),
    ],
)
def test_i10_a_secret_is_masked_whatever_stands_between_it_and_its_name(path: str, text: str) -> None:
    text = text.replace("{{", "{").replace("}}", "}").replace("{}", PLANTED)
    masked = mask_source(text, path)
    assert PLANTED not in masked
    assert KEY not in masked
    assert MASK in masked
    assert mask_source(masked, path) == masked


@pytest.mark.parametrize(
    "text",
    [
        'tokenizer = AutoTokenizer.from_pretrained("gpt2", max_new_tokens=12)',
        'tokenizer.add_special_tokens({"pad_token": "<pad>", "eos_token": "</s>"})',
        'p.add_argument("--hub-token", "--hub_token", help="The token, as --hub_token TOKEN.")',
        'token = os.environ["MY_TOKEN"]\nif token is None:\n    raise SystemExit("no token")',
        'if level == "token":\n    names = ["sequence", "word"]',
        'token = self.here\nif token.kind in ("sign", "word"):\n    pass',
        'rows.sort(key="step")\nsorted(found, key=lambda row: row["name"])',
        'token = open("token.txt").read()',
        'token = ""\nuse_auth_token = None',
        'print(f"token={token} and --hub_token {args.hub_token}")',
        '"""See --hub_token for pushing; use_auth_token=True, token=None, token=token."""',
        'url = f"https://h/x?token={token}"',
        'token_merge_strategy: str = field(default="observed")',
        'def login(self, name="admin"): ...',
        '{"api_key": os.environ["API_KEY"], "model": "gpt2"}',
    ],
)
def test_a_program_without_secrets_stays_as_it_is(text: str) -> None:
    assert mask_source(text, "a.py") == text


def test_settings_without_secrets_stay_as_they_are() -> None:
    text = (
        "tokenizer:\n  name: gpt2\n  pad_token: <pad>\nmax_new_tokens: 12\nsort_key: step\n"
        "token: ${{ secrets.HF_TOKEN }}\nenv:\n- name: HF_HOME\n  value: /cache\ncommit: " + KEY + "\n"
    )
    assert mask_source(text, "a.yaml") == text
    assert mask("run `wandb login` to begin, or wandb login --help") == (
        "run `wandb login` to begin, or wandb login --help"
    )


def test_the_examples_are_kept_word_for_word() -> None:
    examples = [path for path in sorted((ROOT / "examples").rglob("*.*")) if path.suffix in (".py", ".md")]
    assert examples
    for path in examples:
        assert mask_source(path.read_text(), path.name) == path.read_text(), path


def test_i10_of_a_flag_in_the_plural_all_words_go() -> None:
    assert mask_command(["t", "--api-keys", "aaa111", "bbb222", "--lr", "3"]) == [
        "t",
        "--api-keys",
        MASK,
        MASK,
        "--lr",
        "3",
    ]
    assert mask_command(["t", "--token", "aaa111", "train.py"]) == ["t", "--token", MASK, "train.py"]
    assert mask_command(["t", '--cfg={"api_keys":["PPP1x"],"hub_token":{"value":"QQQ"},"lr":1}']) == [
        "t",
        '--cfg={"api_keys":"***","hub_token":"***","lr":1}',
    ]


def test_i10_keys_of_services_are_masked_in_commands() -> None:
    assert mask_command(["t", "--wandb-key", "PPP1x", "a"]) == ["t", "--wandb-key", MASK, "a"]
    assert mask_command(["/bin/wandb", "login", "--relogin", KEY, "a"]) == [
        "/bin/wandb",
        "login",
        "--relogin",
        MASK,
        "a",
    ]
    assert mask_command(["git", "show", KEY]) == ["git", "show", KEY]


def test_i10_a_variable_told_as_name_and_value_is_masked_in_configs() -> None:
    told = {"env": [{"name": "WANDB_API_KEY", "value": "PPP1x"}, {"name": "HF_HOME", "value": "/x"}]}
    assert mask_config(told) == {
        "env": [{"name": "WANDB_API_KEY", "value": MASK}, {"name": "HF_HOME", "value": "/x"}]
    }


def test_whose_token_it_is_counts_before_what_else_is_in_the_name() -> None:
    secret = ["LABEL_STUDIO_API_TOKEN", "CHAT_API_TOKEN", "IMAGE_REGISTRY_TOKEN", "WANDB_KEY", "openai_key"]
    assert [name for name in secret if not looks_secret(name)] == []
    plain = ["hf_pad_token", "api_max_tokens", "TOKEN_TYPE", "hf_key", "hub_token_count", "wandb_key_name"]
    plain += [
        "max_user_tokens",
        "num_api_tokens",
        "max_session_tokens",
        "cross_modal_key",
        "multi_modal_keys",
    ]
    assert [name for name in plain if looks_secret(name)] == []


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        *((name, True) for name in (".env", ".env.local", ".envrc", "id_rsa", "kaggle.json", "a/.netrc")),
        *((name, True) for name in ("token", "token.txt", "hf_token.txt", "wandb_key.txt", "api_key.txt")),
        *(
            (name, True)
            for name in ("password.txt", "passwords.txt", "api_key", "hub_token", "credentials.json")
        ),
        *((name, False) for name in ("tokenizer.json", "special_tokens_map.json", "added_tokens.json")),
        *(
            (name, False)
            for name in ("token.yaml", "auth.yaml", "user_tokens.json", "cookie.json", "pass.json")
        ),
        *((name, False) for name in ("tokens.txt", "vocab.txt", "keys.py", "token.py", "authors.txt")),
        *((name, False) for name in ("config.json", "requirements.txt", "README", "model.safetensors")),
    ],
)
def test_i10_files_that_are_made_to_hold_secrets_are_told_by_their_names(path: str, expected: bool) -> None:
    assert holds_secrets(path) is expected


def test_i10_a_secret_that_begins_as_a_path_does_is_known(tmp_path: Path) -> None:
    there = tmp_path / "credentials"
    there.write_text("")
    assert known_secrets({"AWS_SECRET_ACCESS_KEY": "/wJalrXUtnFEMI/K7MDENG"}) == ("/wJalrXUtnFEMI/K7MDENG",)
    assert known_secrets({"GOOGLE_CREDENTIALS": str(there)}) == ()
    assert known_secrets({"PWD": "/home/of/another/machine", "OLDPWD": "/not/here/either"}) == ()


@pytest.mark.parametrize(
    ("given", "left"),
    [
        (["wandb", "login", "--relogin", "--verify", "kkk111"], ["--relogin", "--verify", MASK]),
        (
            ["/x/wandb", "login", "--host", "https://h", "kkk111", "more"],
            ["--host", "https://h", MASK, "more"],
        ),
        (["wandb", "login"], []),
    ],
)
def test_i10_what_a_login_is_given_is_masked_behind_its_flags(given: list[str], left: list[str]) -> None:
    assert mask_command(given) == [*given[:2], *left]


def test_what_follows_many_keys_ends_at_the_next_flag() -> None:
    given = ["t", "--api-keys", "aaa111", "bbb222", "-o", "out", "data.json"]
    assert mask_command(given) == ["t", "--api-keys", MASK, MASK, "-o", "out", "data.json"]


@pytest.mark.parametrize("end", ["", " kkk1234567890", " $KEY"])
def test_a_login_of_very_many_flags_is_read_in_one_go(end: str) -> None:
    """Each may be read in one way alone: in two, these would take longer than anybody waits."""
    text = "wandb login" + " --relogin" * 200
    assert mask(text + end) == text + (f" {MASK}" if end.endswith("0") else end)


LONG = "hf_T0ub4dorSECRETabcdefgh"


@pytest.mark.parametrize(
    "config",
    [
        {"token": "image", "api_key": "EMPTY", "vision": {"token": "<image>", "hf_token": "none"}},
        {"tokenizer": "hf_tokenizer", "added_tokens_decoder": {"0": {"content": "hf_abcdefghij"}}},
        {
            "use_auth_token": True,
            "hub_token": None,
            "words": ["token", "api_key", "hf_abcdefghijklmnopqrstuvw"],
        },
    ],
)
def test_words_of_a_configuration_are_no_tokens(config: dict[str, object]) -> None:
    data = json.dumps(config).encode()
    assert configs.without_tokens(data) == (data, {})


def test_i10_a_token_is_taken_out_where_it_stands_alone_and_told_where_it_does_not() -> None:
    inside = {"added_tokens_decoder": {"7": {"content": LONG}}, "words": ["a", LONG], "lr": 1}
    data, held = configs.without_tokens(json.dumps({"use_auth_token": LONG, **inside}).encode())
    assert json.loads(data) == inside
    assert set(held) == {LONG}


def test_i10_of_several_tokens_in_a_folder_of_ones_own_none_is_left(tmp_path: Path) -> None:
    """Though they stand under one name."""
    other = LONG.replace("T0ub", "X9yz")
    inside = {"added_tokens_decoder": {"7": {"content": LONG}, "8": {"content": other}}, "words": ["a", LONG]}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"use_auth_token": LONG, "lr": 1, **inside}))
    (tmp_path / "tokenizer.json").write_text(json.dumps({"vocab": {"a": 0, LONG: 1, other: 2}}))
    drop_tokens(tmp_path)
    vocabulary = json.loads((tmp_path / "tokenizer.json").read_text())["vocab"]
    assert list(vocabulary.values()) == [0, 1, 2]
    _, first, second = vocabulary
    assert {first, second} == {"<left out 0>", "<left out 1>"}
    assert json.loads((tmp_path / "tokenizer_config.json").read_text()) == {
        "lr": 1,
        "added_tokens_decoder": {"7": {"content": first}, "8": {"content": second}},
        "words": ["a", first],
    }
