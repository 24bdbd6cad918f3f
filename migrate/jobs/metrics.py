"""Metrics of a job for Prometheus' textfile collector: made of its state, put in place by a rename."""

import os

from ocimig import files
from ocimig.migrate.jobs.state import JobState

_HELP = {
    "last_run_timestamp_seconds": ("gauge", "When the last run of the job ended."),
    "last_success_timestamp_seconds": ("gauge", "When it last ended well; 0 is never."),
    "duration_seconds": (
        "gauge",
        "How long its last run, or its last backup of a container, took.",
    ),
    "frozen_seconds": ("gauge", "How long the container stood still in its last backup."),
    "bytes": (
        "gauge",
        "Bytes read from the container, and bytes stored of them, in its last backup.",
    ),
    "failures_total": ("counter", "Runs of the job, or backups of a container, that failed."),
}
_PREFIX = "ocimig_job_"


def write(name: str, state: JobState, directory: str) -> None:
    """Replace the file of the job in the collector's directory, which must exist. Raises OSError."""
    path = os.path.join(directory, f"{_PREFIX}{name}.prom")
    files.write_atomic(path, render(name, state).encode(), 0o644, sync=False)


def render(name: str, state: JobState) -> str:
    """The exposition format, version 0.0.4. Samples without a container are of the whole job."""
    samples: dict[str, list[str]] = {metric: [] for metric in _HELP}

    def add(metric: str, value: float, **labels: str) -> None:
        words = ",".join(f'{key}="{_escape(text)}"' for key, text in labels.items())
        samples[metric].append(f"{_PREFIX}{metric}{{{words}}} {value!r}")

    add("last_run_timestamp_seconds", state.ended, job=name)
    add("last_success_timestamp_seconds", state.last_success, job=name)
    add("duration_seconds", state.seconds, job=name)
    add("failures_total", state.failures, job=name)
    for container, each in sorted(state.containers.items()):
        labels = {"job": name, "container": container}
        add("last_run_timestamp_seconds", each.last_run, **labels)
        add("last_success_timestamp_seconds", each.last_success, **labels)
        add("duration_seconds", each.seconds, **labels)
        add("frozen_seconds", each.frozen_seconds, **labels)
        add("bytes", each.bytes_read, **labels, kind="read")
        add("bytes", each.bytes_stored, **labels, kind="stored")
        add("failures_total", each.failures, **labels)
    lines = []
    for metric, (kind, text) in _HELP.items():
        if samples[metric]:
            lines += [f"# HELP {_PREFIX}{metric} {text}", f"# TYPE {_PREFIX}{metric} {kind}"]
            lines += samples[metric]
    return "\n".join([*lines, ""])


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')
