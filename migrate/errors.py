"""What can go wrong between hosts, in words. Shared by the files of this room; only classes."""

from ocimig.errors import OcimigError, Usage


class InvalidNetwork(Usage):
    """A network is described in a way that cannot be built."""

    message = "network {field} {value!r}: {reason}"
    hint = "as in bridge=br0,address=10.0.0.5/24,gateway=10.0.0.1"

    def __init__(self, *, field: str, value: str, reason: str) -> None:
        OcimigError.__init__(self, field=field, value=value, reason=reason)


class BridgeMissing(OcimigError):
    """The bridge that a container's network names is not on this host."""

    message = "the bridge {bridge} does not exist on this host"
    hint = "make it: ip link add {bridge} type bridge && ip link set {bridge} up"
    code = 10


class NotABridge(OcimigError):
    """An interface of that name exists and is something else."""

    message = "{bridge} is not a bridge"
    hint = "name a bridge; these exist: ip -brief link show type bridge"


class NetworkFailed(OcimigError):
    """The kernel refused a step of building a container's network."""

    message = "cannot {what}: {reason}"
    hint = "see what is there: ip -details link show"


class InvalidTarget(Usage):
    """The name of another host cannot be read."""

    message = "target {target!r}: {reason}"
    hint = "as in host2, user@host2, user@host2:2222 or user@[2001:db8::1]:22"

    def __init__(self, *, target: str, reason: str) -> None:
        OcimigError.__init__(self, target=target, reason=reason)


class HostUnreachable(OcimigError):
    """No connection to the other host came about."""

    message = "{host} does not answer on port {port}: {reason}"
    hint = "nothing was changed; see: ssh -v -p {port} {host} true"
    code = 20


class HostKeyUnknown(OcimigError):
    """The other host shows a key that nobody has vouched for."""

    message = "the host key of {host} is not known: {type} {fingerprint}"
    hint = (
        "compare it with the one shown on that host, then: {remedy} (or add --accept-new-host-key)"
    )
    code = 13


class HostKeyChanged(OcimigError):
    """The other host shows another key than the one that is known."""

    message = "the host key of {host} is not the known one: known {known}; offered {offered}"
    hint = "if that host was installed anew: {remedy}; otherwise somebody may stand between"
    code = 13


class HostKeyRevoked(OcimigError):
    """The other host shows a key that is marked as stolen."""

    message = "the host key of {host} is revoked in {file}: {type} {fingerprint}"
    hint = "do not connect; give that host a new key"
    code = 13


class NotLetIn(OcimigError):
    """The other host refused every key that was shown."""

    message = "{user}@{host} let nobody in: {reason}"
    hint = "put a key there (ssh-copy-id -p {port} {user}@{host}) and try: ssh -p {port} {user}@{host} true"
    code = 13


class NeedsOpenssh(OcimigError):
    """The ssh configuration asks for something only the OpenSSH program does."""

    message = (
        "the ssh configuration of {host} asks for {feature}, which the built-in client cannot do"
    )
    hint = "add --transport openssh"
    code = 2


class TransportMissing(OcimigError):
    """The program or library of a transport is not installed."""

    message = "the transport {transport} needs {what}, which is not installed"
    hint = "install {package}, or choose another --transport"


class LinkLost(OcimigError):
    """The connection to the other host ended before the work did."""

    message = "the connection to {host} broke: {reason}"
    hint = "see whether the host is up: ssh {host} uptime"
    code = 20


class FarSideSilent(LinkLost):
    """The other side still holds the connection and says nothing."""

    message = "{host} was silent for {seconds} seconds: {reason}"
    hint = "see what it does: ssh {host} ps ax"


class AgentMissing(OcimigError):
    """The other host has no ocimig to talk to."""

    message = "{host} cannot run {program}: {reason}"
    hint = "install ocimig there, so that this works: ssh {host} {program} --version"
    code = 14


class NotOurProtocol(OcimigError):
    """What came from the other side is not ours."""

    message = "{host} did not answer as ocimig: {reason}"
    hint = "see what it prints and how long it takes: ssh {host} true (login scripts must print nothing)"
    code = 14


class WireVersion(OcimigError):
    """The two sides speak versions of the protocol that do not meet."""

    message = "{host} speaks wire versions {theirs}, this side {ours}"
    hint = "install the same version of ocimig on both hosts"
    code = 14


class BrokenFrame(OcimigError):
    """A message breaks the rules of the protocol."""

    message = "{host} sent a frame that breaks the protocol: {reason}"
    hint = "install the same version of ocimig on both hosts"
    code = 20


class FarFailure(OcimigError):
    """The other side met an error and said so; its words, its hint and its code are kept."""

    message = "{host}: {reason}"
    hint = "{their_hint}"

    def __init__(self, *, host: str, name: str, reason: str, their_hint: str, code: int) -> None:
        super().__init__(host=host, name=name, reason=reason, their_hint=their_hint)
        self.name = name
        self.code = code


class HostileEntry(OcimigError):
    """A file on its way here would land outside its directory, or is not one that can exist."""

    message = "refused {path!r}: {reason}"
    hint = "the sender is broken or means harm; nothing outside the directory was touched"
    code = 20


class DirectoryNotEmpty(OcimigError):
    """Files would be mixed with files that are already there."""

    message = "{path} is not empty"
    hint = "remove it, or choose another bundle directory"
    code = 11


class PlaceTaken(OcimigError):
    """The files of two containers would share a directory: the end of one would be the end of both."""

    message = "{path} shares files with {theirs} of {other}"
    hint = "give each container directories of its own, then move it again"
    code = 11


class TreeFailed(OcimigError):
    """A file of a directory tree could not be read or made."""

    message = "cannot {what} {path}: {reason}"
    code = 20


class PreflightRefused(OcimigError):
    """What was found on the two hosts makes the migration impossible; nothing was changed."""

    message = "refused, nothing was changed: {reasons}"
    hint = "{fixes}"
    code = 14

    def __init__(self, *, reasons: str, fixes: str, code: int) -> None:
        super().__init__(reasons=reasons, fixes=fixes)
        self.code = code


class CannotMove(OcimigError):
    """Only a running container can move."""

    message = "container {id} is {status}, not running"
    hint = "{fix}"


class MigrationBusy(OcimigError):
    """Somebody else migrates, backs up or measures the same container: one at a time follows its writes."""

    message = "container {id} is being migrated, backed up or measured by another command"
    hint = "wait for it to end; the journals of migrations are in {journal}"
    code = 11


class MigrationUnsettled(OcimigError):
    """An earlier migration of the container has no known end yet."""

    message = "migration {migration} of container {id} to {target} is not settled: {phase}"
    hint = "settle it first: ocimig migrate --resume {id}"
    code = 21


class NoSuchMigration(OcimigError):
    """There is nothing to resume or abort."""

    message = "no unsettled migration of container {id}"
    hint = "see what runs here: ocimig list"
    code = 10


class MigrationFailed(OcimigError):
    """The migration was rolled back before the commit: the container runs here as before."""

    message = "{phase}: {reason}; rolled back: container {id} runs here"
    hint = "{fix}"
    code = 20

    def __init__(self, *, id: str, phase: str, reason: str, fix: str, code: int = 20) -> None:
        super().__init__(id=id, phase=phase, reason=reason, fix=fix)
        self.code = code


HELD = "is held frozen here"


class MigrationInDoubt(OcimigError):
    """The far side may or may not run the container, so it is held here."""

    message = "in doubt: container {id} {held}, {target} may run it: {reason}"
    hint = (
        "when {target} answers again: ocimig migrate --resume {id}; "
        "if it never will: ocimig migrate --resume --assume-destination-dead {id}"
    )
    code = 21

    def __init__(self, *, held: str = HELD, **fields: object) -> None:
        super().__init__(held=held, **fields)


class RanWithoutMemory(MigrationInDoubt):
    """It ran on the far side after --post-copy, and was ended there because its memory did not follow."""

    message = (
        "container {id} ran on {target} and was ended there without all of its memory; "
        "it is held frozen here as it was when it was frozen: {reason}"
    )
    hint = (
        "what it did on {target} is lost; to run it here as it was before: "
        "ocimig migrate --resume --assume-destination-dead {id}"
    )


class DestinationRuns(OcimigError):
    """An abort came too late: the container belongs to the far side."""

    message = "container {id} runs on {target}: it cannot be taken back"
    hint = "finish here with: ocimig migrate --resume {id}"
    code = 21


class SourceLeftovers(OcimigError):
    """The container runs on the far side; something of it could not be removed here."""

    message = "container {id} runs on {target}; left over here: {leftovers}"
    hint = "remove it with: ocimig migrate --resume {id}"
    code = 22


class Fenced(OcimigError):
    """This host gave the container away; a second copy of it must not start here."""

    message = "container {id} moved to {target} in migration {migration}"
    hint = "run it there, or remove the record {journal} when that copy is gone for good"
    code = 11


class GoRefused(OcimigError):
    """The permission to run came too late or twice."""

    message = "migration {migration} is {phase} here: the container does not start"
    hint = "the source keeps it: ocimig migrate --resume there"
    code = 20


class JournalBroken(OcimigError):
    """A journal of a migration does not say what journals say."""

    message = "journal {path}: {reason}"
    hint = "keep a copy of it, find out where the container runs, then remove its directory"
    code = 21


class FileGone(OcimigError):
    """A file of the host that the container had open cannot be opened again."""

    message = "the container had {path} of its host open: {reason}"
    hint = "make that file here, then restore again"


class NotCheckpointable(OcimigError):
    """The container is in a state, or of a kind, that cannot be checkpointed."""

    message = "{reason}"
    hint = "{remedy}"

    def __init__(self, *, reason: str, remedy: str = "") -> None:
        super().__init__(reason=reason, remedy=remedy)


class MountGone(OcimigError):
    """Sources of bind mounts that the container had are missing on this host."""

    message = "missing on this host, bound into the container at the checkpoint: {paths}"
    hint = "make them, then restore again; nothing was started"


class RestoreFailed(OcimigError):
    """A restore ended before the container ran; nothing of it is left."""

    message = "cannot restore: {reason}"


class LockLeftBehind(OcimigError):
    """The network of a container stays locked after a checkpoint or restore that did not end."""

    message = "the network of {id} could not be unlocked: {reason}"
    hint = "try: ocimig recover {id}"
    code = 22


class NobodyToAttach(OcimigError):
    """A connection came for a migration that no process of this host carries out."""

    message = "nobody carries out migration {migration} here: {reason}"
    hint = "see what became of it: ocimig recover"
    code = 20


class NothingToDrainTo(OcimigError):
    """None of the hosts that were named can be asked."""

    message = "no host to move containers to: {reason}"
    hint = "nothing was changed; see: ssh HOST ocimig --version"
    code = 20


class GroupTurnedBack(MigrationFailed):
    """Containers that move together stay because one of them, or who leads them, did not get there."""

    message = "container {id} stays here with its group: {reason}"
    hint = "mend that, then move them together again"

    def __init__(self, *, id: str, reason: str) -> None:
        super().__init__(id=id, phase="", reason=reason, fix="")


class NoRoomToLook(OcimigError):
    """What is looked at has to be unpacked, and there is no room for that."""

    message = "{path} has no room for {size} that have to be unpacked to look at them"
    hint = "free space there, or name another directory in the environment: TMPDIR=/var/tmp"
    code = 15
