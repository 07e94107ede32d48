"""I10: no secret enters the store. What is masked, and what is left alone."""

from __future__ import annotations

import pytest

from stemmata.capture import MASK, looks_secret, mask, mask_command, mask_config
from stemmata.capturing.background import guarded

HF = "hf_" + "AbCdEfGhIjKlMnOpQrStUvWx"
OPENAI = "sk-proj-" + "aB3dE5gH7jK9mN1pQ3sT"
GITHUB = "ghp_" + "0123456789abcdefghijABCDEFGHIJ012345"
GITHUB_FINE = "github_pat_" + "11ABCDEFG0abcdefghijkl_mnopqrstuvwxyz"
AWS = "AKIA" + "IOSFODNN7EXAMPLE"
JWT = "eyJhbGciOiJIUzI1NiJ9" + ".eyJzdWIiOiJ1c2VyIn0" + ".c2lnbmF0dXJlLWJ5dGVz"
PLANTED = [HF, OPENAI, GITHUB, GITHUB_FINE, AWS, JWT]


@pytest.mark.parametrize("secret", PLANTED)
@pytest.mark.parametrize(
    "around",
    [
        "{}",
        "python train.py --name {} --epochs 3",
        "https://example.org/x?y={}&z=1",
        "it is '{}'.",
        '{{"note": "{}"}}',
        "Authorization: Bearer {}",
        "curl -H 'Authorization: Bearer {}' https://example.org",
        "TOKEN={} python train.py",
        "a,{},b",
    ],
)
def test_i10_known_token_shapes_are_masked_wherever_they_stand(secret: str, around: str) -> None:
    masked = mask(around.format(secret))
    assert secret not in masked
    assert MASK in masked


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("https://user:s3cr/et@example.org/repo.git", "s3cr"),
        ("https://user:pass@word@example.org/repo.git", "pass@word"),
        ("https://glpatlike@example.org/repo.git", "glpatlike"),
        ("postgresql://me:hunter2@db.internal:5432/x", "hunter2"),
        ("--token abc123", "abc123"),
        ("--hub-token=abc123 --lr 3", "abc123"),
        ("--hub_token 'a b c'", "a b c"),
        ('--api-key="a b c"', "a b c"),
        ("PASSWORD=hunter2&more", "hunter2&more"),
        ("DB_PASSWORD: hunter2", "hunter2"),
        ('{"client_secret": "x y z"}', "x y z"),
        ("{'aws_secret_access_key': 'wJalr'}", "wJalr"),
        ("AccountName=me;AccountKey=Zm9vYmFy==;Suffix=x", "Zm9vYmFy"),
        ("https://h/b?sig=Zm9vYmFy%3D&se=2026", "Zm9vYmFy"),
        ("https://h/b?X-Amz-Signature=0123abcd&x=1", "0123abcd"),
        ("--set wandb_api_key=0123456789abcdef0123", "0123456789abcdef0123"),
        ("Bearer short1", "short1"),
        ("Authorization: Basic dXNlcjpwYXNz", "dXNlcjpwYXNz"),
        ("-----BEGIN RSA PRIVATE KEY-----\nMIIE\nabc\n-----END RSA PRIVATE KEY-----", "MIIE"),
        ("-----BEGIN PRIVATE KEY-----\nMIIEcut", "MIIEcut"),
    ],
)
def test_i10_secrets_told_by_what_stands_before_them_are_masked(text: str, secret: str) -> None:
    assert secret not in mask(text)


@pytest.mark.parametrize(
    "text",
    [
        "python train.py --max_tokens 512 --pad_token '<pad>' --tokenizer gpt2",
        "git@github.com:team/project.git",
        "ssh://git@github.com/team/project.git",
        "https://example.org/team/project.git",
        "mean_token_accuracy=0.91 num_tokens=4096 token_type_ids=1",
        "author=Ada key=value monkey=1 --key value",
        "eval_loss: 0.41 at step 500",
        "",
    ],
)
def test_what_is_no_secret_is_left_as_it_is(text: str) -> None:
    assert mask(text) == text


def test_a_masked_text_stays_as_it_is() -> None:
    once = mask(f"--token {HF} https://a:b@c/d PASSWORD=x Bearer y")
    assert mask(once) == once


def test_addresses_keep_host_and_path() -> None:
    assert mask("https://me:pw@example.org/team/x.git") == f"https://{MASK}@example.org/team/x.git"


@pytest.mark.parametrize(
    "key",
    [
        "token",
        "hub_token",
        "HF_TOKEN",
        "push_to_hub_token",
        "access-token",
        "accessTokens",
        "api_key",
        "apiKey",
        "API-KEY",
        "apikey",
        "OPENAI_API_KEY",
        "dbPassword",
        "PGPASSWORD_password",
        "passwd",
        "client_secret",
        "AWS_SECRET_ACCESS_KEY",
        "credential",
        "auth",
        "use_auth",
        "private_key",
        "X-Amz-Signature",
    ],
)
def test_keys_that_look_secret(key: str) -> None:
    assert looks_secret(key)


@pytest.mark.parametrize(
    "key",
    [
        "num_tokens",
        "pad_token",
        "eos_token",
        "bos_token_id",
        "pad_token_id",
        "tokenizer",
        "tokenizer_name",
        "max_tokens",
        "max_new_tokens",
        "token_type_ids",
        "mean_token_accuracy",
        "num_input_tokens_seen",
        "include_num_input_tokens_seen",
        "average_tokens_across_devices",
        "image_token_index",
        "tokens_per_second",
        "author",
        "key",
        "keys_to_ignore",
        "lora_alpha",
        "passes",
        "",
        "_",
    ],
)
def test_keys_that_only_sound_like_it(key: str) -> None:
    assert not looks_secret(key)


def test_i10_a_command_line_is_masked_argument_by_argument() -> None:
    argv = ["train.py", "--hub-token", "a b c", "--lr", "3e-4", "--password=x y", f"--note={HF}", "--token"]
    masked = mask_command(argv)
    assert masked == [
        "train.py",
        "--hub-token",
        MASK,
        "--lr",
        "3e-4",
        f"--password={MASK}",
        f"--note={MASK}",
        "--token",
    ]


def test_a_secret_flag_without_value_leaves_the_next_flag_readable() -> None:
    assert mask_command(["--use-auth", "--epochs", "3"]) == ["--use-auth", "--epochs", "3"]


def test_i10_configs_are_masked_by_key_and_by_value() -> None:
    config = {
        "hub_token": "plainlooking",
        "nested": {"api_key": "k", "lr": 0.1, "list": [HF, 1]},
        "use_auth_token": True,
        "token": None,
        "password": 12345,
        "num_tokens": 7,
        "pad_token": "<pad>",
        "lora.target_modules": ["c_attn"],
        "arguments.hub_token": "x",
        "url": "https://u:p@h/x",
        "command": ["train.py", "--token", "plainlooking", "--epochs", "3"],
    }
    assert mask_config(config) == {
        "hub_token": MASK,
        "nested": {"api_key": MASK, "lr": 0.1, "list": [MASK, 1]},
        "use_auth_token": True,
        "token": None,
        "password": MASK,
        "num_tokens": 7,
        "pad_token": "<pad>",
        "lora.target_modules": ["c_attn"],
        "arguments.hub_token": MASK,
        "url": f"https://{MASK}@h/x",
        "command": ["train.py", "--token", MASK, "--epochs", "3"],
    }


def test_very_long_texts_are_cut_before_they_are_searched() -> None:
    assert len(mask("a" * (3 << 20))) < (1 << 20) + 10


def test_i10_what_a_failure_says_is_masked_too() -> None:
    """A dataset of somebody's own may raise with the address that it could not reach."""

    def fails() -> dict[str, bytes]:
        raise OSError("cannot read https://user:hunter2hunter2@data.example/train?token=hf_" + "AbCdEf" * 6)

    (stored,) = guarded("data", fails).values()
    assert b"cannot read https://" in stored
    assert b"hunter2" not in stored
    assert b"AbCdEf" not in stored


@pytest.mark.parametrize(
    ("word", "masked"),
    [
        ("http://a.com,", "http://a.com,"),
        ("http://a.com:80x,", "http://a.com:80x,"),
        ("alpha=1;", "alpha=1;"),
        ("{a:1,token:b}", "{a:1,token:***"),
        ("a" * 8, "a" * 8),
    ],
)
def test_a_line_of_a_mebibyte_without_blanks_is_masked_in_no_time(word: str, masked: str) -> None:
    """Once it was a quarter of an hour, in which no other thread ran."""
    long = word * ((1 << 20) // len(word))
    found = mask(long)
    assert found == long if masked == word else found.startswith(masked)
    assert len(found) <= len(long)


@pytest.mark.parametrize(
    "text", ["tests: pass=45 fail=2", "pass: yes", "auth: none", "pass=0.85", "pass=9/10"]
)
def test_an_answer_under_a_word_of_two_meanings_is_no_secret(text: str) -> None:
    assert mask(text) == text


def test_a_password_under_such_a_word_is_one() -> None:
    assert mask("pass=hunter2 password=12 pass_key=12 --pass 123456") == (
        f"pass={MASK} password={MASK} pass_key={MASK} --pass {MASK}"
    )
    kept = {"pass": "yes", "pass@1": 0.5, "auth.value": True, "pass_at_k": 5}
    assert mask_config({**kept, "auth": "hunter2", "password": "yes"}) == {
        **kept,
        "auth": MASK,
        "password": MASK,
    }
