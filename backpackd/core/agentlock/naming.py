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

# These have the form. Their values say whom a program trusts, or where it finds a file.
_NO_CREDENTIAL = re.compile(
    r"(.*_)?(PUBLIC|PUB|TRUSTED|AUTHORIZED|ALLOWED|PINNED|PEER|SIGNER|GPG|PGP|HOST|ROOT|CA|VERIFY"
    r"|VERIFICATION|[A-Z]*(SSL|TLS)|CLIENT|CERT|CACHE)_KEY"
    r"|PASSWORD_STORE_.*|(.*_)?(APPLICATION|SHARED)_CREDENTIALS|AGENT_.*"
    # Families that belong to the loader, to interpreters, to tools and to Backpack.
    r"|(BACKPACK|LD|DYLD|GIT_CONFIG|GIT_SSH|GIT_SSL|NPM_CONFIG|PIP)_.*|PYTHON.*",
    re.ASCII,
)


def has_form(name: str) -> bool:
    """Return whether a name has the form of a credential, and is not known to be something else."""
    return _FORM.fullmatch(name) is not None and _NO_CREDENTIAL.fullmatch(name) is None


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
