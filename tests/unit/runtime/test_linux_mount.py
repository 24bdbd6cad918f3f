"""The mount calls and openat2, in a mount namespace of the test's own."""

import errno
import os
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest

from ocimig.runtime.linux import mount, namespaces, openat2, syscalls


def _apart(act: Callable[[], None]) -> None:
    """Run `act` in a child with its own mount namespace; its traceback is our failure."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            namespaces.unshare(namespaces.CLONE_NEWNS)
            mount.mount(None, "/", None, mount.MS_REC | mount.MS_PRIVATE)
            act()
        except BaseException:  # noqa: BLE001 - the child reports whatever it was and ends
            os.write(writer, traceback.format_exc().encode())
            os._exit(1)
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as file:
        said = file.read()
    os.waitpid(pid, 0)
    assert not said, said


@pytest.mark.root
def test_mounts_are_made_changed_and_removed(tmp_path: Path) -> None:
    """mount(2): a tmpfs, a read-only remount, a bind, and the way back."""

    def act() -> None:
        mount.mount("none", tmp_path, "tmpfs", mount.MS_NOSUID, "size=1m,mode=0750")
        assert os.stat(tmp_path).st_mode & 0o777 == 0o750
        Path(tmp_path, "a").mkdir()
        Path(tmp_path, "b").mkdir()
        mount.mount(tmp_path / "a", tmp_path / "b", None, mount.MS_BIND)
        flags = mount.MS_REMOUNT | mount.MS_BIND | mount.MS_RDONLY
        mount.mount(None, tmp_path / "b", None, flags)
        with pytest.raises(OSError, match="Read-only"):
            Path(tmp_path, "b", "x").touch()
        mount.umount2(tmp_path / "b")
        mount.umount2(tmp_path, mount.MNT_DETACH)
        with pytest.raises(OSError, match="Invalid argument") as caught:
            mount.umount2(tmp_path)
        assert caught.value.filename == str(tmp_path)

    _apart(act)


@pytest.mark.root
def test_a_detached_mount_is_configured_and_attached(tmp_path: Path) -> None:
    """fsopen, fsconfig, fsmount, move_mount, open_tree and mount_setattr, by descriptor only."""

    def act() -> None:
        context = mount.fsopen("tmpfs")
        mount.fsconfig(context, mount.FSCONFIG_SET_STRING, "size", "1M")
        mount.fsconfig(context, mount.FSCONFIG_CMD_CREATE)
        tree = mount.fsmount(context, attr_flags=mount.MOUNT_ATTR_NODEV)
        target = os.open(tmp_path, os.O_PATH | os.O_CLOEXEC)
        both = mount.MOVE_MOUNT_F_EMPTY_PATH | mount.MOVE_MOUNT_T_EMPTY_PATH
        mount.move_mount(tree, "", target, "", both)
        Path(tmp_path, "in").mkdir()
        mount.mount("none", tmp_path / "in", "tmpfs")
        copy = mount.open_tree(
            -100, tmp_path, mount.OPEN_TREE_CLONE | mount.OPEN_TREE_CLOEXEC | mount.AT_RECURSIVE
        )
        everywhere = mount.AT_EMPTY_PATH | mount.AT_RECURSIVE
        mount.mount_setattr(copy, "", everywhere, attr_set=mount.MOUNT_ATTR_RDONLY)
        for name in ("x", "in/x"):
            with pytest.raises(OSError, match="Read-only"):
                os.open(name, os.O_CREAT | os.O_WRONLY, dir_fd=copy)
        Path(tmp_path, "in", "x").touch()

    _apart(act)


@pytest.mark.root
def test_namespaces_are_left_and_joined() -> None:
    """unshare makes a new one, setns goes back, for the one a thread may always change."""

    def act() -> None:
        for name in ("uts", "ipc", "network", "cgroup"):
            flag, file = namespaces.NAMESPACES[name]
            before = os.open(f"/proc/self/ns/{file}", os.O_RDONLY | os.O_CLOEXEC)
            namespaces.unshare(flag)
            assert os.stat(f"/proc/self/ns/{file}").st_ino != os.fstat(before).st_ino
            namespaces.setns(before, flag)
            assert os.stat(f"/proc/self/ns/{file}").st_ino == os.fstat(before).st_ino
            with pytest.raises(OSError, match="Invalid argument"):
                namespaces.setns(before, namespaces.CLONE_NEWNS)

    _apart(act)


def test_openat2_stays_below_its_directory(tmp_path: Path) -> None:
    """BENEATH refuses what leads out, IN_ROOT keeps it inside, NO_SYMLINKS stops at a link."""
    Path(tmp_path, "inside").touch()
    Path(tmp_path, "out").symlink_to("/etc/passwd")
    Path(tmp_path, "self").symlink_to("/inside")
    root = os.open(tmp_path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for name in ("../x", "/etc/passwd", "out"):
            with pytest.raises(OSError, match="cross-device") as caught:
                openat2.openat2(root, name, os.O_RDONLY, 0, openat2.RESOLVE_BENEATH)
            assert caught.value.errno == errno.EXDEV
        with pytest.raises(FileNotFoundError):
            openat2.openat2(root, "out", os.O_RDONLY, 0, openat2.RESOLVE_IN_ROOT)
        fd = openat2.openat2(root, "self", os.O_RDONLY, 0, openat2.RESOLVE_IN_ROOT)
        assert os.path.samestat(os.fstat(fd), os.stat(tmp_path / "inside"))
        assert not os.get_inheritable(fd)
        os.close(fd)
        with pytest.raises(OSError, match="symbolic links"):
            openat2.openat2(root, "self", os.O_RDONLY, 0, openat2.RESOLVE_NO_SYMLINKS)
        fd = openat2.openat2(root, "new", os.O_CREAT | os.O_WRONLY, 0o600, openat2.RESOLVE_BENEATH)
        os.close(fd)
        assert Path(tmp_path, "new").exists()
    finally:
        os.close(root)


def test_a_path_with_a_null_byte_is_refused() -> None:
    """The kernel would read only the part in front of it."""
    with pytest.raises(ValueError, match="null byte"):
        syscalls.path("/tmp\0/etc")
