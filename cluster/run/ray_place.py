"""Where Ray is, or may be started, by the environment: an address that a driver can use, a folder short enough for Ray's sockets.

Ray says these things too: later, in a hundred lines, or in half a sentence. Pure; it starts and asks nobody.
"""

import os
from collections.abc import Mapping

from protocol.errors import UserError

SOCKET_BYTES = 107  # of a Unix socket's path on Linux (sun_path, less its final zero)
# Below Ray's folder: the longest name that Ray 2.60 gives a socket, with a process id of seven digits.
SOCKET = "ray/session_2026-11-23_10-00-00_123456_4194304/sockets/plasma_store.10"

# Below TMPDIR: the longest names of vLLM's sockets (a UUID) and of Python's (pymp-12345678/listener-12345678).
OTHER_SOCKET_BYTES = 37


def read_address(environ: Mapping[str, str] = os.environ) -> str | None:
    """The cluster to run on; None for a Ray of our own.

    Raises:
        UserError: it is an address of another kind than a driver connects to.
    """
    address = environ.get("RAY_ADDRESS", "").strip()
    if address in ("", "local"):
        return None
    scheme = address.partition("://")[0].lower() if "://" in address else None
    if scheme in ("http", "https"):
        raise UserError(
            f"RAY_ADDRESS: {address} is the address of a dashboard, which takes jobs (ray job submit) and no drivers; submit the "
            "run as a job, set RAY_ADDRESS to the head node's host:port (most have port 6379), or unset it"
        )
    if scheme is not None:
        raise UserError(
            f"RAY_ADDRESS: {address} is of the kind {scheme}://, which a run's driver cannot use; start it on a node of the "
            "cluster (ray job submit), set RAY_ADDRESS to the head node's host:port, or unset it"
        )
    return address


def socket_folder(environ: Mapping[str, str] = os.environ) -> tuple[str, str]:
    """The folder below which Ray makes its own, and the variable that names it."""
    name = "RAY_TMPDIR" if "RAY_TMPDIR" in environ or "TMPDIR" not in environ else "TMPDIR"
    return environ.get(name, "/tmp"), name  # Ray's own choice


def check_socket_folder(environ: Mapping[str, str] = os.environ) -> None:
    """Raises `UserError` if the sockets of a Ray that is started here would have longer paths than a socket may have."""
    folder, name = socket_folder(environ)
    most = SOCKET_BYTES - len(SOCKET) - 1
    if (length := len(os.fsencode(folder.rstrip("/")))) > most:
        raise UserError(
            f"{name}: {folder} has {length} bytes, and Ray's sockets below it leave it {most} at most; set RAY_TMPDIR to a shorter "
            "folder, as in RAY_TMPDIR=/tmp"
        )


def short_tmpdir(environ: Mapping[str, str] = os.environ) -> str | None:
    """What TMPDIR must be for the processes of a Ray that is started here; None: it is short enough.

    RAY_TMPDIR is Ray's sessions' alone: its dashboard and vLLM's engines have sockets of their own below TMPDIR, and a long one
    would end them after a minute's wait. Call it after `check_socket_folder`.
    """
    folder = environ.get("TMPDIR", "")
    if len(os.fsencode(folder)) <= SOCKET_BYTES - OTHER_SOCKET_BYTES:
        return None
    return socket_folder(environ)[0]
