"""What a name may be, and the grammar of references."""

from __future__ import annotations

import string
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stemmata.errors import InvalidName, InvalidReference
from stemmata.names import RESERVED, clean_name, exact_slug, name_key, parse_reference, slug


@pytest.mark.parametrize(
    "name",
    [
        "sentiment",
        "team/sentiment",
        "run-1/epoch-3",
        "v1.0+cu12",
        "abc",
        "größe",
        "情感",
        "a=b",
        "x/best",
        "step-500",
        "dead beef".replace(" ", "_"),
    ],
)
def test_ordinary_names_stay_as_they_are(name: str) -> None:
    assert clean_name(name) == name


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("", "empty"),
        ("a" * 256, "256 bytes"),
        ("ü" * 128, "256 bytes"),
        ("a b", "contains"),
        ("a\nb", "contains"),
        ("a\x00b", "contains"),
        ("a\u202eb", "contains"),
        ("a\u2028b", "contains"),
        ("a\u0378b", "contains"),
        ("\ud800", "Unicode"),
        ("a@b", "references"),
        ("a~1", "references"),
        ("a{1}", "references"),
        ("a\\b", "references"),
        ("id:abcd", "references"),
        ("/a", "part"),
        ("a/", "part"),
        ("a//b", "part"),
        ("a/./b", "part"),
        ("../a", "part"),
        ("a..b", "'..'"),
        ("-a", "begins"),
        ("abcd", "id"),
        ("DEADBEEF", "id"),
        ("f" * 64, "id"),
        ("latest", "selector"),
        ("Best", "selector"),
        ("LATEST", "selector"),
        ("run/latest", "selector"),
    ],
)
def test_each_bad_name_is_refused_for_its_own_reason(name: str, reason: str) -> None:
    with pytest.raises(InvalidName) as caught:
        clean_name(name)
    assert reason in str(caught.value.data["reason"])


def test_names_collide_when_case_or_composition_is_all_that_differs() -> None:
    assert name_key("Größe") == name_key("GRÖSSE") == name_key("gro\u0308sse")
    assert clean_name("gro\u0308ße") == "größe"
    assert name_key("production") != name_key("producti0n")


@given(st.text(max_size=60))
def test_a_slug_is_always_a_clean_name(text: str) -> None:
    name = slug(text)
    assert clean_name(name) == name


@given(st.text(alphabet="a*? -/\u0301\ud800~0", max_size=150), st.text(alphabet="a*? -/~0", max_size=150))
def test_an_exact_slug_tells_every_two_texts_apart(one: str, other: str) -> None:
    assert (exact_slug(one) == exact_slug(other)) == (
        unicodedata.normalize("NFC", one) == unicodedata.normalize("NFC", other)
    )
    assert exact_slug(exact_slug(one)) == exact_slug(one)
    assert exact_slug(slug(one)) == slug(one)


@given(st.text(alphabet="./-latesbLATSB@~ \u0301\u017fdeadbeef012", max_size=150))
def test_a_slug_of_nearly_bad_text_is_always_a_clean_name(text: str) -> None:
    assert clean_name(slug(text)) == slug(text)


@given(st.text(alphabet=st.characters(codec="utf-8"), max_size=20))
def test_a_clean_name_is_stable_and_its_key_too(text: str) -> None:
    try:
        name = clean_name(text)
    except InvalidName:
        return
    assert clean_name(name) == name
    assert name_key(name_key(name)) == name_key(name)
    assert name_key(name) not in RESERVED


@pytest.mark.parametrize(
    ("text", "model", "prefix", "selector", "ancestors", "previous", "when"),
    [
        ("sentiment", "sentiment", None, None, 0, None, None),
        ("team/sentiment@production", "team/sentiment", None, "production", 0, None, None),
        ("m@run/epoch-3~2", "m", None, "run/epoch-3", 2, None, None),
        ("m@latest~", "m", None, "latest", 1, None, None),
        ("m@latest~~~2", "m", None, "latest", 4, None, None),
        ("m~1", "m", None, None, 1, None, None),
        ("m@production@{1}", "m", None, "production", 0, 1, None),
        ("m@production@{3 weeks ago}", "m", None, "production", 0, None, "3 weeks ago"),
        ("m@production@{2026-03-01T12:00}~1", "m", None, "production", 1, None, "2026-03-01T12:00"),
        ("m@{yesterday}", "m", None, None, 0, None, "yesterday"),
        ("m@{2026}", "m", None, None, 0, None, "2026"),
        ("m@Run/Latest", "m", None, "Run/Latest", 0, None, None),
        ("m@run/best", "m", None, "run/best", 0, None, None),
        ("m@3f9a", "m", None, "3f9a", 0, None, None),
        ("3F9A", "3F9A", "3f9a", None, 0, None, None),
        ("id:3F9A~1", None, "3f9a", None, 1, None, None),
        ("3f9", "3f9", None, None, 0, None, None),
    ],
)
def test_the_grammar(
    text: str,
    model: str | None,
    prefix: str | None,
    selector: str | None,
    ancestors: int,
    previous: int | None,
    when: str | None,
) -> None:
    parsed = parse_reference(text)
    assert (parsed.model, parsed.id_prefix, parsed.selector) == (model, prefix, selector)
    assert (parsed.ancestors, parsed.previous, parsed.when) == (ancestors, previous, when)
    assert parsed.text == text


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "empty"),
        (" m", "blanks"),
        ("m@", "nothing follows"),
        ("@production", "empty"),
        ("m@a@b", "more than one '@'"),
        ("m@{}", "@{} is empty"),
        ("m@{ }", "@{} is empty"),
        ("m@{1}@{2}", "more than one @{...}"),
        ("m@{1", "neither"),
        ("m~1x", "neither"),
        ("m~-1", "neither"),
        ("m~99999999", "further"),
        ("m~1000000~1", "further"),
        ("id:xyz", "hex"),
        ("id:abc", "hex"),
        ("id:" + "a" * 65, "hex"),
        ("m@a b", "contains"),
        ("m@../x", "part"),
        ("m@run/../latest", "part"),
        ("m" * 2001, "too long"),
    ],
)
def test_each_bad_reference_is_refused_for_its_own_reason(text: str, reason: str) -> None:
    with pytest.raises(InvalidReference) as caught:
        parse_reference(text)
    assert reason in str(caught.value.data["reason"])


_PIECES = st.sampled_from(
    ["m", "@", "~", "{", "}", "@{", "id:", "12", "abcd", "/", "latest", "best", "..", " ", "é", "\ud800"]
)


@given(st.one_of(st.text(max_size=40), st.lists(_PIECES, max_size=12).map("".join)))
def test_parsing_raises_nothing_but_invalid_reference(text: str) -> None:
    try:
        parsed = parse_reference(text)
    except InvalidReference:
        return
    assert parsed.model is not None or parsed.id_prefix is not None


@given(st.text(alphabet=string.ascii_letters + string.digits + "-_./+=", min_size=1, max_size=20))
def test_every_clean_name_can_be_referred_to(text: str) -> None:
    try:
        name = clean_name(text)
    except InvalidName:
        return
    assert parse_reference(f"m@{name}").selector == name
    assert parse_reference(f"{name}@production").model == name
