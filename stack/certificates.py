"""Certificates of a secured stack: a CA of its own, and what it signs for servers and clients on loopback."""

import ipaddress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from stack.files import create_private_directory, write_atomically
from stack.server_env import LOOPBACK

VALID_DAYS = 30


@dataclass(frozen=True)
class Certificate:
    """The PEM files of a certificate and its key, and one with both, as Kafka reads its key store."""

    certificate_file: Path
    key_file: Path
    both_file: Path


class Authority:
    """A CA with its files in one directory."""

    def __init__(self, directory: Path, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate) -> None:
        self._directory = directory
        self._key = key
        self._certificate = certificate
        self.certificate_file = directory / "ca.pem"

    @classmethod
    def load_or_create(cls, directory: Path, name: str) -> Self:
        """Return the CA stored in a directory; a new one replaces what is there and expires within a day."""
        create_private_directory(directory)
        key_file, certificate_file = directory / "ca.key", directory / "ca.pem"
        if key_file.exists() and certificate_file.exists():
            certificate = x509.load_pem_x509_certificate(certificate_file.read_bytes())
            key = serialization.load_pem_private_key(key_file.read_bytes(), None)
            if isinstance(key, ec.EllipticCurvePrivateKey) and certificate.not_valid_after_utc > _in_days(1):
                return cls(directory, key, certificate)
        key = ec.generate_private_key(ec.SECP256R1())
        constraints = x509.BasicConstraints(ca=True, path_length=0)
        usage = x509.KeyUsage(
            digital_signature=False,
            content_commitment=False,
            key_encipherment=False,
            data_encipherment=False,
            key_agreement=False,
            key_cert_sign=True,
            crl_sign=True,
            encipher_only=False,
            decipher_only=False,
        )
        builder = _builder(name, name, key).add_extension(constraints, critical=True)
        certificate = builder.add_extension(usage, critical=True).sign(key, hashes.SHA256())
        write_atomically(key_file, _key_text(key))
        write_atomically(certificate_file, _text(certificate))
        return cls(directory, key, certificate)

    def issue(self, name: str) -> Certificate:
        """Sign a certificate for a server on loopback, or a client of this name; return its files."""
        key = ec.generate_private_key(ec.SECP256R1())
        names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address(LOOPBACK))]
        issuer = self._certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value
        signed = (
            _builder(name, str(issuer), key)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        files = Certificate(*(self._directory / f"{name}.{kind}" for kind in ("pem", "key", "both.pem")))
        write_atomically(files.certificate_file, _text(signed))
        write_atomically(files.key_file, _key_text(key))
        write_atomically(files.both_file, _key_text(key) + _text(signed))
        return files


def _builder(name: str, issuer: str, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(_in_days(-1))
        .not_valid_after(_in_days(VALID_DAYS))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _in_days(days: int) -> datetime:
    return datetime.now(UTC) + timedelta(days=days)


def _text(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def _key_text(key: ec.EllipticCurvePrivateKey) -> str:
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    return key.private_bytes(encoding, form, serialization.NoEncryption()).decode()
