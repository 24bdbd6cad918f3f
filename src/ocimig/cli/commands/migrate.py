"""migrate, recover and agent: containers between hosts."""

import os
from typing import TYPE_CHECKING

from ocimig import jsonio, log
from ocimig.cli import context, progress_view
from ocimig.cli.verbs import Call, Misuse
from ocimig.errors import OcimigError

if TYPE_CHECKING:
    from ocimig.migrate.engine import MigrateOptions
    from ocimig.migrate.report import Report
    from ocimig.migrate.rounds import RoundPolicy
    from ocimig.migrate.transport import Target

_IN_DOUBT = 21


def migrate(call: Call) -> int:
    """Move a container, or settle a move that has no known end; then the report."""
    settling = [name for name in ("resume", "abort") if call.flag(name)]
    if len(settling) > 1:
        raise _misuse(call, "--resume and --abort exclude each other")
    if call.flag("assume-destination-dead") and not call.flag("resume"):
        raise _misuse(call, "--assume-destination-dead goes with --resume")
    if settling and (len(call.arguments) > 1 or call.flag("together")):
        raise _misuse(
            call, f"--{settling[0]} knows the host, and what moved with it: only ID is needed"
        )
    if call.flag("together"):
        from ocimig.cli.commands import drain

        return drain.together(call)
    if len(call.arguments) != 2 and not settling:
        raise _misuse(call, '"migrate" requires exactly 2 argument(s): ID [USER@]HOST')
    _check_report(call)
    view = progress_view.view(call.text("progress", "auto"))
    try:
        report = _settle(call, settling[0]) if settling else _move(call, view)
    except OcimigError as error:
        view.close()
        if call.flag("json"):
            print(jsonio.dumps(_failure(call, error), indent=2))
        raise
    except BaseException:
        view.close()
        raise
    view.close()
    _show(report, call)
    if call.text("report"):
        _draw(report, call.text("report"))
    return 0


def recover(call: Call) -> int:
    """Settle what a crash left unfinished; one line each."""
    from ocimig.migrate import recover as room

    found = room.recover(context.store(call), tuple(call.arguments))
    if call.flag("json"):
        print(jsonio.dumps([each.to_dict() for each in found], indent=2))
    else:
        for each in found:
            print(f"{each.subject}: {each.text}" + (f"; {each.fix}" if each.fix else ""))
    return _IN_DOUBT if any(not each.settled for each in found) else 0


def agent(call: Call) -> int:
    """The far side: its standard input and output belong to the conversation."""
    if call.given("attach"):
        from ocimig.migrate import attach

        attach.hand_over(0, 1, context.store(call), call.text("attach"))
        return 0
    from ocimig.migrate import agent_process as room

    room.serve(0, 1, context.root(call))
    return 0


def _move(call: Call, observer: progress_view.View) -> "Report":
    from ocimig.migrate import engine

    return engine.migrate(
        context.store(call),
        call.arguments[0],
        target(call, call.arguments[1]),
        options(call),
        observer,
    )


def _settle(call: Call, how: str) -> "Report":
    from dataclasses import replace

    from ocimig.migrate import recover as room

    store, id = context.store(call), call.arguments[0]
    wanted = replace(options(call), assume_destination_dead=call.flag("assume-destination-dead"))
    if how == "abort":
        return room.abort(store, id, wanted)
    return room.resume(store, id, wanted)


def target(call: Call, text: str) -> "Target":
    """A host, with what the options say of how to reach it."""
    from ocimig.migrate.transport import Target

    return Target.parse(
        text,
        port=call.number("port"),
        identity=call.text("identity"),
        known_hosts=call.text("known-hosts"),
        accept_new=call.flag("accept-new-host-key"),
    )


def options(call: Call) -> "MigrateOptions":
    """What the command line says of one migration."""
    from ocimig.migrate.engine import MigrateOptions

    return MigrateOptions(
        transport=call.text("transport", "paramiko"),
        remote_command=call.text("remote-command"),
        remote_root=call.text("remote-root"),
        dry_run=call.flag("dry-run"),
        tcp_close=call.flag("tcp-close"),
        file_locks=call.flag("file-locks"),
        link_remap=call.flag("link-remap"),
        ext_unix_sk=call.flag("ext-unix-sk"),
        keep_source_files=call.flag("keep-source-files"),
        policy=policy(call),
        tracker="" if call.text("tracker") == "auto" else call.text("tracker"),
        streams=call.number("streams"),
        compress=call.text("compress", "auto"),
        post_copy=call.flag("post-copy"),
        retain=not call.flag("forget-retained"),
    )


def policy(call: Call) -> "RoundPolicy":
    """What the options say about the rounds of memory; the policy's own defaults for the rest."""
    from ocimig.migrate.rounds import RoundPolicy

    usual = RoundPolicy()
    return RoundPolicy(
        max_downtime=call.number("max-downtime") / 1000
        if call.given("max-downtime")
        else usual.max_downtime,
        max_rounds=call.number("max-rounds", usual.max_rounds),
        timeout=call.number("timeout"),
        on_timeout=call.text("on-timeout", usual.on_timeout),
        auto_converge=call.flag("auto-converge"),
        max_bandwidth=call.number("max-bandwidth") << 20,
        post_copy=call.flag("post-copy"),
    )


def _show(report: "Report", call: Call) -> None:
    if call.flag("json"):
        print(jsonio.dumps(report.to_dict(), indent=2))
        return
    for line in report.lines():
        print(line)


def _check_report(call: Call) -> None:
    """Whether --report can be written, while it is not too late to say so."""
    path = call.text("report")
    place = os.path.dirname(path) or "."
    if (path and not (os.path.isdir(place) and os.access(place, os.W_OK))) or os.path.isdir(path):
        raise _misuse(call, f"--report {path}: that file cannot be written")


def _draw(report: "Report", path: str) -> None:
    """--report: the whole file or none. The container has moved, whatever becomes of the file."""
    from ocimig import files
    from ocimig.migrate import report_html

    try:
        files.write_atomic(path, report_html.page(report).encode(), 0o644, sync=False)
    except OSError as error:
        log.warning(f"no report in {path}: {error.strerror}")


def _failure(call: Call, error: OcimigError) -> dict[str, object]:
    """What --json says of a failure: the fields that a report has too, and the error."""
    return {
        "id": call.arguments[0],
        "target": call.arguments[1] if len(call.arguments) > 1 else "",
        "outcome": "failed",
        "error": str(error),
        "hint": error.advice,
        "code": error.code,
    }


def _misuse(call: Call, reason: str) -> Misuse:
    error = Misuse(reason, code=2, verb=call.verb)
    error.outer = call.outer
    return error
