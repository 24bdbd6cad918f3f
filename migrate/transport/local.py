"""Programs on this very host, for migrations between two state roots and for tests. Never uses a network."""

from collections.abc import Mapping, Sequence

from ocimig.migrate.closing import Closing
from ocimig.migrate.errors import AgentMissing
from ocimig.migrate.transport.process import ProcessChannel


class LocalConnection(Closing):
    """Starts programs as children. `prefix` goes before every argv (ip netns exec …)."""

    def __init__(
        self,
        *,
        prefix: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        host: str = "localhost",
    ) -> None:
        self.host = host
        self._prefix = tuple(prefix)
        self._environment = environment
        self._channels: list[ProcessChannel] = []

    def open(self, argv: Sequence[str], *, separate: bool = False) -> ProcessChannel:
        """See Connection."""
        command = [*self._prefix, *argv]
        try:
            channel = ProcessChannel(command, host=self.host, environment=self._environment)
        except OSError as error:
            reason = error.strerror or str(error)
            raise AgentMissing(host=self.host, program=command[0], reason=reason) from None
        self._channels.append(channel)
        return channel

    def close(self) -> None:
        """See Connection."""
        while self._channels:
            self._channels.pop().close()
