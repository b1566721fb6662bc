"""Paths as people write them: `~` is the home folder.

The shell leaves it alone in `--out=~/cards`, in `SHAPE:~/file` and in YAML, so whoever is given a path calls this first.
"""

from pathlib import Path

from protocol.errors import UserError


def expand_home(path: Path | str, where: str = "") -> Path:
    """The path with `~`, or `~user`, written out.

    Args:
        where: the option or recipe key that named it, for the message; "" where the path says enough.

    Raises:
        UserError: nobody of that name has a home here.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError:
        named = f"{where}: {path}" if where else str(path)
        user = Path(path).parts[0]
        raise UserError(f"{named}: {user} is no user's home here; write the path out") from None
