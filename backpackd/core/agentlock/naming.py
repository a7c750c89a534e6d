"""Decides which names of embedded values need the operator's acceptance.

A lock comes with foreign code. Its embedded values become variables of the agent and of everything
that the agent starts. Very many variables make a common program run, load or contact something
(`CMAKE_TOOLCHAIN_FILE`, `VAULT_ADDR`), and no list of them is ever complete. So the rule allows
instead of denying: a name with the form of a credential passes, and every other name waits for the
operator, who accepts it once for this lock. Pure; `core.vault.trust` keeps accepted names.
"""

import re
from collections.abc import Collection, Mapping

from backpackd.core.agentlock.content import Credential

# Capitals, as credentials are written: some programs read settings from names in small letters
# (`npm_config_...`). A prefix is required, since `KEY` and `TOKEN` alone are everybody's variables.
# Of plurals only one: `..._KEYS` and `..._TOKENS` mostly list what a program trusts.
_FORM = re.compile(r"[A-Z][A-Z0-9_]*_(KEY|TOKEN|SECRET|PASSWORD|CREDENTIALS)", re.ASCII)

# These have the form, and are no credentials: each pattern with what the value is.
_NO_CREDENTIAL = tuple(
    (re.compile(pattern, re.ASCII), reason)
    for pattern, reason in (
        (
            (
                r"(.*_)?(PUBLIC|PUB|TRUST|TRUSTED|AUTHORIZED|ALLOWED|KNOWN|PINNED|PEER|RECIPIENT|SIGNER"
                r"|GPG|PGP|HOST|ROOT|CA|APT|KEYRING|VERIFY|VERIFYING|VERIFIER|VERIFICATION|COSIGN"
                r"|MINISIGN|SIGSTORE|REKOR|CLIENT|CERT|[A-Z]*(SSL|TLS)|CACHE)_KEY"
            ),
            "whom a program trusts, or where it finds a file",
        ),
        (r"(.*_)?(APPLICATION|SHARED)_CREDENTIALS", "where a program finds a file"),
        (
            (
                r"(.*_)?(ALLOW|ENABLE|DISABLE|REQUIRE|RANDOM|EMPTY|SKIP|NO)_(.*_)?"
                r"(KEY|TOKEN|SECRET|PASSWORD|CREDENTIALS)"
            ),
            "a switch: such as ALLOW_EMPTY_PASSWORD, which opens a server to everybody",
        ),
        (r"PASSWORD_STORE_.*", "settings of pass: whom it encrypts to, what it believes"),
        (r"AGENT_.*", "the personality's variables, and those of build agents"),
        (r"BACKPACK_.*", "Backpack's own variables"),
        # No loader reads such a name today. A lock has no reason for one, so it costs a question.
        (r"(LD|DYLD)_.*|PYTHON_.*", "settings of the loader and the interpreter"),
        (r"GIT_(CONFIG|SSH|SSL)_.*", "settings of git: commands, and whom it trusts"),
        (r"(NPM_CONFIG|PIP)_.*", "settings of npm and pip: where code comes from"),
        (r"BUNDLE_(BUILD|LOCAL|MIRROR)__.*", "settings of Bundler: flags of builds, code, mirrors"),
    )
)


def has_form(name: str) -> bool:
    """Return whether a name has the form of a credential, and is not known to be something else."""
    return _FORM.fullmatch(name) is not None and not any(
        pattern.fullmatch(name) for pattern, _ in _NO_CREDENTIAL
    )


def unaccepted(credentials: Mapping[str, Credential], accepted: Collection[str]) -> tuple[str, ...]:
    """Return the names of embedded values that the operator still has to accept, sorted.

    Args:
        credentials: of a lock.
        accepted: the names that the operator has accepted for this lock.
    """
    return tuple(
        sorted(
            name
            for name, credential in credentials.items()
            if credential.embedded and name not in accepted and not has_form(name)
        )
    )
