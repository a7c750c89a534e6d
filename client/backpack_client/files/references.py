"""Recognises text that stands for a value but is not one: other tools' references and ciphertexts.

Such text is well-formed and would be stored without complaint. The program that gets it later
fails with its own message, about a wrong password. Only the form is checked. No input text is in
the result.
"""

import re

_IMPORT = "| backpack-client import -"
_AWS_TEXT = "--output text --query"
_PIPED = "| backpack-client put NAME --value-file -"

# A form, what text of this form is, and the command that gives the value.
_FORMS: tuple[tuple[str, str, str], ...] = (
    (r"op://", "is a reference of 1Password", f"op inject --in-file FILE {_IMPORT}"),
    (r"encrypted:", "is ciphertext of dotenvx", f"dotenvx decrypt --stdout -f FILE {_IMPORT}"),
    (r"ENC\[[A-Z0-9_]+,", "is ciphertext of SOPS", f"sops decrypt FILE {_IMPORT}"),
    (
        r"vault:v[0-9]+:",
        "is ciphertext of Transit in Vault or OpenBao",
        f"vault write -field=plaintext transit/decrypt/KEY ciphertext=... | base64 -d {_PIPED}",
    ),
    (
        r">{0,2}vault:[^\s:]+/",
        "is a reference to Vault or OpenBao",
        f"vault kv get -field=FIELD PATH {_PIPED}",
    ),
    (r"(?:secret)?ref\+[a-z0-9]+://", "is a reference of vals", f"vals eval -f FILE {_IMPORT}"),
    (
        r"arn:aws[a-z-]*:secretsmanager:|(?:aws-?sm|aws-secrets-manager|secretsmanager)://",
        "is a reference to AWS Secrets Manager",
        f"aws secretsmanager get-secret-value --secret-id ID {_AWS_TEXT} SecretString {_PIPED}",
    ),
    (
        r"arn:aws[a-z-]*:ssm:|(?:aws-?)?ssm://",
        "is a reference to the AWS Parameter Store",
        f"aws ssm get-parameter --with-decryption --name NAME {_AWS_TEXT} Parameter.Value {_PIPED}",
    ),
    (
        r"(?:gcp-?)?sm://|berglas://|gcp-?secrets?://|projects/[^/\s]+/secrets/[^\s]+",
        "is a reference to Google Secret Manager",
        f"gcloud secrets versions access latest --secret=NAME {_PIPED}",
    ),
    (
        r"akv://|azkv://|@Microsoft\.KeyVault\(|https://[a-z0-9-]+\.vault\.azure\.net/secrets/",
        "is a reference to Azure Key Vault",
        f"az keyvault secret show --query value --output tsv --id ID {_PIPED}",
    ),
    (r"bws?://", "is a reference of Bitwarden", f"bws secret get ID {_PIPED}"),
    (r"keeper://", "is a reference of Keeper", f"ksm secret notation NOTATION {_PIPED}"),
    (r"infisical://", "is a reference of Infisical", f"infisical export {_IMPORT}"),
    (
        r"doppler://",
        "is a reference of Doppler",
        f"doppler secrets download --no-file --format env {_IMPORT}",
    ),
    (r"pass(?:word-?store)?://", "is a reference of pass", f"pass show NAME {_PIPED}"),
    (
        r"(?:keyring|keychain|secret-tool|libsecret)://",
        "is a reference to a keyring",
        f"keyring get SERVICE USER {_PIPED}",
    ),
    (
        r"\$ANSIBLE_VAULT;",
        "is ciphertext of Ansible Vault",
        f"ansible-vault view FILE {_PIPED}",
    ),
    (r"-----BEGIN PGP MESSAGE-----", "is a PGP message", f"gpg --decrypt FILE {_PIPED}"),
    (
        r"-----BEGIN AGE ENCRYPTED FILE-----|age-encryption\.org/v1",
        "is an age file",
        f"age --decrypt FILE {_PIPED}",
    ),
    (r"\{cipher\}", "is ciphertext of Spring Cloud Config", f"spring decrypt ... {_PIPED}"),
    (r"(?:ENC|DEC)\([^()]*\)\Z", "is ciphertext of Jasypt", "decrypt it with Jasypt"),
    (r"!(?:secret|vault|sops|env)\b", "is a reference in a YAML tag", "write the value itself"),
    (
        r"/(?:run|var/run)/secrets/",
        "is the path of a file that contains the value",
        "backpack-client put NAME --value-file FILE",
    ),
    (
        r"\{\{.*\}\}\Z|<%.*%>\Z|%\{.*\}\Z|<[^<>]+>\Z",
        "is a template's placeholder",
        "write the value itself",
    ),
)
_KNOWN = tuple((re.compile(form, re.DOTALL), what, then) for form, what, then in _FORMS)
_PAIRS = {"}": "{", "]": "[", ")": "("}


def recognised(value: str) -> str:
    """Return what a text is if it is not a value, and what to do.

    Args:
        value: text without quotes around it.

    Returns:
        For example "is a reference of 1Password, not a value; to get the value: op ..."; empty if
        it may be a value.
    """
    text = value.strip()
    for form, what, then in _KNOWN:
        if form.match(text):
            return f"{what}, not a value; to get the value: {then}"
    return ""


def unbalanced(value: str) -> bool:
    """Return whether a brace, bracket or quote is opened and not closed, or closed and not opened.

    If such a value has no quotes around it, it probably continues on the lines below.
    """
    open_ones: list[str] = []
    for character in value:
        if character in _PAIRS.values():
            open_ones.append(character)
        elif character in _PAIRS and (not open_ones or open_ones.pop() != _PAIRS[character]):
            return True
    return bool(open_ones) or any(value.count(quote) % 2 for quote in "'\"`")
