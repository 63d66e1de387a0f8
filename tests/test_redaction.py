from __future__ import annotations

import logging

import pytest

from mlopskit.redaction import REDACTED, Redactor, has_url_password, is_secret_key

pytestmark = pytest.mark.core

# Put together here, so that no scanner takes this file for a leak.
TOKENS = [
    "gh" + "p_" + "a1B2" * 9,
    "github_" + "pat_" + "a1B2c3D4" * 5,
    "gl" + "pat-" + "a1B2c3D4e5" * 2,
    "h" + "f_" + "aBcDeFgH" * 4,
    "s" + "k-" + "a1B2c3D4" * 4,
    "xo" + "xb-" + "123456789012-abc",
    "AK" + "IA" + "ABCDEFGH12345678",
    "ey" + "JhbGciOiJIUzI1NiJ9" + ".eyJzdWIiOiIxMjM0In0" + ".c2lnbmF0dXJl",
    "-----BEGIN " + "RSA PRIVATE KEY-----\nMIIB\n-----END RSA PRIVATE KEY-----",
]


@pytest.mark.parametrize(
    "key",
    [
        "password",
        "db_password",
        "apiKey",
        "API_KEY",
        "aws-secret-access-key",
        "hub_token",
        "token",
        "Authorization",
        "connectionString",
        "wandb_api_key",
        "auth.token",
        "client_secret",
    ],
)
def test_a_key_can_name_a_secret(key: str) -> None:
    assert is_secret_key(key)


@pytest.mark.parametrize(
    "key",
    [
        "pad_token",
        "eos_token",
        "max_tokens",
        "tokenizer",
        "num_tokens",
        "author",
        "key",
        "monkey",
        "keyboard",
        "secretary",
        "passes",
        "compass",
        "primary_key",
        "sort_key",
        "token_count",
    ],
)
def test_a_word_of_the_trade_names_no_secret(key: str) -> None:
    assert not is_secret_key(key)


@pytest.mark.parametrize("token", TOKENS, ids=lambda t: t[:6])
def test_a_known_token_is_found_in_the_middle_of_a_text(token: str) -> None:
    clean = Redactor().text(f"before {token} after")

    assert token not in clean
    assert clean.startswith("before ")
    assert clean.endswith(" after")


def test_only_the_password_of_a_url_goes() -> None:
    text = "postgresql://me:" + "pa:ss" + "@db.example:5432/x"

    assert Redactor().text(text) == f"postgresql://me:{REDACTED}@db.example:5432/x"
    assert has_url_password(text)
    assert not has_url_password("http://127.0.0.1:5000/#/a@b")


def test_what_the_configuration_fetched_is_a_secret_wherever_it_turns_up() -> None:
    redactor = Redactor(frozenset({"correct horse", "correct horse battery"}))

    assert redactor.text("x correct horse battery y") == f"x {REDACTED} y"


def test_nested_values_keep_their_shape_and_their_types() -> None:
    given = {
        "lr": 0.1,
        "layers": [64, 64],
        "shape": (1, 2),
        "db": {"password": "hunter2", "port": 5432},
        "secret": None,
        "tokens": ["a", "b"],
    }

    clean = Redactor().value(given)

    assert clean == {**given, "db": {"password": REDACTED, "port": 5432}}
    assert given["db"] == {"password": "hunter2", "port": 5432}, (
        "the caller's own value is untouched"
    )
    assert type(clean["shape"]) is tuple


def test_redaction_is_loud(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        Redactor().value({"api_key": "abc"})

    assert "'api_key'" in caplog.text
    assert "abc" not in caplog.text


def test_what_stands_for_a_secret_stays_and_warns_of_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    given = {
        "hub_token": "<HUB_TOKEN>",
        "password": REDACTED,
        "passwords": {"secret": [REDACTED]},
        "url": f"redis://me:{REDACTED}@host",
    }

    assert Redactor().value(given) == given
    assert caplog.records == []


@pytest.mark.parametrize(
    "secret", ["<Tr0ub4dor>", "<HUB_TOKEN>x", f"{REDACTED}x", "<A>\n", "<>", b"[redacted]x"]
)
def test_what_only_looks_like_a_placeholder_is_a_secret(secret: str | bytes) -> None:
    assert Redactor().value({"hub_token": secret}) == {"hub_token": REDACTED}


def test_a_fetched_secret_is_one_whatever_it_looks_like() -> None:
    redactor = Redactor(frozenset({"<HUB_TOKEN>"}))
    assert redactor.value({"hub_token": "<HUB_TOKEN>"}) == {"hub_token": REDACTED}


def test_text_without_a_secret_is_returned_as_it_is() -> None:
    text = "learning rate 0.1 at https://example.org/path?x=1"

    assert Redactor().text(text) is text
