import pytest

from backpack_client.files import dotenv
from backpack_client.files.references import _FORMS, recognised, unbalanced

REFERENCES = {
    "op://Vault/item/field": "1Password",
    "encrypted:BDqDBibm4wsYqMpCjTQ6BsDHmMadg9K3dAt+Z9HPMfLEIRVz50hmLXPXRuDBXaJi": "dotenvx",
    "ENC[AES256_GCM,data:CwE4O1s=,iv:2k=,aad:o=,tag:w==,type:str]": "SOPS",
    "vault:v1:8SDd3WHDOjf7mq69CyCqYjBXAiQQAVZRkFM13ok481zoCmHnSeDX9vyf7w==": "Transit",
    "vault:secret/data/app#KEY": "reference to Vault",
    ">>vault:secret/data/app#KEY": "reference to Vault",
    "ref+vault://secret/app#/key": "vals",
    "secretref+awssm://app/key": "vals",
    "arn:aws:secretsmanager:eu-central-1:123456789012:secret:app-AbCdEf": "AWS Secrets Manager",
    "arn:aws-us-gov:ssm:us-gov-west-1:123456789012:parameter/app": "Parameter Store",
    "ssm:///app/key": "Parameter Store",
    "sm://project/name": "Google",
    "berglas://bucket/name": "Google",
    "projects/123/secrets/name/versions/latest": "Google",
    "akv://vault/name": "Azure",
    "@Microsoft.KeyVault(SecretUri=https://v.vault.azure.net/secrets/n)": "Azure",
    "https://name.vault.azure.net/secrets/key": "Azure",
    "bws://0000": "Bitwarden",
    "keeper://uid/field/password": "Keeper",
    "infisical://project/dev/KEY": "Infisical",
    "doppler://project/KEY": "Doppler",
    "pass://name": "pass",
    "keyring://service/user": "keyring",
    "$ANSIBLE_VAULT;1.1;AES256": "Ansible",
    "-----BEGIN PGP MESSAGE-----\nX": "PGP",
    "-----BEGIN AGE ENCRYPTED FILE-----\nX": "age",
    "age-encryption.org/v1\n-> X25519": "age",
    "{cipher}AQA": "Spring",
    "ENC(abc=)": "Jasypt",
    "!secret app_key": "YAML",
    "!vault |": "YAML",
    "/run/secrets/key": "path of a file",
    "{{ secrets.key }}": "placeholder",
    "<your-key-here>": "placeholder",
    "<%= ENV['X'] %>": "placeholder",
}

VALUES = [
    "sk-proj-abc",
    "vault",
    "vaultkeeper:abc",
    "encrypted",
    "operator://x",
    "postgres://user:password@host/db",
    "https://hooks.example/services/T000/B000/x",
    "-----BEGIN PRIVATE KEY-----\nX\n-----END PRIVATE KEY-----",
    "AGE-SECRET-KEY-1QQ",
    '{"type": "service_account"}',
    "<half",
    "hvs.CAESI",
    "ENC",
    "a{b}c",
    "pass",
]


@pytest.mark.parametrize("text", REFERENCES)
def test_a_reference_or_ciphertext_is_recognised_with_what_resolves_it(text: str) -> None:
    for shown in (text, f" {text} "):
        said = recognised(shown)
        assert REFERENCES[text] in said
        assert "to get the value: " in said


@pytest.mark.parametrize("text", VALUES)
def test_a_value_is_none(text: str) -> None:
    assert recognised(text) == ""


def test_every_form_has_a_sample() -> None:
    told = {recognised(text) for text in REFERENCES}
    assert len(told) == len(_FORMS)


@pytest.mark.parametrize("text", [t for t in REFERENCES if "\n" not in t and "$" not in t])
@pytest.mark.parametrize("quote", ["'", ""])
def test_import_skips_it_and_names_the_key(text: str, quote: str) -> None:
    if "'" in text or (not quote and "#" in text):
        quote = '"'
    parsed = dotenv.parse(f"A={quote}{text}{quote}\nB=value\n".encode())
    assert [entry.name for entry in parsed.entries] == ["B"]
    (skipped,) = parsed.skipped
    assert (skipped.line, skipped.name) == (1, "A")
    assert REFERENCES[text] in skipped.reason
    assert text not in skipped.reason


@pytest.mark.parametrize("text", ["{", "[", '{"a": 1', "x}", "(a]", "it's", 'a"b', "a`b", "[{]}"])
def test_what_is_not_closed_is_not_imported_without_quotes(text: str) -> None:
    assert unbalanced(text)
    parsed = dotenv.parse(f"A={text}\n".encode())
    assert parsed.entries == ()


@pytest.mark.parametrize("text", ["{}", '{"a": [1, (2)]}', "a", "", '"a"', "''"])
def test_what_is_closed_is_balanced(text: str) -> None:
    assert not unbalanced(text)


def test_the_first_line_of_an_object_is_not_taken_for_the_value() -> None:
    parsed = dotenv.parse(b'G={\n "type": "x"\n}\nB=value\n')
    assert [entry.name for entry in parsed.entries] == ["B"]
    assert (parsed.skipped[0].name, parsed.skipped[0].line) == ("G", 1)
    assert "goes on below" in parsed.skipped[0].reason
