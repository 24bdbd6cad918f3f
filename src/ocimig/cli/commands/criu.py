"""checkpoint and restore: a container to files, and back."""

from dataclasses import replace
from typing import TYPE_CHECKING

from ocimig.cli import context
from ocimig.cli.verbs import Call

if TYPE_CHECKING:
    from ocimig.migrate.checkpoint import CheckpointOptions
    from ocimig.migrate.restore_request import RestoreOptions


def checkpoint(call: Call) -> int:
    """Save a container; without --leave-running it is gone afterwards."""
    from ocimig.migrate import checkpoint as room

    if call.text("export"):
        from ocimig.cli.commands import archive

        return archive.export(call, _checkpoint_options(call, call.text("image-path")))
    wanted = _checkpoint_options(call, call.text("image-path") or "checkpoint")
    room.checkpoint(context.store(call), call.arguments[0], wanted)
    return 0


def _checkpoint_options(call: Call, image_path: str) -> "CheckpointOptions":
    from ocimig.migrate import checkpoint as room

    return room.CheckpointOptions(
        image_path=image_path,
        work_path=call.text("work-path"),
        parent_path=call.text("parent-path"),
        leave_running=call.flag("leave-running"),
        tcp_established=call.flag("tcp-established"),
        tcp_skip_in_flight=call.flag("tcp-skip-in-flight"),
        tcp_close=call.flag("tcp-close"),
        link_remap=call.flag("link-remap"),
        ext_unix_sk=call.flag("ext-unix-sk"),
        shell_job=call.flag("shell-job"),
        lazy_pages=call.flag("lazy-pages"),
        page_server=call.text("page-server"),
        status_fd=call.number("status-fd", -1),
        file_locks=call.flag("file-locks"),
        pre_dump=call.flag("pre-dump"),
        manage_cgroups_mode=call.text("manage-cgroups-mode"),
        empty_ns=tuple(call.many("empty-ns")),
        auto_dedup=call.flag("auto-dedup"),
        network_lock=call.text("network-lock"),
    )


def restore(call: Call) -> int:
    """Bring a container back; in the foreground its exit status is ours."""
    from ocimig.cli.commands import networks
    from ocimig.migrate import restore as room

    if call.text("import"):
        from ocimig.cli.commands import archive

        return archive.bring_back(call, _restore_options(call))
    id = call.arguments[0]
    image = call.text("image-path") or "checkpoint"
    wanted = replace(_restore_options(call), image_path=image, connect=networks.restorer(image, id))
    return room.restore_and_wait(context.store(call), id, wanted)


def _restore_options(call: Call) -> "RestoreOptions":
    from ocimig.migrate import restore as room

    return room.RestoreOptions(
        work_path=call.text("work-path"),
        bundle=call.text("bundle"),
        parent_path=call.text("parent-path"),
        tcp_established=call.flag("tcp-established"),
        tcp_close=call.flag("tcp-close"),
        ext_unix_sk=call.flag("ext-unix-sk"),
        shell_job=call.flag("shell-job"),
        file_locks=call.flag("file-locks"),
        manage_cgroups_mode=call.text("manage-cgroups-mode"),
        detach=call.flag("detach"),
        pid_file=call.text("pid-file"),
        console_socket=call.text("console-socket"),
        no_subreaper=call.flag("no-subreaper"),
        no_pivot=call.flag("no-pivot"),
        empty_ns=tuple(call.many("empty-ns")),
        auto_dedup=call.flag("auto-dedup"),
        lazy_pages=call.flag("lazy-pages"),
        lsm_profile=call.text("lsm-profile"),
        lsm_mount_context=call.text("lsm-mount-context"),
        network_lock=call.text("network-lock"),
        systemd_cgroup=context.systemd_cgroup(call),
    )
