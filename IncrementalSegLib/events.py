"""Events: progress of long work as JSON lines, on a terminal, and into callbacks."""

from __future__ import annotations

import errno
import json
import math
import os
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TextIO

from .errors import Cancelled, StorageError

Event = dict[str, Any]
Sink = Callable[[Event], None]


class Reporter:
    """Sends events to sinks, measures the time left, and stops the work at the next step when it was cancelled.

    Progress is sent at most once in ``every`` seconds of ``clock``, and at the last step.
    """

    def __init__(
        self,
        *sinks: Sink,
        cancelled: Callable[[], bool] = lambda: False,
        every: float = 0.5,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.sinks = sinks
        self.cancelled = cancelled
        self.every = every
        self.clock = clock
        self._phase, self._started, self._sent = "", 0.0, 0.0
        self._first = self._last = 0

    def emit(self, event: str, **content: Any) -> None:
        """Send one event to every sink."""
        for sink in self.sinks:
            sink({"event": event, **content})

    def message(self, text: str, level: str = "info") -> None:
        """A sentence for the user."""
        self.emit("message", level=level, text=text)

    def check(self) -> None:
        """Stop here if the user asked for it.

        Raises:
            Cancelled: the work was cancelled; everything so far can be resumed.
        """
        if self.cancelled():
            raise Cancelled(
                "Cancelled. The work done so far is kept; resume it with: incrementalseg resume <job folder>."
            )

    def progress(self, phase: str, step: int, of: int, loss: Mapping[str, float] | None = None) -> None:
        """Report ``step`` of ``of`` in ``phase``; the time left comes from the steps measured in this process."""
        now = self.clock()
        if phase != self._phase or step < self._last:
            self._phase, self._started, self._first, self._sent = phase, now, step, -math.inf
        self._last = step
        if now - self._sent >= self.every or step >= of:
            self._sent = now
            done = step - self._first
            eta = round((now - self._started) / done * (of - step), 1) if done else None
            loss = {name: round(float(value), 4) for name, value in (loss or {}).items()}
            self.emit("progress", phase=phase, step=step, of=of, eta_s=eta, loss=loss)
        self.check()


def _line(event: Event, ascii_only: bool) -> str:
    """One line of JSON; NaN and infinity, which JSON does not have, become null."""

    def plain(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: plain(part) for key, part in value.items()}
        if isinstance(value, list | tuple):
            return [plain(part) for part in value]
        return None if isinstance(value, float) and not math.isfinite(value) else value

    return json.dumps(plain(event), ensure_ascii=ascii_only, allow_nan=False) + "\n"


class JsonLines:
    """A sink that writes an event per line to a stream of any encoding."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def __call__(self, event: Event) -> None:
        """Write the event and flush, so that a reader sees it at once."""
        self.stream.write(_line(event, ascii_only=True))
        self.stream.flush()


class EventFile:
    """A sink that appends to ``events.jsonl``, with a timestamp on every line."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __call__(self, event: Event) -> None:
        """Append one line, whole or not at all.

        Raises:
            StorageError: the file cannot be written.
        """
        line = _line({"time": round(time.time(), 2), **event}, ascii_only=False).encode()
        try:
            with self.path.open("ab", buffering=0) as file:
                before = file.seek(0, os.SEEK_END)
                if file.write(line) < len(line):
                    file.truncate(before)
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            raise StorageError(f"{self.path} cannot be written ({error.strerror}): free space, then resume.") from error


class Terminal:
    """A sink for people: one bar per phase, messages on lines of their own."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self.stream = stream or sys.stderr
        self._open, self._told = "", ("", -1)

    def __call__(self, event: Event) -> None:
        """Draw the bar or print the sentence."""
        if event["event"] == "progress":
            self._bar(event)
        elif event["event"] == "message":
            self._end_line()
            self.stream.write(f"{'Warning: ' if event['level'] == 'warning' else ''}{event['text']}\n")
        self.stream.flush()

    def _bar(self, event: Event) -> None:
        if event["phase"] != self._open:
            self._end_line()
        share = min(event["step"] / max(event["of"], 1), 1)
        bar = ("█" * round(24 * share)).ljust(24, "·")
        self.stream.write(f"\r{event['phase']:<10} {bar} {_standing(event)}\x1b[K")
        self._open = event["phase"]
        if event["step"] >= event["of"]:
            self._end_line()

    def _end_line(self) -> None:
        if self._open:
            self.stream.write("\n")
        self._open = ""


class PlainLines(Terminal):
    """A sink for people who read a log file: a line of its own whenever a tenth of a phase is done."""

    def _bar(self, event: Event) -> None:
        tenth = (event["phase"], 10 * event["step"] // max(event["of"], 1))
        if tenth != self._told:
            self.stream.write(f"{event['phase']:<10} {_standing(event).rstrip()}\n")
        self._told = tenth


def _standing(event: Event) -> str:
    left = "" if event["eta_s"] is None else f"  {_clock(event['eta_s'])} left"
    loss = "  ".join(f"{name} {value:.3f}" for name, value in event["loss"].items())
    return f"{event['step']}/{event['of']}{left}  {loss}"


def for_people(stream: TextIO | None = None) -> Terminal:
    """Bars on a terminal, plain lines into a file or pipe (default: stderr)."""
    stream = stream or sys.stderr
    return Terminal(stream) if stream.isatty() else PlainLines(stream)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}" if minutes >= 60 else f"{minutes}:{rest:02}"
