"""The worker's process: bytes in pieces, noise, crashes, a program that is not there, one that does not stop."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
import time
import unittest
from pathlib import Path

import slicer


class ProcessTest(unittest.TestCase):
    def setUp(self) -> None:
        from IncrementalSegModule import Process

        self.module = Process
        self.folder = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.folder, True)
        self.addCleanup(setattr, Process, "pythonProgram", Process.pythonProgram)
        self.addCleanup(setattr, Process, "GRACE_MS", Process.GRACE_MS)
        self.process = Process.QtWorkerProcess()
        self.events: list[dict] = []
        self.ended: list[tuple[int, str]] = []

    def run_(self, script: str) -> None:
        """Start a shell script in Python's place."""
        program = self.folder / "program"
        program.write_text("#!/bin/sh\n" + script)
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        self.module.pythonProgram = lambda: str(program)
        self.process.start(["verb"], self.events.append, lambda code, errors: self.ended.append((code, errors)))

    def wait(self, condition, seconds: float = 20.0) -> None:
        end = time.monotonic() + seconds
        while not condition() and time.monotonic() < end:
            slicer.app.processEvents()
            time.sleep(0.01)
        self.assertTrue(condition())

    @unittest.skipIf(os.name == "nt", "shell scripts")
    def test_a_letter_that_comes_in_two_pieces_is_whole(self) -> None:
        self.run_('printf \'{"event": "message", "text": "M\\303\'; sleep 0.3; printf \'\\251di"}\\n\'')
        self.wait(lambda: self.ended)
        self.assertEqual(self.events, [{"event": "message", "text": "Médi"}])
        self.assertEqual(self.ended, [(0, "")])

    @unittest.skipIf(os.name == "nt", "shell scripts")
    def test_what_is_no_event_is_passed_over(self) -> None:
        self.run_("echo noise; echo '[1]'; echo '{\"a\": 1}'; echo '{\"event\": \"x\"}'; printf '\\377\\n'")
        self.wait(lambda: self.ended)
        self.assertEqual(self.events, [{"event": "x"}])

    @unittest.skipIf(os.name == "nt", "shell scripts")
    def test_exit_code_and_the_last_words_are_told_once(self) -> None:
        self.run_("echo 'Error: no.' >&2; exit 3")
        self.wait(lambda: self.ended)
        slicer.app.processEvents()
        self.assertEqual(self.ended, [(3, "Error: no.")])
        self.assertFalse(self.process.running)

    @unittest.skipIf(os.name == "nt", "shell scripts")
    def test_a_crash_is_told_once_as_a_failure(self) -> None:
        self.run_("kill -SEGV $$")
        self.wait(lambda: self.ended)
        time.sleep(0.1)
        slicer.app.processEvents()
        self.assertEqual([code for code, _ in self.ended], [-1])

    def test_a_program_that_is_not_there_is_told(self) -> None:
        self.module.pythonProgram = lambda: str(self.folder / "nothing")
        self.process.start([], self.events.append, lambda code, errors: self.ended.append((code, errors)))
        self.wait(lambda: self.ended)
        self.assertEqual(self.ended[0][0], -1)
        self.assertIn("could not be started", self.ended[0][1])

    @unittest.skipIf(os.name == "nt", "shell scripts")
    def test_cancel_closes_stdin_and_then_ends_a_worker_that_does_not_listen(self) -> None:
        self.module.GRACE_MS = 300
        self.run_('sleep 60 & echo "{\\"event\\": \\"process\\", \\"pid\\": $!}"; echo \'{"event": "up"}\'; wait')
        self.wait(lambda: self.events)
        pid = self.process._worker
        self.process.cancel()
        self.wait(lambda: self.ended)
        self.wait(lambda: not _alive(pid))
        self.assertEqual(self.ended, [(130, "")], "the user stopped it: that is no failure")

    @unittest.skipIf(os.name == "nt", "shell scripts")
    def test_a_launcher_is_ended_also_where_its_worker_cannot_be(self) -> None:
        self.module.GRACE_MS = 300
        self.run_('echo "{\\"event\\": \\"process\\", \\"pid\\": 1}"; echo \'{"event": "up"}\'; exec sleep 60')
        self.wait(lambda: self.events)
        real, self.tried = os.kill, []
        self.addCleanup(setattr, os, "kill", real)

        def refused(pid: int, number: int) -> None:
            self.tried.append(pid)
            raise SystemError("returned a result with an exception set")

        os.kill = refused
        self.process.cancel()
        self.wait(lambda: self.ended)
        self.assertEqual((self.tried, self.ended), ([1], [(130, "")]))

    @unittest.skipIf(os.name == "nt", "shell scripts")
    def test_what_goes_wrong_after_cancel_is_told(self) -> None:
        self.run_("echo '{\"event\": \"up\"}'; cat > /dev/null; echo 'Error: the disk is full.' >&2; exit 4")
        self.wait(lambda: self.events)
        self.process.cancel()
        self.wait(lambda: self.ended)
        self.assertEqual(self.ended, [(4, "Error: the disk is full.")])

    @unittest.skipIf(os.name == "nt", "shell scripts")
    def test_a_worker_that_listens_ends_by_itself_at_cancel(self) -> None:
        self.run_('echo \'{"event": "up"}\'; cat > /dev/null; exit 130')
        self.wait(lambda: self.events)
        self.process.cancel()
        self.wait(lambda: self.ended, 5)
        self.assertEqual(self.ended, [(130, "")])


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except OSError:
        return False
    state = Path(f"/proc/{pid}/stat")
    return not (state.exists() and state.read_text().rsplit(")", 1)[1].split()[0] == "Z")


if __name__ == "__main__":
    unittest.main()
