"""Events: time left, throttling, cancelling, JSON lines, the terminal's bar."""

from __future__ import annotations

import io
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from IncrementalSegLib import events
from IncrementalSegLib.errors import Cancelled, StorageError
from IncrementalSegLib.events import Event, EventFile, JsonLines, Reporter, Terminal

REPOSITORY = Path(events.__file__).parents[1]


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self, now: float = 0.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def report(every: float = 0.0, **options: Any) -> tuple[Reporter, list[Event], Clock]:
    sent: list[Event] = []
    clock = Clock()
    return Reporter(sent.append, every=every, clock=clock, **options), sent, clock


def strictly(line: str) -> Any:
    """JSON as the standard has it: neither NaN nor Infinity."""
    return json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


def test_an_event_reaches_every_sink() -> None:
    first: list[Event] = []
    second: list[Event] = []
    Reporter(first.append, second.append).message("Half of it is done.", "warning")
    assert first == second == [{"event": "message", "level": "warning", "text": "Half of it is done."}]


def test_the_time_left_is_what_the_measured_steps_took() -> None:
    reporter, sent, clock = report()
    for step, now in ((0, 100.0), (1, 103.0), (5, 110.0), (10, 120.0)):
        clock.now = now
        reporter.progress("update", step, 10, {"dice": 0.123456})
    assert [event["eta_s"] for event in sent] == [None, 27.0, 10.0, 0.0]
    assert sent[1] == {
        "event": "progress",
        "phase": "update",
        "step": 1,
        "of": 10,
        "eta_s": 27.0,
        "loss": {"dice": 0.1235},
    }


def test_steps_done_before_a_resume_do_not_count_as_fast() -> None:
    reporter, sent, clock = report()
    reporter.progress("update", 500, 600)
    clock.now = 20.0
    reporter.progress("update", 510, 600)
    assert [event["eta_s"] for event in sent] == [None, 180.0]


def test_a_new_phase_and_a_phase_that_starts_again_are_measured_afresh() -> None:
    reporter, sent, clock = report()
    for now, phase, step in ((0, "base", 1), (1000, "base", 10), (1000, "update", 1), (1002, "update", 2)):
        clock.now = now
        reporter.progress(phase, step, 10)
    for now, step in ((5000, 1), (5001, 2)):
        clock.now = now
        reporter.progress("update", step, 10)
    assert [event["eta_s"] for event in sent] == [None, 0.0, None, 16.0, None, 8.0]


def test_progress_is_sent_now_and_then_and_always_at_the_beginning_and_the_end() -> None:
    reporter, sent, clock = report(every=1.0)
    for step in range(101):
        clock.now = step * 0.125
        reporter.progress("update", step, 100)
    steps = [event["step"] for event in sent]
    assert steps == [*range(0, 97, 8), 100]


def test_a_new_phase_is_sent_at_once() -> None:
    reporter, sent, _ = report(every=1000.0)
    reporter.progress("prepare", 1, 4)
    reporter.progress("prepare", 2, 4)
    reporter.progress("update", 1, 4)
    assert [(event["phase"], event["step"]) for event in sent] == [("prepare", 1), ("update", 1)]


def test_cancelling_stops_the_work_after_what_was_done_is_reported() -> None:
    wish = {"stop": False}
    reporter, sent, _ = report(cancelled=lambda: wish["stop"])
    reporter.progress("update", 1, 3)
    reporter.check()
    wish["stop"] = True
    with pytest.raises(Cancelled, match="resume") as stop:
        reporter.progress("update", 2, 3)
    assert [event["step"] for event in sent] == [1, 2]
    assert stop.value.exit_code == 130


def test_cancelling_is_heard_between_reports() -> None:
    sent: list[Event] = []
    reporter = Reporter(sent.append, every=1000.0, clock=Clock(), cancelled=lambda: len(sent) > 0)
    with pytest.raises(Cancelled):
        reporter.progress("update", 0, 3)
    with pytest.raises(Cancelled):
        reporter.progress("update", 1, 3)
    assert len(sent) == 1


def test_the_json_lines_are_one_event_each_even_in_ascii() -> None:
    raw = io.BytesIO()
    reporter = Reporter(JsonLines(io.TextIOWrapper(raw, encoding="ascii")), every=0)
    reporter.message("Größe 2 × 3\nzweite Zeile")
    reporter.progress("update", 1, 2, {"ce": 0.5})
    lines = raw.getvalue().decode("ascii").splitlines()
    assert [strictly(line)["event"] for line in lines] == ["message", "progress"]
    assert strictly(lines[0])["text"] == "Größe 2 × 3\nzweite Zeile"


def test_a_diverged_loss_is_null_in_json_and_nan_on_the_terminal() -> None:
    stream, screen = io.StringIO(), io.StringIO()
    reporter = Reporter(JsonLines(stream), Terminal(screen), every=0)
    reporter.progress("update", 1, 2, {"ce": math.nan, "dice": math.inf, "kd": 1.0})
    assert strictly(stream.getvalue())["loss"] == {"ce": None, "dice": None, "kd": 1.0}
    assert "ce nan" in screen.getvalue()


def test_numbers_of_numpy_are_numbers() -> None:
    stream = io.StringIO()
    Reporter(JsonLines(stream)).progress("update", 1, 2, {"ce": cast(float, np.float32(0.25))})
    assert strictly(stream.getvalue())["loss"] == {"ce": 0.25}


def test_nested_lists_and_tables_are_kept() -> None:
    stream = io.StringIO()
    Reporter(JsonLines(stream)).emit("done", organs=[{"name": "Liver", "dsc": math.nan}], size=(1, 2))
    assert strictly(stream.getvalue()) == {"event": "done", "organs": [{"name": "Liver", "dsc": None}], "size": [1, 2]}


def test_the_event_file_grows_by_lines_with_times(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    for text in ("Größe", "zwei"):
        Reporter(EventFile(path)).message(text)
    lines = path.read_text(encoding="utf-8").splitlines()
    assert [strictly(line)["text"] for line in lines] == ["Größe", "zwei"]
    assert all(strictly(line)["time"] > 1.6e9 for line in lines)
    assert "Größe" in lines[0]


def test_an_event_file_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"events\.jsonl cannot be written \(No such file"):
        EventFile(tmp_path / "gone" / "events.jsonl")({"event": "done"})


@pytest.mark.skipif(sys.platform == "win32", reason="no file size limits on Windows")
def test_a_full_disk_leaves_no_half_line(tmp_path: Path) -> None:
    code = """
import resource, signal, sys
from pathlib import Path
from IncrementalSegLib.errors import StorageError
from IncrementalSegLib.events import EventFile
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (500, resource.RLIM_INFINITY))
sink = EventFile(Path(sys.argv[1]))
for number in range(100):
    try:
        sink({"event": "message", "text": "x" * 30, "number": number})
    except StorageError as error:
        print(number, error)
        break
"""
    path = tmp_path / "events.jsonl"
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    written = [strictly(line)["number"] for line in path.read_text(encoding="utf-8").splitlines()]
    assert written == list(range(int(done.stdout.split()[0])))
    assert len(written) > 1
    assert "events.jsonl cannot be written" in done.stdout
    EventFile(path)({"event": "done", "number": -1})
    assert strictly(path.read_text(encoding="utf-8").splitlines()[-1])["number"] == -1


def test_the_terminal_shows_a_bar_with_steps_time_left_and_losses() -> None:
    screen = io.StringIO()
    Terminal(screen)(
        {"event": "progress", "phase": "update", "step": 5, "of": 10, "eta_s": 75.0, "loss": {"dice": 0.25}}
    )
    assert screen.getvalue().startswith("\rupdate ")
    assert "█" * 12 + "·" * 12 + " 5/10  1:15 left  dice 0.250" in screen.getvalue()
    assert "\n" not in screen.getvalue()


@pytest.mark.parametrize(("seconds", "shown"), [(0.4, "0:00"), (59.6, "1:00"), (412, "6:52"), (3725, "1:02:05")])
def test_the_time_left_is_shown_as_a_clock(seconds: float, shown: str) -> None:
    screen = io.StringIO()
    Terminal(screen)({"event": "progress", "phase": "a", "step": 1, "of": 9, "eta_s": seconds, "loss": {}})
    assert f"  {shown} left" in screen.getvalue()


def test_messages_and_phases_have_lines_of_their_own_on_the_terminal() -> None:
    screen = io.StringIO()
    reporter, _, _ = report()
    reporter.sinks = (Terminal(screen),)
    reporter.progress("prepare", 1, 2)
    reporter.message("A scan was left out.", "warning")
    reporter.progress("prepare", 2, 2)
    reporter.message("Prepared.")
    reporter.progress("update", 1, 2)
    reporter.progress("evaluate", 1, 2)
    lines = [line.rsplit("\r", 1)[-1].split()[0] for line in screen.getvalue().split("\n")]
    assert lines == ["prepare", "Warning:", "prepare", "Prepared.", "update", "evaluate"]


def test_the_terminal_overlooks_events_that_are_not_for_people() -> None:
    screen = io.StringIO()
    Terminal(screen)({"event": "result", "path": "x"})
    assert screen.getvalue() == ""


def test_a_bar_without_steps_is_full_and_not_an_error() -> None:
    screen = io.StringIO()
    Reporter(Terminal(screen)).progress("evaluate", 0, 0)
    assert "0/0" in screen.getvalue()
    assert screen.getvalue().endswith("\n")
