"""Memory follows: pages of a running container, here read and sent, there held until a restore asks.

    sender.send([("p1", 4711, runs)])      # a round: while the container runs, or its last look
    sender.settle(30)                      # the other side has taken every frame
    held.take(frame)                       # on the other side, from any stream

docs/formats/pages.md is the protocol. What is held may be stale: who tracks writes knows what to send again.
"""
