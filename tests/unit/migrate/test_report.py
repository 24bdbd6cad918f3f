"""The report: where the blackout went, and how it is drawn."""

import re
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ocimig.migrate import phases, report, report_html
from ocimig.migrate.dirty_rate import DirtyRate
from ocimig.migrate.forecast import Forecast, Writes
from ocimig.migrate.preflight import Finding
from ocimig.migrate.progress import Event, Progress
from ocimig.migrate.report import PARTS, Report, Span, breakdown
from ocimig.migrate.rounds import Decision, RoundStats

SPANS = (
    Span("freeze and dump", 10.0, 0.030),
    Span("stop the processes", 10.0, 0.002),
    Span("lock the network", 10.002, 0.001),
    Span("criu dumps", 10.003, 0.020),
    Span("last pages", 10.023, 0.007),
    Span("files while frozen", 10.030, 0.005),
    Span("images", 10.035, 0.005),
    Span("prepare there", 10.040, 0.050),
    Span("restore", 10.042, 0.040, "there"),
    Span("go to running", 10.090, 0.010),
    Span("network attached", 10.092, 0.003, "there"),
)
NASTY = """<script>alert("1")</script>&'"""


def test_the_blackout_is_taken_apart() -> None:
    """Each moment counts once: to the innermost step, on whichever side; waiting is the wire."""
    parts = breakdown(SPANS, 10.0, 10.1)
    expected = {
        "freeze": 0.002, "network": 0.004, "dump": 0.020, "delta": 0.007, "files": 0.005,
        "restore": 0.040, "wire": 0.022,
    }  # fmt: skip
    assert parts == pytest.approx(expected)
    assert list(parts) == list(PARTS)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.builds(
            Span,
            st.sampled_from([*report.PART_OF, "something else"]),
            st.floats(0, 20),
            st.floats(0, 5),
            st.sampled_from(["here", "there"]),
        ),
        max_size=12,
    ),
    st.floats(0, 20),
    st.floats(0.001, 5),
)
def test_the_parts_add_up_to_the_blackout(spans: list[Span], begin: float, seconds: float) -> None:
    """Whatever overlaps: nothing is counted twice and nothing is lost."""
    parts = breakdown(spans, begin, begin + seconds)
    assert sum(parts.values()) == pytest.approx(seconds)
    assert all(took >= 0 for took in parts.values())


def test_nothing_stood_still_in_a_dry_run() -> None:
    """No blackout has no parts."""
    assert breakdown(SPANS, 0.0, 0.0) == {}


def seen() -> Progress:
    """A progress with a round, a freeze and what the far side did."""
    progress = Progress()
    progress.enter(phases.PREFLIGHT)
    progress.enter(phases.PRECOPY)
    stats = RoundStats(1, 100, 1 << 20, 0.5, 262_144, 1000, 0.2)
    progress.round(stats, Decision("freeze", "predicted blackout 60 ms", 0.06, bandwidth=1e9))
    progress.enter(phases.FREEZE)
    at = progress.began
    progress.frozen({"begin": at + 1.0, "stopped": at + 1.001, "dumped": at + 1.02})
    return progress


def test_the_steps_of_a_freeze_follow_each_other() -> None:
    """A moment that was skipped belongs to the next step."""
    steps = [(name, round(begin, 6), round(took, 6)) for name, begin, took in seen().spans]
    assert steps == [("stop the processes", 1.0, 0.001), ("criu dumps", 1.001, 0.019)]


def test_both_sides_stand_on_one_clock() -> None:
    """The far side's clock began elsewhere; the reply that travelled fastest says how far apart they are."""
    progress = Progress()
    progress.began -= 100.0
    progress.heard({"now": 7.0, "steps": [{"name": "restore", "begin": 6.0, "seconds": 0.5}]})
    progress.began -= 0.5  # half a second later by our clock, and none by theirs: it travelled long
    progress.heard({"now": 7.0})
    (span,) = report.spans_of(progress, ())
    assert span.side == "there"
    assert span.begin == pytest.approx(99.0, abs=0.05)


def test_without_the_far_sides_time_its_last_step_has_just_ended() -> None:
    """An older far side sends only its steps."""
    progress = Progress()
    progress.began -= 100.0
    (span,) = report.spans_of(progress, [{"name": "restore", "begin": 6.0, "seconds": 0.5}])
    assert span.end == pytest.approx(100.0, abs=0.05)


def made() -> Report:
    """A whole report."""
    return report.build(
        seen(), id="c1", migration="20261123T000000Z-00", target="host2", outcome="moved",
        frozen_at=1.0, running_at=1.1, bytes={"images": 4096}, notes=["a note"],
    )  # fmt: skip


def test_a_report_says_what_was_foreseen_and_what_was() -> None:
    """For people and for programs."""
    lines = "\n".join(made().lines())
    assert "blackout       100 ms   (predicted 60 ms)" in lines
    assert "    dump          19 ms" in lines
    assert "frozen then: predicted blackout 60 ms" in lines
    document = made().to_dict()
    assert document["predicted_blackout_seconds"] == 0.06
    assert document["blackout_parts"]["dump"] == pytest.approx(0.019)
    assert document["rounds"][0]["dirty_pages"] == 100


def test_a_round_is_told_with_its_figures() -> None:
    """What the live display and --progress json show."""
    events: list[Event] = []
    progress = Progress(events.append)
    progress.round(RoundStats(3, 7, 9, 0.5, 11), Decision("round", "why", 0.2, eta=1.5))
    told = events[0].to_dict()
    assert (told["kind"], told["text"], told["number"], told["dirty"]) == ("round", "why", 3, 7)
    assert (told["predicted"], told["eta"]) == (0.2, 1.5)


class Page(HTMLParser):
    """What a browser would make of the page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_needs_nothing_else() -> None:
    """No script, no link, no source: it opens without a network."""
    text = report_html.page(made())
    page = Page(text)
    assert page.open == []
    assert page.tags.count("svg") == 2
    assert not {"script", "link", "img", "iframe", "object"} & set(page.tags)
    assert not {"src", "href", "onload", "xlink:href"} & {name for name, _ in page.attributes}
    assert "url(" not in text
    assert "@import" not in text


def test_the_page_shows_the_figures() -> None:
    """Blackout, prediction, parts, rounds and bytes."""
    text = re.sub(r"<[^>]+>", " ", report_html.page(made()))
    for shown in ("100 ms", "60 ms", "criu dumps", "dump 19.0 ms", "4.0 KiB", "a note", "20%"):
        assert shown in text, shown


def test_the_page_escapes_everything() -> None:
    """Names, notes and findings come from outside, the far side's steps from another host."""
    nasty = Report(
        NASTY, NASTY, NASTY, NASTY, 2.0, 0.5, ((NASTY, 1.0),), (Span(NASTY, 1.0, 0.5, "there"),),
        {NASTY: 1}, (Finding("warning", NASTY, NASTY, NASTY),), (NASTY,), (NASTY,), 0.4, {"dump": 0.5},
        (RoundStats(1, 1, 1, 1.0),), NASTY, 1.0,
    )  # fmt: skip
    page = Page(report_html.page(nasty))
    assert page.open == []
    assert "script" not in page.tags


def test_an_empty_report_is_a_page_too() -> None:
    """--resume has no phases and no steps."""
    assert Page(report_html.page(Report("c1", "m", "host2", "resumed here"))).open == []


def test_a_dry_run_says_what_would_be() -> None:
    """The measured rate and the forecast, in words and in figures."""
    rate = DirtyRate("c1", "userfault", 2.0, 1 << 30, 4096e3, 5e6, 1 << 22, Writes(1000.0, 0.0))
    seen = Forecast(3, 1 << 30, 6.2, 0.062, "freeze", "predicted blackout 62 ms, allowed 300 ms")
    made = report.build(
        Progress(),
        id="c1",
        migration="",
        target="host2",
        outcome="possible",
        rate=rate,
        forecast=seen,
    )
    lines = "\n".join(made.lines())
    assert "foreseen: 3 rounds, 1.0 GiB of memory in 6200 ms, then 62 ms of blackout" in lines
    assert "(1,000 pages)" in lines
    assert made.to_dict()["forecast"]["blackout_seconds"] == 0.062
    assert made.to_dict()["dirty_rate"]["dirty_bytes_per_second"] == 4096000
    assert "foreseen: 3 rounds" in report_html.page(made)
