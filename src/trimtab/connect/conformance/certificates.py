"""Certificates for the servers of a check: an authority of its own, made anew each time, and bad ones on purpose."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

KINDS = ("good", "expired", "another name", "unknown authority")


@dataclass(frozen=True)
class Certificates:
    """`client` trusts the authority; `servers` hold one context for each of `KINDS`."""

    client: ssl.SSLContext
    servers: dict[str, ssl.SSLContext]
    authority: str
    """The authority's certificate, a PEM file."""


def make(folder: Path, names: list[str]) -> Certificates:
    """An authority in `folder` that vouches for servers of these names (``*.example.org`` is one)."""
    authority_key = ec.generate_private_key(ec.SECP256R1())
    authority = _signed("Trimtab conformance", authority_key, None, authority_key)
    stranger_key = ec.generate_private_key(ec.SECP256R1())
    stranger = _signed("A stranger", stranger_key, None, stranger_key)
    servers: dict[str, ssl.SSLContext] = {}
    for kind in KINDS:
        key = ec.generate_private_key(ec.SECP256R1())
        issuer, issuer_key = (stranger, stranger_key) if kind == "unknown authority" else (authority, authority_key)
        asked = ["elsewhere.invalid"] if kind == "another name" else names or ["nowhere.invalid"]
        certificate = _signed(asked[0], key, issuer, issuer_key, names=asked, expired=kind == "expired")
        path = folder / f"{kind.replace(' ', '-')}.pem"
        path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM) + _private(key))
        servers[kind] = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        servers[kind].load_cert_chain(path)
    root = folder / "authority.pem"
    root.write_bytes(authority.public_bytes(serialization.Encoding.PEM))
    return Certificates(ssl.create_default_context(cafile=str(root)), servers, str(root))


def _private(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _signed(
    subject: str,
    key: ec.EllipticCurvePrivateKey,
    issuer: x509.Certificate | None,
    issuer_key: ec.EllipticCurvePrivateKey,
    *,
    names: list[str] | None = None,
    expired: bool = False,
) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject[:60])])
    now = datetime.now(UTC)
    begin, end = (now - timedelta(days=30), now - timedelta(days=1)) if expired else (now - timedelta(days=1), None)
    building = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(issuer.subject if issuer else name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(end or now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
    )
    if issuer is None:
        usage = x509.KeyUsage(
            digital_signature=True, key_cert_sign=True, crl_sign=True, content_commitment=False, key_encipherment=False,
            data_encipherment=False, key_agreement=False, encipher_only=False, decipher_only=False,
        )  # fmt: skip
        building = building.add_extension(usage, critical=True)
    if names:
        known = x509.SubjectAlternativeName([x509.DNSName(entry) for entry in names])
        building = building.add_extension(known, critical=False)
    return building.sign(issuer_key, hashes.SHA256())
