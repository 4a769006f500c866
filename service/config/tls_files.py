"""Checks the files with certificates and keys that TLS needs, so that a fault is found at the start."""

import ssl
from pathlib import Path

from service.config.parsing import shown_path


def require_readable(path: str) -> None:
    """Raise ValueError if the path is not that of a file that this process can read."""
    if Path(path).is_dir():
        raise ValueError(
            f"is a directory: {shown_path(path)}: name one file in PEM format, which may have several certificates"
        )
    try:
        Path(path).read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a path with a null character
        raise ValueError(f"cannot be read: {getattr(error, 'strerror', None) or error}: {shown_path(path)}") from None


def check_ca(path: str) -> None:
    """Raise ValueError if the file cannot be read, or has no certificate in PEM format."""
    require_readable(path)
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cafile=path)
    except (ssl.SSLError, OSError):
        raise ValueError(f"has no certificate in PEM format: {shown_path(path)}") from None


def check_certificate(path: str, key: str | None, password: str | None) -> None:
    """Raise ValueError if the file cannot be read, or has no certificate of the key in PEM format.

    Without a file of its own the key is in the same file.
    """
    require_readable(path)
    try:  # without a password OpenSSL would ask for one at the terminal
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(path, key, password or "")
    except (ssl.SSLError, OSError):
        raise ValueError(f"has no certificate of the key, or the key's password is wrong: {shown_path(path)}") from None
