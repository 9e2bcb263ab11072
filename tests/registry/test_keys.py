"""Keys, signatures, and what they refuse."""

from __future__ import annotations

import hashlib
import json
import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key

from dicom_node.config import NodeConfig
from dicom_node.errors import ConfigError, RegistryError, WrongUseError
from dicom_node.registry import keys
from dicom_node.registry.keys import SIGNATURE, check_signature, sign, trusted_keys

MANIFEST = b'{"files": {}}'


def write_signature(config: NodeConfig, folder: Path, name: str = "site") -> Path:
    folder.mkdir(exist_ok=True)
    (folder / SIGNATURE).write_bytes(sign(MANIFEST, keys.private_folder(config) / f"{name}.key"))
    return folder


def test_a_private_key_is_for_its_owner_alone(config: NodeConfig) -> None:
    told = keys.make_key(config, "site")
    private = config.node.data_dir / "keys" / "site.key"
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    (key,) = trusted_keys(config).values()
    assert told == keys.fingerprint(key)
    assert b"PRIVATE" not in (keys.trusted_folder(config) / "site.pem").read_bytes()
    with pytest.raises(ConfigError, match="there is a key 'site'"):
        keys.make_key(config, "site")


def test_a_signature_holds_for_its_manifest_alone(config: NodeConfig, tmp_path: Path) -> None:
    keys.make_key(config, "site")
    folder = write_signature(config, tmp_path / "release")
    assert check_signature(MANIFEST, folder, trusted_keys(config)) == "site"
    with pytest.raises(RegistryError, match="changed after it was signed"):
        check_signature(MANIFEST + b" ", folder, trusted_keys(config))


def test_a_signature_over_the_bare_manifest_is_none(config: NodeConfig, tmp_path: Path) -> None:
    """Another program that signs whatever it is given cannot be made to sign releases."""
    keys.make_key(config, "site")
    folder = write_signature(config, tmp_path / "release")
    pem = (keys.private_folder(config) / "site.key").read_bytes()
    private = serialization.load_pem_private_key(pem, None)
    document = json.loads((folder / SIGNATURE).read_bytes())
    document["signature"] = private.sign(MANIFEST).hex()  # type: ignore[union-attr, call-arg]
    (folder / SIGNATURE).write_text(json.dumps(document))
    with pytest.raises(RegistryError, match="changed after"):
        check_signature(MANIFEST, folder, trusted_keys(config))


def test_only_trusted_keys_count(config: NodeConfig, tmp_path: Path) -> None:
    keys.make_key(config, "site")
    folder = write_signature(config, tmp_path / "release")
    public = tmp_path / "site.pem"
    public.write_bytes((keys.trusted_folder(config) / "site.pem").read_bytes())
    keys.distrust_key(config, "site")
    with pytest.raises(RegistryError, match="not trusted"):
        check_signature(MANIFEST, folder, trusted_keys(config))
    keys.trust_key(config, "again", public)
    assert check_signature(MANIFEST, folder, trusted_keys(config)) == "again"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"{}",
        b'{"key": "a", "signature": "zz"}',
        b'{"key": "a", "signature": 3}',
        b"\xff",
    ],
)
def test_what_is_no_signature_is_refused(
    config: NodeConfig, tmp_path: Path, content: bytes
) -> None:
    keys.make_key(config, "site")
    (tmp_path / SIGNATURE).write_bytes(content)
    with pytest.raises(RegistryError, match="is no signature"):
        check_signature(MANIFEST, tmp_path, trusted_keys(config))
    (tmp_path / SIGNATURE).unlink()
    with pytest.raises(RegistryError, match="is not signed"):
        check_signature(MANIFEST, tmp_path, trusted_keys(config))


def test_bad_keys_and_names_are_refused(config: NodeConfig, tmp_path: Path) -> None:
    with pytest.raises(WrongUseError, match="no name for a key"):
        keys.make_key(config, "../site")
    with pytest.raises(ConfigError, match="there is no key"):
        sign(MANIFEST, tmp_path / "absent.key")
    other = generate_private_key(SECP256R1())
    pem = other.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (tmp_path / "ec.key").write_bytes(pem)
    with pytest.raises(ConfigError, match="no Ed25519 private key"):
        sign(MANIFEST, tmp_path / "ec.key")
    with pytest.raises(ConfigError, match="no Ed25519 public key"):
        keys.trust_key(config, "ec", tmp_path / "ec.key")
    with pytest.raises(ConfigError, match="no trusted key"):
        keys.distrust_key(config, "nobody")


def test_the_fingerprint_is_that_of_the_raw_key(config: NodeConfig) -> None:
    told = keys.make_key(config, "site")
    key = trusted_keys(config)["site"]
    assert told == hashlib.sha256(key.public_bytes_raw()).hexdigest()
