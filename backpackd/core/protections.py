"""What a protection of the running daemon is, as `status` shows it.

It says nothing about how one is found out: adapters judge the process, this is their finding.
"""

from dataclasses import dataclass
from typing import Literal

ProtectionName = Literal["secret-memory", "scrubbing", "undumpable", "core-dumps", "attestation"]


@dataclass(frozen=True, slots=True)
class Protection:
    """One protection and whether it is in force.

    Attributes:
        name: a stable word that programs may rely on.
        on: True when it is fully in force; anything less is False.
        detail: how it is done, or what is missing, for people.
    """

    name: ProtectionName
    on: bool
    detail: str
