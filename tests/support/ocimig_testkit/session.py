"""The mark of this test session: whatever it makes carries TOKEN, so that its leaks are told from others'."""

import os

# Inherited by a test run inside a test run; the environment carries it to every process started.
TOKEN = os.environ.setdefault("OCIMIG_TEST_SESSION", f"ot{os.getpid():x}{os.urandom(2).hex()}"[:10])
