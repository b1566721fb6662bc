"""A lock on an open file that the system frees when its process dies, and what a file system says that has none.

"Somebody else has it" and "this file system has no locks" are two answers: the second is no other driver, and no waiting helps.
"""

import errno
import fcntl

from protocol.errors import UserError

_TAKEN = (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES)


class NoLocks(UserError):
    """A file system without locks."""


def try_lock(descriptor: int, path: object) -> bool:
    """Locks an open file for this process alone, without waiting. False: another process has it.

    Args:
        path: the file's, for the message.

    Raises:
        NoLocks: its file system has none.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as e:
        if e.errno in _TAKEN:
            return False
        code = errno.errorcode.get(e.errno or 0, str(e.errno))
        raise NoLocks(
            f"{path}: its file system gives no lock ({code}: {e.strerror}), so that a second driver could not be kept out; mount "
            "it with locks (NFS: with its lock daemon; Lustre: with -o flock), or use another one"
        ) from None
    return True
