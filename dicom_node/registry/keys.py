"""Keys that sign releases (Ed25519, RFC 8032), and the check of a signature.

A folder of trusted keys holds public keys as PEM, ``NAME.pem``. What they sign is a fixed prefix
and the manifest of a release, which lists the SHA-256 of every file.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from dicom_node.config import NodeConfig
from dicom_node.durable import ensure_dir, remove, write_file
from dicom_node.errors import ConfigError, RegistryError, WrongUseError

SIGNATURE = "signature.json"
_PREFIX = b"prostate-dicom-node release manifest 1\n"  # a signature for this, and nothing else
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_SIGN_AGAIN = "sign it with a trusted key: dicom-node models sign FOLDER --key NAME"


def trusted_folder(config: NodeConfig) -> Path:
    """Return the folder of the public keys whose releases run."""
    named = config.model.trusted_keys
    return Path(named) if named else config.node.data_dir / "keys" / "trusted"


def private_folder(config: NodeConfig) -> Path:
    """Return the folder of the private keys that were made here."""
    return config.node.data_dir / "keys"


def make_key(config: NodeConfig, name: str) -> str:
    """Make a pair of keys and trust it; returns the fingerprint of the public one.

    Raises:
        ConfigError: there is a key of that name.
        WrongUseError: the name cannot be one of a file.
    """
    private_path = private_folder(config) / f"{_checked(name)}.key"
    if private_path.exists() or name in trusted_keys(config):
        raise ConfigError(f"there is a key '{name}'", "choose another name")
    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    ensure_dir(private_path.parent)
    write_file(private_path, [private], mode=0o600)
    _write_trusted(config, name, key.public_key())
    return fingerprint(key.public_key())


def trust_key(config: NodeConfig, name: str, file: Path) -> str:
    """Trust a public key of elsewhere; returns its fingerprint.

    Raises:
        ConfigError: there is a key of that name, or the file holds none.
    """
    if _checked(name) in trusted_keys(config):
        raise ConfigError(f"there is a key '{name}'", "choose another name")
    key = _public(file)
    _write_trusted(config, name, key)
    return fingerprint(key)


def distrust_key(config: NodeConfig, name: str) -> None:
    """Trust a key no longer: its releases do not run from the next study on.

    Raises:
        ConfigError: there is none of that name.
    """
    if name not in trusted_keys(config):
        raise ConfigError(f"there is no trusted key '{name}'", "see dicom-node models keys list")
    remove(trusted_folder(config) / f"{name}.pem")


def trusted_keys(config: NodeConfig) -> dict[str, Ed25519PublicKey]:
    """Return the trusted keys by name.

    Raises:
        ConfigError: a file of the folder holds no such key.
    """
    return {path.stem: _public(path) for path in sorted(trusted_folder(config).glob("*.pem"))}


def fingerprint(key: Ed25519PublicKey) -> str:
    """Return SHA-256 of the 32 bytes of a public key."""
    raw = key.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    return hashlib.sha256(raw).hexdigest()


def sign(manifest: bytes, private_key: Path) -> bytes:
    """Return the signature file of a manifest.

    Raises:
        ConfigError: the file holds no Ed25519 private key.
    """
    try:
        key = serialization.load_pem_private_key(private_key.read_bytes(), password=None)
    except FileNotFoundError:
        raise ConfigError(f"there is no key {private_key}", "models keys make NAME") from None
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigError(f"{private_key} is no Ed25519 private key in PEM", "give another file")
    document = {
        "algorithm": "Ed25519",
        "key": fingerprint(key.public_key()),
        "signature": key.sign(_PREFIX + manifest).hex(),
    }
    return (json.dumps(document, indent=1) + "\n").encode()


def check_signature(manifest: bytes, folder: Path, trusted: Mapping[str, Ed25519PublicKey]) -> str:
    """Return the name of the trusted key that signed the manifest of a folder.

    Raises:
        RegistryError: there is no signature, it is not of a trusted key, or not of this manifest.
    """
    try:
        document = json.loads((folder / SIGNATURE).read_bytes())
        signature = bytes.fromhex(document["signature"])
        of_key = str(document["key"])
    except FileNotFoundError:
        raise RegistryError(f"{folder} is not signed", _SIGN_AGAIN) from None
    except (OSError, ValueError, KeyError, TypeError):
        raise RegistryError(f"{folder / SIGNATURE} is no signature", _SIGN_AGAIN) from None
    for name, key in trusted.items():
        if fingerprint(key) != of_key:
            continue
        try:
            key.verify(signature, _PREFIX + manifest)
        except InvalidSignature:
            raise RegistryError(
                f"{folder} was changed after it was signed (the signature does not fit)",
                "get it again from where it was made",
            ) from None
        return name
    raise RegistryError(
        f"{folder} is signed by key {of_key[:12]}, which is not trusted",
        "if you know whose it is: dicom-node models keys trust NAME FILE",
    )


def _public(path: Path) -> Ed25519PublicKey:
    try:
        key = serialization.load_pem_public_key(path.read_bytes())
    except (OSError, ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PublicKey):
        raise ConfigError(f"{path} is no Ed25519 public key in PEM", "give another file")
    return key


def _write_trusted(config: NodeConfig, name: str, key: Ed25519PublicKey) -> None:
    public = key.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    ensure_dir(trusted_folder(config))
    write_file(trusted_folder(config) / f"{name}.pem", [public])


def _checked(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise WrongUseError(f"'{name}' is no name for a key", "letters, digits, . _ - alone")
    return name
