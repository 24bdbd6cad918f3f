"""The memory that is left while a container runs on the far side already: a thread that sends it. Never decides.

The container stands frozen here meanwhile. Before the commit an error means back, after it doubt.
"""

import threading

from ocimig.migrate.lazy.push import Left, Push
from ocimig.migrate.transport.process import ProcessChannel
from ocimig.migrate.wire import Wire


class Following:
    """Post-copy, on a stream of its own that is there before the freeze."""

    def __init__(self, wire: Wire) -> None:
        self.sent = 0  # bytes on the wire, when it has ended
        self._wire = wire
        self._error: BaseException | None = None
        self._thread: threading.Thread | None = None

    def begin(self, left: Left) -> None:
        """Announce what is left and begin to send it."""
        push = Push(self._wire, left)
        self._thread = threading.Thread(target=self._run, args=(push,), name="push", daemon=True)
        self._thread.start()

    def _run(self, push: Push) -> None:
        try:
            push.run()
        except BaseException as error:  # noqa: BLE001  raised again where it is asked for
            self._error = error
            self._wire.close()  # the far side need not wait to find out
        self.sent = push.sent

    @property
    def alive(self) -> bool:
        """Whether it still sends."""
        return self._thread is not None and self._thread.is_alive()

    def check(self) -> None:
        """Raise what ended it too early."""
        if self._error is not None:
            raise self._error

    def wait(self) -> None:
        """Until all of it is there. Raises what ended it too early."""
        if self._thread is not None:
            self._thread.join()
        self.check()

    def stop(self) -> None:
        """Send no more: the far side ends the container, unless it has everything."""
        channel = self._wire.channel
        if isinstance(channel, ProcessChannel):
            channel.end()  # its pipes end then; closing them would pull them from under the thread
        else:
            channel.close_write()
