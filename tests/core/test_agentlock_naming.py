"""Which names of embedded values pass by their form, and which wait for the operator."""

import pytest

from backpackd.core.agentlock.content import Credential
from backpackd.core.agentlock.naming import has_form, unaccepted
from dangerous_names import CANDIDATES


def test_there_are_enough_candidates_and_none_twice() -> None:
    assert len(CANDIDATES) >= 250
    assert len(set(CANDIDATES)) == len(CANDIDATES)


@pytest.mark.parametrize("name", CANDIDATES)
def test_no_candidate_passes_without_being_named(name: str) -> None:
    assert unaccepted({name: Credential(b"v")}, ()) == (name,)


@pytest.mark.parametrize(
    "name",
    [
        "OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GITHUB_TOKEN", "GH_TOKEN", "GIT_TOKEN", "HF_TOKEN",
        "NPM_TOKEN", "NODE_AUTH_TOKEN", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN",
        "CLIENT_SECRET", "DB_PASSWORD", "SMTP_PASSWORD", "TWINE_PASSWORD", "CI_CREDENTIALS",
        "VAULT_TOKEN", "SLACK_BOT_TOKEN", "STRIPE_SECRET_KEY", "CARGO_REGISTRY_TOKEN", "A_KEY",
        "PATHOLOGY_KEY", "LDAP_PASSWORD", "PIPEDRIVE_TOKEN", "JAVA_SERVICE_KEY", "X2_TOKEN",
        "GITHUB_KEY", "PUBLIC_API_KEY", "HOSTED_KEY", "SSL_API_KEY", "GOOGLE_CREDENTIALS",
        "PYTHONANYWHERE_API_TOKEN", "BUNDLE_GEMS_TOKEN", "CASINO_KEY", "COSIGN_PASSWORD",
        "UV_PUBLISH_TOKEN", "LISTEN_NOTES_API_KEY", "MYSQL_ROOT_PASSWORD", "TRUST_WALLET_KEY",
    ],
)  # fmt: skip
def test_the_names_of_credentials_pass(name: str) -> None:
    assert has_form(name)


@pytest.mark.parametrize("before", ["", "MY_", "A_B_"])
@pytest.mark.parametrize(
    "name",
    [
        "PUBLIC_KEY", "PUB_KEY", "TRUSTED_KEY", "AUTHORIZED_KEY", "ALLOWED_KEY", "PINNED_KEY",
        "PEER_KEY", "SIGNER_KEY", "GPG_KEY", "PGP_KEY", "HOST_KEY", "ROOT_KEY", "CA_KEY",
        "VERIFY_KEY", "VERIFICATION_KEY", "SSL_KEY", "PGSSL_KEY", "TLS_KEY", "MTLS_KEY",
        "CLIENT_KEY", "CERT_KEY", "CACHE_KEY", "TRUST_KEY", "KNOWN_KEY", "RECIPIENT_KEY",
        "VERIFYING_KEY", "COSIGN_KEY", "MINISIGN_KEY", "APT_KEY", "KEYRING_KEY",
        "ALLOW_EMPTY_PASSWORD", "RANDOM_ROOT_PASSWORD", "CORS_ALLOW_CREDENTIALS", "DISABLE_TOKEN",
        "NO_PASSWORD", "REQUIRE_CLIENT_SECRET",  "APPLICATION_CREDENTIALS", "SHARED_CREDENTIALS",
    ],
)  # fmt: skip
def test_whom_to_trust_where_a_file_lies_and_what_is_switched_is_asked_about(
    name: str, before: str
) -> None:
    assert not has_form(before + name)


@pytest.mark.parametrize(
    "name", ["A_KEY\n", "A_KEY ", "É_KEY", "A_KEY.x", "A-B_KEY", "1_KEY", "_A_KEY", "A_KEYS", ""]
)
def test_a_name_that_only_looks_like_one_does_not_pass(name: str) -> None:
    assert not has_form(name)


def test_what_the_vault_stores_is_not_asked_about() -> None:
    assert unaccepted({"CC": Credential(), "A_KEY": Credential(b"v")}, ()) == ()


def test_what_was_accepted_is_not_asked_about_and_the_rest_is_in_order() -> None:
    credentials = {name: Credential(b"v") for name in ("VAULT_ADDR", "LD", "CC", "A_KEY")}
    assert unaccepted(credentials, ("LD", "GONE")) == ("CC", "VAULT_ADDR")
