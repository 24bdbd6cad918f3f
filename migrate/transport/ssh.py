"""SSH inside this process, by paramiko. Never asks for a password and never trusts a key unseen."""

import os
import pwd
from collections.abc import Iterator, Sequence
from shlex import join

from ocimig import log
from ocimig.migrate.closing import Closing
from ocimig.migrate.errors import (
    LinkLost,
    NeedsOpenssh,
    TransportMissing,
)
from ocimig.migrate.transport import Target, known_hosts
from ocimig.migrate.transport.dial import (
    Settings,
    dial,
    key_trouble,
    not_let_in,
    public_half,
    unreachable,
)
from ocimig.migrate.transport.known_hosts import HostKey

try:
    import paramiko
except ImportError as error:
    raise TransportMissing(
        transport="paramiko", what="the Python package paramiko", package="python3-paramiko"
    ) from error

from ocimig.migrate.transport.ssh_channel import Packetizer, SshChannel

# AES-GCM first: it costs least, and only its packets are made by `gcm` (paramiko's last wish is CBC: dropped)
CIPHERS = (
    "aes128-gcm@openssh.com",
    "aes256-gcm@openssh.com",
    "aes128-ctr",
    "aes192-ctr",
    "aes256-ctr",
)
KEEPALIVE = 5  # seconds between signs of life
_DEFAULT_KEYS = ("~/.ssh/id_ed25519", "~/.ssh/id_ecdsa", "~/.ssh/id_rsa")


def settings(target: Target) -> Settings:
    """Read the ssh configuration. Raises NeedsOpenssh where only the program can follow it."""
    options = _options(target)
    for name, shown in (("proxycommand", "ProxyCommand"), ("proxyjump", "ProxyJump")):
        if str(options.get(name, "none")).lower() != "none":
            raise NeedsOpenssh(host=target.host, feature=shown)
    written = [*options.get("identityfile", [])]
    identities = (target.identity,) if target.identity else ()
    address = str(options.get("hostname", target.host))
    files_known = str(options.get("userknownhostsfile", "")).split()
    files_known += str(options.get("globalknownhostsfile", "")).split()
    return Settings(
        host=target.host,
        address=address,
        key_name=str(options.get("hostkeyalias", address)),
        port=target.port or int(options.get("port", 22)),
        user=target.user or str(options.get("user", "")) or _own_name(),
        identities=(*identities, *written) or _DEFAULT_KEYS,
        only_these=bool(target.identity) or options.get("identitiesonly", "no") == "yes",
        known_hosts=(target.known_hosts,)
        if target.known_hosts
        else tuple(files_known) or known_hosts.DEFAULT_FILES,
        accept_new=target.accept_new or options.get("stricthostkeychecking") == "accept-new",
        timeout=target.connect_timeout,
    )


def _options(target: Target) -> "paramiko.config.SSHConfigDict":
    """The merged options of the user's file and the system's; an explicit file stands alone."""
    config = paramiko.SSHConfig()
    paths = [target.config] if target.config else ["~/.ssh/config", "/etc/ssh/ssh_config"]
    for path in paths:
        try:
            with open(os.path.expanduser(path), encoding="utf-8", errors="replace") as file:
                config.parse(file)
        except FileNotFoundError:
            continue
        except paramiko.ssh_exception.ConfigParseError as error:
            raise NeedsOpenssh(host=target.host, feature=f"{path}: {error}") from None
    try:
        return config.lookup(target.host)
    except (
        paramiko.SSHException,
        ImportError,
    ) as error:  # Match exec, canonical names and the like
        raise NeedsOpenssh(host=target.host, feature=str(error)) from None


def _own_name() -> str:
    return pwd.getpwuid(os.geteuid()).pw_name


def connect(target: Target) -> "SshConnection":
    """Reach the host, check its key, show ours."""
    found = settings(target)
    return SshConnection(found, _transport(found))


def _transport(found: Settings) -> "paramiko.Transport":
    """A connection that has let us in."""
    transport = paramiko.Transport(dial(found), packetizer_class=Packetizer)
    try:
        _negotiate(transport, found)
        _log_in(transport, found)
    except BaseException:
        transport.close()
        raise
    transport.set_keepalive(KEEPALIVE)
    return transport


def _negotiate(transport: "paramiko.Transport", found: Settings) -> None:
    known = known_hosts.lookup(found.known_hosts, found.key_name, found.port)
    security = transport.get_security_options()
    security.ciphers = [name for name in CIPHERS if name in security.ciphers]
    security.key_types = _wanted_types(known, tuple(security.key_types))
    transport.banner_timeout = found.timeout
    try:
        transport.start_client(timeout=found.timeout)
        offered_key = transport.get_remote_server_key()
    except (paramiko.SSHException, OSError, EOFError) as error:
        reason = str(error).split("\n")[0] or "it hung up"
        raise unreachable(found, f"no SSH came about: {reason}") from None
    offered = HostKey(offered_key.get_name(), offered_key.asbytes())
    file = found.known_hosts[0]
    if not known and found.accept_new:
        known_hosts.append(file, offered, host=found.key_name, port=found.port)
        log.warning(f"{found.host}: accepted its key {offered.type} {offered.fingerprint}")
        return
    known_hosts.check(known, offered, host=found.key_name, port=found.port, remedy_file=file)


def _wanted_types(known: Sequence[HostKey], offered: tuple[str, ...]) -> list[str]:
    """Ask first for the types of the keys we know, or a host with several shows a stranger's."""
    have = {key.type for key in known if not key.marker}
    if "ssh-rsa" in have:
        have |= {"rsa-sha2-512", "rsa-sha2-256"}
    return sorted(offered, key=lambda name: name not in have)


def _log_in(transport: "paramiko.Transport", found: Settings) -> None:
    transport.auth_timeout = found.timeout * 2
    refusals: list[str] = []
    try:
        allowed = _allowed(transport, found.user)
        if "publickey" in allowed:
            for name, key in _keys(found, refusals):
                if _accepted(transport, found.user, name, key, refusals):
                    return
    except (paramiko.SSHException, OSError, EOFError) as error:
        reason = str(error) or "it hung up"
        raise not_let_in(found, [*refusals, reason.rstrip(".").lower()]) from None
    if transport.is_authenticated():
        return
    if "publickey" not in allowed:
        refusals = [f"it accepts only {', '.join(allowed)}, and ocimig shows keys only"]
    raise not_let_in(found, refusals or ["no key was found to show"])


def _allowed(transport: "paramiko.Transport", user: str) -> list[str]:
    try:
        transport.auth_none(user)
    except paramiko.BadAuthenticationType as error:
        return list(error.allowed_types)
    return []


def _accepted(
    transport: "paramiko.Transport",
    user: str,
    name: str,
    key: "paramiko.PKey",
    refusals: list[str],
) -> bool:
    try:
        transport.auth_publickey(user, key)
    except paramiko.AuthenticationException as error:
        if not transport.is_active():
            raise paramiko.SSHException("too many keys were tried; name one with -i") from error
        refusals.append(f"{name} refused")
        return False
    if not transport.is_authenticated():
        refusals.append(f"{name} is not enough, it asks for more")
        return False
    return True


def _keys(found: Settings, refusals: list[str]) -> "Iterator[tuple[str, paramiko.PKey]]":
    """Keys to show: the named ones first, then the agent's."""
    named: set[bytes] = set()
    locked: set[bytes] = set()
    for path in found.identities:
        real = os.path.expanduser(path)
        try:
            key = paramiko.PKey.from_path(real)
        except FileNotFoundError:
            if path not in _DEFAULT_KEYS:
                refusals.append(f"{path} is not there")
            continue
        except (paramiko.SSHException, ValueError, TypeError, OSError) as error:
            refusals.append(f"{path} cannot be used ({key_trouble(error)})")
            locked |= public_half(real)
            continue
        named.add(key.asbytes())
        yield path, key
    agent = paramiko.Agent()
    try:
        for agent_key in agent.get_keys():
            blob = agent_key.asbytes()
            if blob in named or (found.only_these and blob not in locked):
                continue
            yield f"the agent's {agent_key.get_name()}", agent_key
    finally:
        agent.close()


class SshConnection(Closing):
    """Channels on one connection; `separate` ones each have their own."""

    def __init__(self, found: Settings, transport: "paramiko.Transport") -> None:
        self.host = found.host
        self._settings = found
        self._transport = transport
        self._channels: list[SshChannel] = []

    def open(self, argv: Sequence[str], *, separate: bool = False) -> "SshChannel":
        """See Connection."""
        transport = _transport(self._settings) if separate else self._transport
        try:
            channel = transport.open_session(timeout=self._settings.timeout)
            channel.exec_command(join(argv))
        except (paramiko.SSHException, OSError, EOFError) as error:
            if separate:
                transport.close()
            reason = str(error) or "it opens no channel"
            raise LinkLost(host=self.host, reason=reason.rstrip(".").lower()) from None
        made = SshChannel(channel, host=self.host, own=transport if separate else None)
        self._channels.append(made)
        return made

    def close(self) -> None:
        """See Connection."""
        while self._channels:
            self._channels.pop().close()
        self._transport.close()
