"""Signatures by ssh-keygen(1): people have the keys already. Nothing of the cryptography is ours.

The namespace is ocimig-checkpoint: a signature made for git or for a file is none here. Who may sign, and
until when, is a line of an allowed_signers file (ssh-keygen(1), ALLOWED SIGNERS).
"""

import os
import subprocess

from ocimig.files import Fd, write_all
from ocimig.migrate.archive.errors import BadSignature, CannotSign

NAMESPACE = "ocimig-checkpoint"
_PROGRAM = "ssh-keygen"
_SECONDS = 120  # a person may have to type a passphrase or touch a key


def sign(data: bytes, key: str) -> bytes:
    """A signature of `data` by a private key file, or by an agent that has the key of a .pub file."""
    command = [_PROGRAM, "-Y", "sign", "-q", "-n", NAMESPACE, "-f", key]
    try:
        ended = subprocess.run(
            command, input=data, capture_output=True, timeout=_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CannotSign(key=key, reason=_words(str(error).encode())) from None
    if ended.returncode or b"BEGIN SSH SIGNATURE" not in ended.stdout:
        raise CannotSign(key=key, reason=_words(ended.stderr))
    return ended.stdout


def verify(data: bytes, signature: bytes, *, signers: str, signer: str, shown: str) -> None:
    """Whether `signer`, by a key of the file `signers`, signed `data` and may still. Raises BadSignature."""
    with Fd(os.memfd_create("signature", os.MFD_CLOEXEC)) as held:
        write_all(held, signature)
        command = [_PROGRAM, "-Y", "verify", "-n", NAMESPACE, "-f", signers, "-I", signer,
                   "-s", f"/proc/self/fd/{held}"]  # fmt: skip
        try:
            ended = subprocess.run(
                command, input=data, capture_output=True, timeout=_SECONDS, check=False,
                pass_fds=(held,),
            )  # fmt: skip
        except (OSError, subprocess.TimeoutExpired) as error:
            raise BadSignature(path=shown, reason=str(error), signers=signers) from None
    if ended.returncode:
        reason = _words(ended.stderr or ended.stdout)
        raise BadSignature(path=shown, reason=f"by {signer}: {reason}", signers=signers)


def _words(said: bytes) -> str:
    lines = said.decode("utf-8", "replace").strip().splitlines()
    return lines[-1].strip().rstrip(".").lower() if lines else "it said nothing"
