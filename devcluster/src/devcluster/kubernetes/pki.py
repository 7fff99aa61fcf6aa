"""Keys, certificates and kubeconfigs: one authority for the cluster, one of its own for etcd, one identity a component.

Everything is made once and kept with the cluster. Ten years: a development cluster is thrown away, not renewed.
"""

from __future__ import annotations

import base64
import datetime as dt
import ipaddress
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from devcluster.machine.paths import write_private

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

__all__ = ["Authority", "Pair", "service_account_keys", "write_kubeconfig"]

_VALIDITY = dt.timedelta(days=3650)
_CLOCK_SLACK = dt.timedelta(hours=1)


@dataclass(frozen=True)
class Pair:
    """A certificate and its key, as PEM files."""

    certificate: Path
    key: Path


@dataclass(frozen=True)
class Authority:
    """A certificate authority in a folder of its own; issues each named pair once."""

    folder: Path
    name: str

    @property
    def pair(self) -> Pair:
        """The authority's own certificate and key."""
        return Pair(self.folder / "ca.crt", self.folder / "ca.key")

    def create(self) -> None:
        """Make the authority unless it exists."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if self.pair.certificate.exists():
            return
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, self.name)])
        usage = x509.KeyUsage(
            digital_signature=True, key_cert_sign=True, crl_sign=True, content_commitment=False, key_encipherment=False,
            data_encipherment=False, key_agreement=False, encipher_only=False, decipher_only=False,
        )  # fmt: skip
        certificate = (
            _builder(subject, subject, key.public_key())
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .sign(key, hashes.SHA256())
        )
        _write(self.pair, key, certificate)

    def issue(self, name: str, *, common_name: str, organization: str = "", hosts: Sequence[str] = ()) -> Pair:
        """Return the named pair, made now if it does not exist.

        Parameters
        ----------
        name
            The files' name.
        common_name, organization
            Kubernetes reads them as user and group.
        hosts
            Names and addresses a server answers under; a pair with hosts serves as well as calls.
        """
        pair = Pair(self.folder / f"{name}.crt", self.folder / f"{name}.key")
        if pair.certificate.exists():
            return pair
        authority = x509.load_pem_x509_certificate(self.pair.certificate.read_bytes())
        authority_key = serialization.load_pem_private_key(self.pair.key.read_bytes(), password=None)
        if not isinstance(authority_key, ec.EllipticCurvePrivateKey):
            raise TypeError(f"{self.pair.key} is not the key this package writes")
        key = ec.generate_private_key(ec.SECP256R1())
        names = [x509.NameAttribute(NameOID.COMMON_NAME, common_name)]
        if organization:
            names.append(x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization))
        purposes = [ExtendedKeyUsageOID.CLIENT_AUTH, *([ExtendedKeyUsageOID.SERVER_AUTH] if hosts else [])]
        builder = (
            _builder(x509.Name(names), authority.subject, key.public_key())
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()), critical=False
            )
        )
        if hosts:
            builder = builder.add_extension(
                x509.SubjectAlternativeName([_host(each) for each in hosts]), critical=False
            )
        _write(pair, key, builder.sign(authority_key, hashes.SHA256()))
        return pair


def service_account_keys(folder: Path) -> tuple[Path, Path]:
    """Return the private and public key that sign and check service account tokens; made once."""
    private, public = folder / "service-account.key", folder / "service-account.pub"
    if not public.exists():
        key = ec.generate_private_key(ec.SECP256R1())
        write_private(private, _key_pem(key))
        public.write_bytes(
            key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        )
    return private, public


def write_kubeconfig(file: Path, *, cluster: str, server: str, authority: Authority, client: Pair) -> Path:
    """Write a self-contained kubeconfig (JSON, which is YAML) that verifies the server."""
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": cluster,
        "clusters": [
            {
                "name": cluster,
                "cluster": {"server": server, "certificate-authority-data": _base64(authority.pair.certificate)},
            }
        ],
        "users": [
            {
                "name": cluster,
                "user": {
                    "client-certificate-data": _base64(client.certificate),
                    "client-key-data": _base64(client.key),
                },
            }
        ],
        "contexts": [{"name": cluster, "context": {"cluster": cluster, "user": cluster}}],
    }
    write_private(file, json.dumps(config, indent=1))
    return file


def _builder(subject: x509.Name, issuer: x509.Name, public_key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCK_SLACK)
        .not_valid_after(now + _VALIDITY)
    )


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> str:
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    return key.private_bytes(encoding, form, serialization.NoEncryption()).decode()


def _write(pair: Pair, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate) -> None:
    # The certificate last: its presence says that the pair is whole.
    write_private(pair.key, _key_pem(key))
    unfinished = pair.certificate.with_suffix(".new")
    unfinished.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    unfinished.rename(pair.certificate)


def _base64(file: Path) -> str:
    return base64.b64encode(file.read_bytes()).decode()
