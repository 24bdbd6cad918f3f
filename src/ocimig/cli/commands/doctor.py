"""doctor: whether this host can run, save and receive containers, and what to do where it cannot."""

import os
from collections.abc import Iterator
from dataclasses import dataclass

from ocimig import jsonio
from ocimig.cli.verbs import Call
from ocimig.errors import OcimigError

OK, WARNING, PROBLEM = "ok", "warning", "problem"
_CODES = {OK: 0, WARNING: 3, PROBLEM: 14}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at."""

    severity: str
    name: str
    text: str
    fix: str = ""

    def to_dict(self) -> dict[str, str]:
        """For --json."""
        return {"severity": self.severity, "name": self.name, "text": self.text, "fix": self.fix}


def doctor(call: Call) -> int:
    """Look at everything, show it, and return the code of the worst finding."""
    findings = list(look())
    if call.flag("json"):
        print(jsonio.dumps([finding.to_dict() for finding in findings], indent=2))
    else:
        for finding in findings:
            print(f"{finding.severity:<8} {finding.name:<12} {finding.text}")
            if finding.fix:
                print(f"{'':<21} fix: {finding.fix}")
    return max(_CODES[finding.severity] for finding in findings)


def look() -> Iterator[Finding]:
    """The findings, in the order in which one needs them."""
    from ocimig.migrate import facts

    uname = os.uname()
    yield Finding(OK, "kernel", f"Linux {uname.release} {uname.machine}")
    if os.geteuid():
        yield Finding(WARNING, "user", "not root", "checkpoint, restore and migrate need root")
    layout = facts.cgroup_layout()
    if layout == "none":
        yield Finding(WARNING, "cgroups", "none is mounted", "mount -t cgroup2 none /sys/fs/cgroup")
    else:
        yield Finding(OK, "cgroups", layout)
    yield _init()
    yield _seccomp()
    yield from _criu()
    refused = facts.network_lock()
    if refused:
        fix = "as root: modprobe nf_tables"
        yield Finding(PROBLEM, "network lock", f"nftables: {refused}", fix)
    else:
        yield Finding(OK, "network lock", "nftables")


def _init() -> Finding:
    from ocimig.runtime import launch

    try:
        os.close(launch.sealed_program())
    except OcimigError as error:
        return Finding(PROBLEM, "init", str(error), error.advice)
    return Finding(OK, "init", "the program that starts containers is there")


def _seccomp() -> Finding:
    from ocimig.runtime.linux import seccomp

    version = seccomp.version()
    if version:
        return Finding(OK, "seccomp", f"libseccomp {version}")
    return Finding(WARNING, "seccomp", "no libseccomp", "apt-get install libseccomp2")


def _criu() -> Iterator[Finding]:
    from ocimig.criu_images import features

    try:
        found = features.probe()
    except OcimigError as error:
        yield Finding(PROBLEM, "criu", str(error), error.advice)
        return
    except OSError as error:
        yield Finding(PROBLEM, "criu", error.strerror or str(error), "run contrib/install-criu")
        return
    yield Finding(OK, "criu", f"{found.version} ({found.program})")
    for name, there in (("pre-dump", found.memory_tracking), ("lazy pages", found.lazy_pages)):
        # Neither is needed: what they would save in time is all that is missing.
        yield Finding(OK, name, "possible" if there else "not possible on this kernel")
