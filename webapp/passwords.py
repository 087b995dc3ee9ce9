"""Researchers' passwords, kept as scrypt hashes."""

import hashlib
import hmac
import secrets

from sqlalchemy import Connection, delete, exists, insert, select

from webapp.errors import WebappError
from webapp.queries import researcher

SHORTEST = 10


def store(connection: Connection, name: str, password: str, *, at: str) -> None:
    """Keep a researcher's password in place of any earlier one.

    Raises:
        WebappError: if it is too short.
    """
    if len(password) < SHORTEST:
        raise WebappError(f"the password has {len(password)} characters; take {SHORTEST} or more.")
    connection.execute(delete(researcher).where(researcher.c.name == name))
    connection.execute(
        insert(researcher), {"name": name, "password_scrypt": hashed(password), "created_at": at}
    )


def check(connection: Connection, name: str, password: str) -> bool:
    """Whether this researcher has this password; it takes as long when there is no such name."""
    wanted = select(researcher.c.password_scrypt).where(researcher.c.name == name)
    return matches(password, connection.execute(wanted).scalar() or NOBODY)


def is_any(connection: Connection) -> bool:
    """Whether there is a researcher."""
    return bool(connection.execute(select(exists().select_from(researcher))).scalar())


def hashed(password: str) -> str:
    """`salt$hash` in hex, with a fresh salt."""
    salt = secrets.token_bytes(16)
    return f"{salt.hex()}${_scrypt(password, salt).hex()}"


NOBODY = f"{bytes(16).hex()}${bytes(64).hex()}"


def matches(password: str, stored: str) -> bool:
    """Whether this is the password, in a time that does not depend on the answer."""
    salt, expected = (bytes.fromhex(part) for part in stored.split("$"))
    return hmac.compare_digest(_scrypt(password, salt), expected)


def _scrypt(password: str, salt: bytes) -> bytes:
    # Cost as OWASP's cheat sheet of 2023 gives it for 32 MiB.
    return hashlib.scrypt(password.encode(), salt=salt, n=2**15, r=8, p=3, maxmem=2**26)
