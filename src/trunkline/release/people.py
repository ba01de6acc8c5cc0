"""Signatures: who approved a change, and which environment says so. Ed25519 keys as OpenSSH writes them."""

import base64
import binascii
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from trunkline.release.risk import Approver, Risk

KEY_MODE: Final = 0o600


class BadKey(Exception):
    """A key or a signature cannot be used; the text is one line."""


def private_key(path: Path, password: str = "") -> Ed25519PrivateKey:
    """The key in an OpenSSH private key file. Raises BadKey, OSError."""
    try:
        key = serialization.load_ssh_private_key(path.read_bytes(), password.encode() or None)
    except (ValueError, TypeError) as error:
        raise BadKey(f"{path} is no OpenSSH private key that opens with this password: {error}") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise BadKey(f"{path} is no ed25519 key: make one with ssh-keygen -t ed25519")
    return key


def public_key(line: str) -> Ed25519PublicKey:
    """The key that a line of an OpenSSH public key file states. Raises BadKey."""
    try:
        key = serialization.load_ssh_public_key(line.encode())
    except (ValueError, TypeError) as error:
        raise BadKey(f"{line[:40]!r} is no OpenSSH public key: {error}") from None
    if not isinstance(key, Ed25519PublicKey):
        raise BadKey(f"{line[:40]!r} is no ed25519 key")
    return key


def public_line(key: Ed25519PrivateKey) -> str:
    """The public half, as a line of OpenSSH."""
    form = serialization.PublicFormat.OpenSSH
    return key.public_key().public_bytes(serialization.Encoding.OpenSSH, form).decode()


def sign(key: Ed25519PrivateKey, text: bytes) -> str:
    """The signature, in base64."""
    return base64.b64encode(key.sign(text)).decode()


def is_signed(line: str, text: bytes, signature: str) -> bool:
    """Whether the holder of the key signed the text. Raises BadKey when the key is none."""
    key = public_key(line)
    try:
        key.verify(base64.b64decode(signature, validate=True), text)
    except (InvalidSignature, binascii.Error, ValueError):
        return False
    return True


def own_key(path: Path) -> Ed25519PrivateKey:
    """This environment's key, made at its first use. Raises BadKey, OSError."""
    if not path.exists():
        made = Ed25519PrivateKey.generate().private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
        )
        fresh = path.with_name(f"{path.name}.new")
        fresh.touch(KEY_MODE)
        fresh.write_bytes(made)
        fresh.replace(path)
    return private_key(path)


def statement(release: str, environment: str, base: str, head: str, name: str) -> bytes:
    """What an approver signs: this change, of this class, here, and no other."""
    return f"trunkline release approve v1\n{release}\n{environment}\n{base}\n{head}\n{name}\n".encode()


def may_approve(risk: Risk, email: str, name: str, authors: tuple[str, ...]) -> Approver:
    """Who may sign under that address for a change of that class. Raises BadKey with the reason why not."""
    address = email.strip().lower()
    found = next((each for each in risk.approver if each.email.lower() == address), None)
    if found is None:
        raise BadKey(f"{email} may approve nothing: risk.toml of the base has no [[approver]] with that address")
    if found.classes and name not in found.classes:
        raise BadKey(f"{email} may not approve changes of class {name}, but {', '.join(found.classes)}")
    if address in authors:
        raise BadKey(f"{email} wrote part of this change: nobody signs off their own")
    return found
