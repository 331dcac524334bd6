"""Who made a bundle: an Ed25519 signature over its manifest, which holds the hash of every other file.

The signature is the 64 bytes of RFC 8032 over the bytes of `manifest.json`, in `manifest.sig` beside it, so
openssl can make and check it, too. It is not part of the bundle's identity.
"""

import hashlib
import os
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key

from models.bundle import SIGNATURE_FILE, Bundle, BundleError, load_bundle
from service.errors import StartupError

_MANIFEST = "manifest.json"
_END = b"-----END PUBLIC KEY-----"
_MAX_MANIFEST_BYTES = 64 * 1024 * 1024


def load_trusted(path: Path, trusted_keys: Path | None) -> Bundle:
    """`load_bundle`; with a file of public keys, BundleError unless one of them signed it.

    The signature is checked before anything else in the bundle is looked at.
    """
    if trusted_keys is None:
        return load_bundle(path)
    signed = _signed_manifest(path.resolve(), _public_keys(trusted_keys))
    bundle = load_bundle(path)
    if bundle.hash != signed:
        raise BundleError(f"{path}/{_MANIFEST} was changed while it was read")
    return bundle


def sign(path: Path, private_key: Path) -> Bundle:
    """Verify a bundle and put a signature beside its manifest, in place of one that is there."""
    key = _private_key(private_key)
    try:
        bundle = load_bundle(path)
        manifest = bundle.file(_MANIFEST).read_bytes()
        if hashlib.sha256(manifest).hexdigest() != bundle.hash:
            raise BundleError(f"{path}/{_MANIFEST} was changed while it was read")
        # Outside the bundle until it is whole: a bundle with a file too many is none.
        partial = bundle.path.with_name(f".{bundle.path.name}.sig")
        partial.write_bytes(key.sign(manifest))
        os.replace(partial, bundle.file(SIGNATURE_FILE))
    except (BundleError, OSError) as error:
        raise StartupError(f"the bundle cannot be signed: {' '.join(str(error).split())}") from None
    return bundle


def _signed_manifest(path: Path, keys: list[Ed25519PublicKey]) -> str:
    """The sha256 of a manifest that one of the keys signed."""
    files = [path / _MANIFEST, path / SIGNATURE_FILE]
    if not files[1].is_file():
        raise BundleError(f"{path} is not signed, and only bundles signed by a trusted key are taken")
    if any(file.is_symlink() for file in files) or files[0].stat().st_size > _MAX_MANIFEST_BYTES:
        raise BundleError(f"{path} does not hold a plain manifest and its signature")
    manifest, signature = (file.read_bytes() for file in files)
    for key in keys:
        try:
            key.verify(signature, manifest)
        except InvalidSignature:
            continue
        return hashlib.sha256(manifest).hexdigest()
    raise BundleError(f"the signature of {path} is not one of a trusted key over this manifest")


def _public_keys(file: Path) -> list[Ed25519PublicKey]:
    """All keys of a PEM file; StartupError if there is none, or one of another kind."""
    try:
        blocks = file.read_bytes().split(_END)
        keys = [load_pem_public_key(block + _END) for block in blocks[:-1]]
    except OSError as error:
        raise StartupError(f"--trusted-keys {file} cannot be read ({error.strerror})") from None
    except (ValueError, UnsupportedAlgorithm):
        raise StartupError(f"--trusted-keys {file} holds something that is no public key") from None
    found = [key for key in keys if isinstance(key, Ed25519PublicKey)]
    if not found or len(found) != len(keys):
        raise StartupError(f"--trusted-keys {file} must hold Ed25519 public keys in PEM, and no others")
    return found


def _private_key(file: Path) -> Ed25519PrivateKey:
    try:
        key = load_pem_private_key(file.read_bytes(), password=None)
    except OSError as error:
        raise StartupError(f"--key {file} cannot be read ({error.strerror})") from None
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise StartupError(f"--key {file} is not an unencrypted private key in PEM") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise StartupError(f"--key {file} is not an Ed25519 key")
    return key
