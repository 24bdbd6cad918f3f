"""Directories that several containers stand on, and that go with the last of them.

    <place>/ocimig-shared  an empty file: nothing is removed where it is not
    <place>/users/<name>   a link to the state directory of each that stands on it
    <place>/…              what they share

Of several that let go at the same time rmdir(2) takes `users` from one alone, and that one removes the rest,
`ocimig-shared` last.
"""

import errno
import os

from ocimig import files

MARK = "ocimig-shared"
USERS = "users"


def make(place: str) -> None:
    """Let a new directory, which is there, be one."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    os.close(os.open(os.path.join(place, MARK), flags, 0o600))


def is_one(place: str) -> bool:
    """Whether it was made here, and not by somebody for something else."""
    return os.path.isfile(os.path.join(place, MARK))


def hold(place: str, name: str, state: str) -> None:
    """`name`, whose state directory is `state`, stands on it from now on."""
    users = os.path.join(place, USERS)
    os.makedirs(users, mode=0o700, exist_ok=True)
    os.symlink(state, os.path.join(users, name))


def users(place: str) -> "dict[str, str]":
    """Who stands on it: state directories by name."""
    home = os.path.join(place, USERS)
    try:
        return {name: os.readlink(os.path.join(home, name)) for name in sorted(os.listdir(home))}
    except FileNotFoundError:
        return {}


def release(place: str, name: str) -> bool:
    """`name` does not stand on it any more; whether it was the last, and all of it is gone."""
    users = os.path.join(place, USERS)
    try:
        os.unlink(os.path.join(users, name))
    except FileNotFoundError:
        pass
    try:
        os.rmdir(users)
    except OSError as error:
        if error.errno not in {errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT}:
            raise
        return False
    remove(place)
    return True


def remove(place: str) -> None:
    """All of it, but only where it is one. Nobody may stand on it."""
    if not is_one(place):
        return
    with os.scandir(place) as entries:
        directories = [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
    for path in directories:
        files.remove_tree(path)
    files.remove_tree(place)
