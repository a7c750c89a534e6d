"""What a protection of the running daemon is, as `status` shows it.

It says nothing about how one is found out: adapters judge the process, this is their finding.
"""

from dataclasses import dataclass
from typing import Final

SECRET_MEMORY: Final = "secret-memory"
SCRUBBING: Final = "scrubbing"
UNDUMPABLE: Final = "undumpable"
CORE_DUMPS: Final = "core-dumps"
ATTESTATION: Final = "attestation"


@dataclass(frozen=True, slots=True)
class Protection:
    """One protection and whether it is in force.

    Attributes:
        name: a stable word, one of the constants of this file.
        on: True when it is fully in force; anything less is False.
        detail: how it is done, or what is missing, for people.
    """

    name: str
    on: bool
    detail: str
