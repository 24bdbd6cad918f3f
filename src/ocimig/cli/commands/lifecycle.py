"""create, start, run, kill, delete, pause, resume. Hot; each calls one function of the runtime."""

import os

from ocimig import files
from ocimig.cli import context
from ocimig.errors import OcimigError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ocimig.cli.verbs import Call
    from ocimig.runtime.create import CreateOptions
    from ocimig.runtime.making import Connect

_DEFAULT_SIGNAL = "TERM"


def create(call: "Call") -> int:
    """Make a container that waits for `start`."""
    from ocimig.runtime import create as room

    bundle = _bundle(call)
    if call.flag("explain"):
        lines = room.explain(context.store(call), call.arguments[0], bundle, _options(call))
        print("\n".join(lines))
        return 0
    room.create(
        context.store(call),
        call.arguments[0],
        bundle,
        _options(call),
        connect=_network(call, bundle),
    )
    return 0


def start(call: "Call") -> int:
    """Let a created container's process run."""
    from ocimig.runtime import create as room

    room.start(context.store(call), call.arguments[0])
    return 0


def run(call: "Call") -> int:
    """create and start in one; the exit status of the process, unless --detach."""
    from ocimig.runtime import create as room

    bundle = _bundle(call)
    return room.run(
        context.store(call),
        call.arguments[0],
        bundle,
        _options(call),
        connect=_network(call, bundle),
    )


def kill(call: "Call") -> int:
    """Send a signal, TERM by default."""
    from ocimig.runtime import lifecycle
    from ocimig.runtime.errors import UnknownSignal
    from ocimig.runtime.linux import process

    id, *rest = call.arguments
    text = rest[0] if rest else _DEFAULT_SIGNAL
    try:
        signal = process.signal_number(text)
    except ValueError:
        raise UnknownSignal(signal=text) from None
    lifecycle.kill(context.store(call), id, signal, all=call.flag("all"))
    return 0


def delete(call: "Call") -> int:
    """Every container named, also when one of them cannot be deleted; then its error, at the end."""
    from ocimig import log
    from ocimig.runtime import lifecycle

    store = context.store(call)
    failure: OcimigError | None = None
    for id in call.arguments:
        try:
            lifecycle.delete(store, id, force=call.flag("force"))
        except OcimigError as error:
            if failure is not None:
                log.warning(f"{id}: {error}")
            failure = failure or error
    if failure is not None:
        raise failure
    return 0


def pause(call: "Call") -> int:
    """Freeze every process."""
    from ocimig.runtime import lifecycle

    lifecycle.pause(context.store(call), call.arguments[0])
    return 0


def resume(call: "Call") -> int:
    """Thaw a paused container."""
    from ocimig.runtime import lifecycle

    lifecycle.resume(context.store(call), call.arguments[0])
    return 0


def _bundle(call: "Call") -> str:
    return os.path.abspath(call.text("bundle") or ".")


def _options(call: "Call") -> "CreateOptions":
    from ocimig.runtime.create import CreateOptions

    config = call.text("config")
    return CreateOptions(
        config=os.path.abspath(config) if config else "",
        console_socket=call.text("console-socket"),
        pidfd_socket=call.text("pidfd-socket"),
        pid_file=call.text("pid-file"),
        no_pivot=call.flag("no-pivot"),
        no_new_keyring=call.flag("no-new-keyring"),
        preserve_fds=call.number("preserve-fds"),
        systemd_cgroup=context.systemd_cgroup(call),
        rootless=context.rootless(call),
        detach=call.verb.name == "run" and call.flag("detach"),
        keep=call.verb.name == "run" and call.flag("keep"),
        no_subreaper=call.flag("no-subreaper"),
    )


def _network(call: "Call", bundle: str) -> "Connect | None":
    """What connects the container, when --net or an annotation of config.json asks for a network."""
    path = call.text("config") or os.path.join(bundle, "config.json")
    if not call.given("net") and not _mentions_network(path):
        return None
    from ocimig.cli import main

    main.activate_site()  # pyroute2 is an installed package
    from ocimig.cli.commands import networks

    return networks.connector(call.text("net"), path, call.arguments[0])


def _mentions_network(path: str) -> bool:
    # A look at the text costs nothing; only a config that has the word is read for it.
    try:
        return b'"org.ocimig.network.' in files.read(path)
    except OSError:
        return False  # the runtime reads it too, and says what is wrong
