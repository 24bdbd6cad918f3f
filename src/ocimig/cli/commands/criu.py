"""checkpoint and restore: a container to files, and back."""

from ocimig.cli import context
from ocimig.cli.verbs import Call


def checkpoint(call: Call) -> int:
    """Save a container; without --leave-running it is gone afterwards."""
    from ocimig.migrate import checkpoint as room

    room.checkpoint(
        context.store(call),
        call.arguments[0],
        room.CheckpointOptions(
            image_path=call.text("image-path") or "checkpoint",
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
        ),
    )
    return 0


def restore(call: Call) -> int:
    """Bring a container back; in the foreground its exit status is ours."""
    from ocimig.cli.commands import networks
    from ocimig.migrate import restore as room

    id = call.arguments[0]
    image = call.text("image-path") or "checkpoint"
    return room.restore_and_wait(
        context.store(call),
        id,
        room.RestoreOptions(
            image_path=image,
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
            connect=networks.restorer(image, id),
        ),
    )
