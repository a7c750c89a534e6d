"""Recognises text that stands for a value and is none: references and ciphertexts of other tools.

Such text is well-formed and would be stored without a complaint. The program that gets it later
fails with a message of its own, about a wrong password. Only the form is looked at. No text that
comes in is in what is returned.
"""

import re

_IMPORT = "| backpack-client import -"
_AWS_TEXT = "--output text --query"
_PIPED = "| backpack-client put NAME --value-file -"

# What the text begins with or is, what that means, and the command that gives the value.
_FORMS: tuple[tuple[str, str, str], ...] = (
    (r"op://", "is a reference of 1Password", f"op inject --in-file FILE {_IMPORT}"),
    (r"encrypted:", "is a ciphertext of dotenvx", f"dotenvx decrypt --stdout -f FILE {_IMPORT}"),
    (r"ENC\[[A-Z0-9_]+,", "is a ciphertext of SOPS", f"sops decrypt FILE {_IMPORT}"),
    (
        r"vault:v[0-9]+:",
        "is a ciphertext of Vault's or OpenBao's Transit",
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
        "is a ciphertext of Ansible Vault",
        f"ansible-vault view FILE {_PIPED}",
    ),
    (r"-----BEGIN PGP MESSAGE-----", "is a message of PGP", f"gpg --decrypt FILE {_PIPED}"),
    (
        r"-----BEGIN AGE ENCRYPTED FILE-----|age-encryption\.org/v1",
        "is a file of age",
        f"age --decrypt FILE {_PIPED}",
    ),
    (r"\{cipher\}", "is a ciphertext of Spring Cloud Config", f"spring decrypt ... {_PIPED}"),
    (r"(?:ENC|DEC)\([^()]*\)\Z", "is a ciphertext of Jasypt", "decrypt it with Jasypt"),
    (r"!(?:secret|vault|sops|env)\b", "is a reference in a tag of YAML", "write the value itself"),
    (
        r"/(?:run|var/run)/secrets/",
        "is the path of a file with the value",
        "backpack-client put NAME --value-file FILE",
    ),
    (
        r"\{\{.*\}\}\Z|<%.*%>\Z|%\{.*\}\Z|<[^<>]+>\Z",
        "is a placeholder of a template",
        "write the value itself",
    ),
)
_KNOWN = tuple((re.compile(form, re.DOTALL), what, then) for form, what, then in _FORMS)
_PAIRS = {"}": "{", "]": "[", ")": "("}


def recognised(value: str) -> str:
    """Say what a text is that is no value, and what to do.

    Args:
        value: text without quotes around it.

    Returns:
        Such as "is a reference of 1Password, not a value; to get the value: op ..."; empty: it may
        well be a value.
    """
    text = value.strip()
    for form, what, then in _KNOWN:
        if form.match(text):
            return f"{what}, not a value; to get the value: {then}"
    return ""


def unbalanced(value: str) -> bool:
    """Tell whether a brace, a bracket or a quote is opened and not closed, or the other way round.

    Such a value without quotes around it probably goes on in the lines below it.
    """
    open_ones: list[str] = []
    for character in value:
        if character in _PAIRS.values():
            open_ones.append(character)
        elif character in _PAIRS and (not open_ones or open_ones.pop() != _PAIRS[character]):
            return True
    return bool(open_ones) or any(value.count(quote) % 2 for quote in "'\"`")
