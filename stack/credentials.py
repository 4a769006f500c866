"""The passwords and keys that a stack generates, each in a file that only the user can read."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Self

from stack.files import create_private_directory, load_or_create_secret


@dataclass(frozen=True)
class Credentials:
    """The secrets of one stack: of three PostgreSQL roles, Valkey, Flower, and of request ids, tokens and tickets.

    Without them no other user of the machine can use the servers, although their ports are open to all on loopback.
    """

    postgres_admin: str
    postgres_owner: str
    postgres_application: str
    valkey: str
    flower: str
    request_id_keys: str
    jwt_secret: str
    ticket_keys: str

    @classmethod
    def load_or_create(cls, directory: Path) -> Self:
        """Return the secrets stored in a directory, one file each; the missing ones are created."""
        create_private_directory(directory)
        return cls(**{field.name: load_or_create_secret(directory / field.name) for field in fields(cls)})
