"""The front door: reads the command line, calls one function, turns what comes back into an exit code.

Hot: a root runtime is called thousands of times, so nothing is imported here that `state` does not
need. Exit codes are in docs/exit-codes.md.
"""

import os
import sys

from ocimig import log
from ocimig.cli import fast
from ocimig.cli.verbs import Call, InvalidSetting, Misuse
from ocimig.errors import Interrupted, OcimigError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal
    from collections.abc import Callable
    from typing import NoReturn, TextIO
else:
    import _signal  # signal without its enums, which cost 4 ms

INTERRUPTED = 130  # 128 + SIGINT
SIGTERM = 15


class Terminated(BaseException):
    """SIGTERM: unwinds as KeyboardInterrupt does, so that what is half done is undone."""


def main() -> "NoReturn":
    """The program. Leaves without the interpreter's tear-down, which costs a millisecond."""
    _fill_standard_descriptors()
    program = "runc" if os.path.basename(sys.argv[0]) == "runc" else "ocimig"
    code = run(sys.argv[1:], program)
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            code = _flushed(stream, code)
    os._exit(code)


def _fill_standard_descriptors() -> None:
    """A caller may have closed 0, 1 or 2; what is opened next must not become them."""
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free: this one
            os.set_inheritable(fd, True)  # a container expects three of them


def _flushed(stream: "TextIO", code: int) -> int:
    """The code, or 1 when what was printed did not arrive."""
    try:
        stream.flush()
    except BrokenPipeError:  # the reader has seen enough, as head(1) does
        return code or 1
    except OSError as error:
        _complain(f"write {stream.name}: {(error.strerror or str(error)).lower()}")
        return code or 1
    return code


def run(argv: "list[str]", program: str = "ocimig") -> int:
    """One command line, to its exit code."""
    call = None
    try:
        call = fast.parse(argv)
        if call is None:
            activate_site()
            from ocimig.cli import app

            answer = app.parse(argv, program)
            if not isinstance(answer, Call):
                print(answer)
                return 0
            call = answer
        return _perform(call)
    except Misuse as error:
        return _explain(error, program)
    except OcimigError as error:
        return _report(error, call, program)
    except KeyboardInterrupt:
        return _stopped(call, "interrupted", INTERRUPTED)
    except Terminated:
        return _stopped(call, "terminated", 128 + SIGTERM)
    except BrokenPipeError:
        # Nobody reads any more: as `ocimig list | head -1`. Nothing can be said either.
        _drop_output()
        return 1
    except Exception as error:  # noqa: BLE001 - the last line of defence: it says all it knows
        return _crashed(error, call)


def activate_site() -> None:
    """Make installed packages importable where the launcher left `site` out (python -S)."""
    if sys.flags.no_site and "site" not in sys.modules:
        import site

        site.main()


def _perform(call: Call) -> int:
    _configure_log(call.outer)
    # Without this SIGTERM ends Python at once, and a half-made container stays behind.
    previous = _signal.signal(SIGTERM, _terminate)
    try:
        return _function(call.verb.target)(call)
    finally:
        _signal.signal(SIGTERM, previous)


def _terminate(number: int, frame: object) -> None:
    raise Terminated


def _configure_log(outer: "dict[str, object]") -> None:
    path = str(outer.get("log", ""))
    debug = bool(outer.get("debug")) or outer.get("log-level") == "debug"
    try:
        log.log.configure(path=path, format=str(outer.get("log-format", "text")), debug=debug)
    except OSError as error:
        raise InvalidSetting(
            reason=f"open {path}: {(error.strerror or str(error)).lower()}"
        ) from None
    if "criu" in outer:
        log.warning("--criu has no effect: criu is found by $OCIMIG_CRIU, ocimig's prefix, or PATH")


def _function(target: str) -> "Callable[[Call], int]":
    module, _, name = target.partition(":")
    __import__(module)
    function: Callable[[Call], int] = getattr(sys.modules[module], name)
    return function


def _explain(error: Misuse, program: str) -> int:
    """A command line that means nothing: the reason and, as runc does, the page of the verb."""
    verb = error.verb
    if verb is not None and not verb.contract:
        _complain(f"{program} {verb.name}: {error}")
        _complain(f"hint: see {program} {verb.name} --help")
        return error.code
    if error.code != 3:
        counted = verb is not None and " requires " in str(error)
        print("Incorrect Usage.\n" if counted else f"Incorrect Usage: {error}\n")
    if verb is not None:
        from ocimig.cli import manual

        print(manual.of_verb(verb, program))
    try:
        _configure_log(error.outer)
    except InvalidSetting as other:
        log.error(str(other))
    _say(None, str(error))
    return error.code


def _report(error: OcimigError, call: "Call | None", program: str) -> int:
    """An expected error: one record for programs, one sentence and one hint for people."""
    message = _phrase(error, call, program)
    _say(call, message)
    if error.advice:
        _complain(_printable(f"hint: {error.advice}"))
    if call is not None and call.flag("debug"):
        _print_traceback(error)
    if call is None or isinstance(error, Interrupted) or not call.verb.contract:
        return error.code
    return call.verb.failure or error.code


def _phrase(error: OcimigError, call: "Call | None", program: str) -> str:
    """runc says which of its verbs failed where the sentence alone would not tell."""
    name = call.verb.name if call is not None else ""
    if name in ("create", "run"):
        return f"{program} {name} failed: {error}"
    return f"exec failed: {error}" if name == "exec" else str(error)


def _say(call: "Call | None", message: str) -> None:
    """The error, once to the log; and in plain words to a person when the log is a file."""
    if call is not None and not call.verb.contract and not call.given("log"):
        _complain(_printable(f"ocimig {call.verb.name}: {message}"))
        return
    log.error(message)
    if log.log.fd != 2:
        _complain(_printable(message))


def _printable(message: str) -> str:
    """What a name out of an archive or a store could do to the terminal is escaped; lines that are not the
    first are set in, so that none of them passes for a message or a hint of ours."""
    if message.isprintable():
        return message
    from ocimig.cli.shown import shown

    return "\n  ".join(map(shown, message.split("\n")))


def _complain(line: str) -> None:
    try:
        os.write(2, f"{line}\n".encode("utf-8", "backslashreplace"))
    except OSError:
        pass  # the terminal is gone; the exit code still tells


def _stopped(call: "Call | None", word: str, code: int) -> int:
    if call is not None:
        _say(call, word)
    return code


def _crashed(error: Exception, call: "Call | None") -> int:
    """Something nobody expected: the record as for any error, and always the traceback."""
    _say(call, f"{type(error).__name__}: {error}")
    _print_traceback(error)
    return (call.verb.failure or 1) if call is not None else 1


def _print_traceback(error: BaseException) -> None:
    import traceback

    _complain("".join(traceback.format_exception(error)).rstrip())


def _drop_output() -> None:
    """Point standard output nowhere, so that the flush at the end does not fail once more."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.close(null)
