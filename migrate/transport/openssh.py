"""SSH by the OpenSSH program, for whoever needs ProxyJump, certificates, FIDO keys or their own config.

One master connection carries the channels; a `separate` channel has a connection of its own.
"""

import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from shlex import join

from ocimig import files
from ocimig.errors import OcimigError
from ocimig.migrate.closing import Closing
from ocimig.migrate.errors import (
    HostKeyRevoked,
    HostUnreachable,
    LinkLost,
    NotLetIn,
    TransportMissing,
)
from ocimig.migrate.transport import Target, known_hosts
from ocimig.migrate.transport.known_hosts import HostKey
from ocimig.migrate.transport.process import ProcessChannel

# No terminal, agent, X11 or escape character; never a question; dead after 15 silent seconds.
OPTIONS = (
    *("-T", "-a", "-x", "-e", "none"),
    *("-o", "BatchMode=yes"),
    *("-o", "ClearAllForwardings=yes"),
    *("-o", "PermitLocalCommand=no"),
    *("-o", "RemoteCommand=none"),
    *("-o", "UpdateHostKeys=no"),
    *("-o", "ServerAliveInterval=5"),
    *("-o", "ServerAliveCountMax=3"),
    *("-o", "Compression=no"),
    *("-o", "Ciphers=^aes128-gcm@openssh.com"),
    *("-o", "IPQoS=none"),  # or the frames of a commit travel as background traffic
)
_LOGIN_TIME = 20.0  # seconds that logging in may take once the host answers


def connect(target: Target) -> "OpensshConnection":
    """Reach the host, check its key, show ours."""
    program = os.environ.get("OCIMIG_SSH") or shutil.which("ssh")
    if not program or shutil.which(program) is None:
        raise TransportMissing(
            transport="openssh", what=f"the program {program or 'ssh'}", package="openssh-client"
        )
    connection = OpensshConnection(target, program)
    try:
        connection.begin()
    except BaseException:
        connection.close()
        raise
    return connection


class OpensshConnection(Closing):
    """A master process, and a process a channel."""

    def __init__(self, target: Target, program: str) -> None:
        self.host = target.host
        self._target = target
        self._program = program
        # short, because a control path may have 104 bytes; private, because it is a way in
        self._directory = tempfile.mkdtemp(prefix="ocimig-")
        self._socket = os.path.join(self._directory, "s")
        self._count = 0
        self._master_log = ""
        self._resolved = _resolve(target, program)
        self._options = _options(target, self._resolved)
        self._master: ProcessChannel | None = None
        self._channels: list[OpensshChannel] = []

    def begin(self) -> None:
        """Start the master and wait until it is let in."""
        log = self._master_log = self._log()
        # -v, into a file: the one way to learn the fingerprint of a key that was not accepted
        options = ["-v", "-E", log, "-M", "-S", self._socket, "-o", "ControlPersist=no", "-N"]
        argv = [self._program, *self._options, *options, "--", self.host]
        self._master = ProcessChannel(argv, host=self.host, environment=_environment())
        end = time.monotonic() + self._target.connect_timeout + _LOGIN_TIME
        while not os.path.exists(self._socket):
            try:
                self._master.wait(0.01)
            except TimeoutError:
                if time.monotonic() < end:
                    continue
            raise self._explained(log, self._master)

    def open(self, argv: Sequence[str], *, separate: bool = False) -> "OpensshChannel":
        """See Connection."""
        log = self._log()
        path = "none" if separate else self._socket
        options = ["-E", log, "-o", "ControlMaster=no", "-S", path]
        command = [self._program, *self._options, *options, "--", self.host, join(argv)]
        broken = str if separate else self._broken
        channel = OpensshChannel(command, host=self.host, log=log, broken=broken)
        self._channels.append(channel)
        return channel

    def close(self) -> None:
        """See Connection."""
        while self._channels:
            self._channels.pop().close()
        if self._master is not None:
            self._master.end()
            self._master.close()
            self._master = None
        files.remove_tree(self._directory)

    def _broken(self) -> str:
        """Why the master is gone; empty while it lives. Its channels learn of it a moment earlier."""
        if self._master is None:
            return "it was closed here"
        try:
            self._master.wait(0.5)
        except TimeoutError:
            return ""
        return _own_words(_read_log(self._master_log)) or "ssh ended"

    def _log(self) -> str:
        self._count += 1
        return os.path.join(self._directory, f"log{self._count}")

    def _explained(self, log: str, master: ProcessChannel) -> OcimigError:
        text = _read_log(log)
        if not text:
            text = master.stderr_tail()
        return explain(text, self._target, self._resolved)


class OpensshChannel(ProcessChannel):
    """An `ssh` process. Its own words are in a log, so that stderr is the far program's alone."""

    def __init__(
        self, argv: Sequence[str], *, host: str, log: str, broken: Callable[[], str]
    ) -> None:
        self._log = log
        self._broken = broken
        super().__init__(argv, host=host, environment=_environment())

    def wait(self, timeout: float | None = None) -> int:
        """See Channel. ssh's own 255 is told from the program's by what ssh logged."""
        status = super().wait(timeout)
        if status == 255:
            said = _own_words(_read_log(self._log)) or self._broken()
            if said:
                raise LinkLost(host=self.host, reason=said)
        return status

    def read(self, size: int, timeout: float | None = None) -> bytes:
        """See Channel. The end of a broken connection is not the end of the program's output."""
        data = super().read(size, timeout)
        if not data:
            try:
                self.wait(0.2)
            except TimeoutError:  # it closed its output and goes on
                pass
        return data

    def stderr_tail(self) -> str:
        """See Channel."""
        said = _own_words(_read_log(self._log))
        return "\n".join(part for part in (super().stderr_tail(), said) if part)


def _resolve(target: Target, program: str) -> dict[str, str]:
    """What ssh makes of its configuration for this host (ssh -G connects to nothing)."""
    argv = [program, "-G"]
    argv += ["-F", target.config] if target.config else []
    argv += ["-p", str(target.port)] if target.port else []
    argv += ["-l", target.user] if target.user else []
    answer = subprocess.run(
        [*argv, "--", target.host], capture_output=True, text=True, check=False, timeout=30
    )
    found: dict[str, str] = {}
    for line in answer.stdout.splitlines():
        name, _, value = line.partition(" ")
        found.setdefault(name, value)
    return found


def _options(target: Target, resolved: dict[str, str]) -> tuple[str, ...]:
    """The options of every ssh started here. The first value of an option wins, so ours do."""
    options = [*OPTIONS, "-o", f"ConnectTimeout={max(1, round(target.connect_timeout))}"]
    if target.config:
        options += ["-F", target.config]
    if target.port:
        options += ["-p", str(target.port)]
    if target.user:
        options += ["-l", target.user]
    if target.identity:
        options += ["-i", target.identity, "-o", "IdentitiesOnly=yes"]
    if target.known_hosts:
        options += ["-o", f"UserKnownHostsFile={target.known_hosts}"]
        options += ["-o", "GlobalKnownHostsFile=none"]
    accepts_new = resolved.get("stricthostkeychecking") == "accept-new"
    strictness = "accept-new" if target.accept_new or accepts_new else "yes"  # and never "no"
    return (*options, "-o", f"StrictHostKeyChecking={strictness}")


def _environment() -> dict[str, str]:
    """Ours, with messages in the language that explain() reads."""
    return {**os.environ, "LC_ALL": "C"}


def _read_log(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return ""


def _own_words(log: str) -> str:
    """The last line ssh wrote that is neither debugging nor a farewell."""
    lines = [line.strip() for line in log.splitlines()]
    dull = ("debug", "Authenticated to", "Transferred:", "Bytes per second", "Exit status")
    quiet = [line for line in lines if line and not line.startswith(dull)]
    return quiet[-1] if quiet else ""


_SERVER_KEY = re.compile(r"Server host key: (\S+) (SHA256:\S+)")
_CONTINUE = re.compile(r"Authentications that can continue: (\S+)")
_UNREACHABLE = re.compile(r"^ssh: (.*)", re.MULTILINE)
_TRIED = re.compile(r"^debug1: Offering public key: (\S+)", re.MULTILINE)


def explain(log: str, target: Target, resolved: dict[str, str]) -> OcimigError:
    """Turn what `ssh -v` wrote before it gave up into the one error that says why."""
    port = target.port or int(resolved.get("port", "22"))
    if "Host key verification failed" in log:
        return _host_key_error(log, target, resolved, port)
    unreachable = _UNREACHABLE.findall(log)
    if unreachable:
        reason = unreachable[-1].rpartition(": ")[2].strip().lower()
        return HostUnreachable(host=target.host, port=port, reason=reason)
    if "Permission denied" in log or "Too many authentication failures" in log:
        user = target.user or resolved.get("user", "")
        return NotLetIn(user=user, host=target.host, port=port, reason=_refusal(log))
    reason = _own_words(log) or "ssh gave no reason"
    return HostUnreachable(host=target.host, port=port, reason=reason)


def _refusal(log: str) -> str:
    if "Too many authentication failures" in log:
        return "too many keys were tried; name one with -i"
    allowed = _CONTINUE.findall(log)
    if allowed and "publickey" not in allowed[-1].split(","):
        methods = allowed[-1].replace(",", ", ")
        return f"it accepts only {methods}, and ocimig shows keys only"
    tried = _TRIED.findall(log)
    if tried:
        return "; ".join(f"{name} refused" for name in tried)
    return "no key was found to show"


def _host_key_error(log: str, target: Target, resolved: dict[str, str], port: int) -> OcimigError:
    name = resolved.get("hostkeyalias") or resolved.get("hostname", target.host)
    if name == "none":
        name = resolved.get("hostname", target.host)
    paths = [target.known_hosts] if target.known_hosts else _known_hosts_files(resolved)
    known = known_hosts.lookup(paths, name, port)
    shown = known_hosts.written_name(name, port)
    found = _SERVER_KEY.search(log)
    kind, print_ = (
        found.groups() if found else ("a key", "of which ssh does not show the fingerprint")
    )
    if "is marked as revoked" in log or "REVOKED" in log:
        file = next((key.file for key in known if key.marker == "@revoked"), paths[0])
        return HostKeyRevoked(host=shown, file=file, type=kind, fingerprint=print_)
    offered = HostKey(kind, b"", shown=print_)
    if [key for key in known if not key.marker]:
        return known_hosts.changed(
            [key for key in known if not key.marker], offered, host=name, port=port
        )
    return known_hosts.unknown(offered, host=name, port=port, file=paths[0])


def _known_hosts_files(resolved: dict[str, str]) -> list[str]:
    written = resolved.get("userknownhostsfile", "").split()
    written += resolved.get("globalknownhostsfile", "").split()
    return written or list(known_hosts.DEFAULT_FILES)
