"""exec: one more process in a running container. Hot."""

import os

from ocimig.cli import context
from ocimig.cli.verbs import Misuse
from ocimig.errors import OcimigError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ocimig.cli.verbs import Call


class InvalidExec(OcimigError):
    """An option of exec has a value that no process can have."""

    message = "{reason}"


def execute(call: "Call") -> int:
    """Run a command, or the process of a file, in a container."""
    from ocimig.runtime import exec as room

    store = context.store(call)
    id = call.arguments[0]
    return room.execute(
        store,
        id,
        _process(call, store.config(id)) if not call.given("process") else _from_file(call),
        room.ExecOptions(
            console_socket=call.text("console-socket"),
            pidfd_socket=call.text("pidfd-socket"),
            pid_file=call.text("pid-file"),
            detach=call.flag("detach"),
            preserve_fds=call.number("preserve-fds"),
            cgroups=call.many("cgroup"),
            ignore_paused=call.flag("ignore-paused"),
            process_label=call.text("process-label"),
            apparmor=call.text("apparmor"),
        ),
    )


def _process(call: "Call", spec: "dict[str, Any]") -> "dict[str, Any]":
    from ocimig.runtime import exec as room
    from ocimig.runtime import validate

    if len(call.arguments) < 2:
        raise Misuse("process args cannot be empty", verb=call.verb)
    user = None
    if call.given("user"):
        try:
            user = validate.parse_user(call.text("user"))
        except ValueError as error:
            raise InvalidExec(reason=str(error)) from None
    return room.process_of(
        spec,
        call.arguments[1:],
        cwd=call.text("cwd"),
        env=call.many("env"),
        tty=call.flag("tty"),
        user=user,
        gids=[_gid(text) for text in call.many("additional-gids")],
        caps=call.many("cap"),
        no_new_privs=call.flag("no-new-privs"),
    )


def _from_file(call: "Call") -> "dict[str, Any]":
    from ocimig.runtime import validate

    return validate.load_process(os.path.abspath(call.text("process")))


def _gid(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) < 1 << 32):
        raise InvalidExec(reason=f"additional group {text!r} is not a number")
    return int(text)
