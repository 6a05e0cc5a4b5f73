"""Two processes on one library, as two Slicers are: nothing is lost, and nobody changes it under another's hands."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from test_library import _complete, _nothing_half_written, _package, _tree, candidate, models

from IncrementalSegLib import library
from IncrementalSegLib.library import ModelLibrary
from IncrementalSegLib.lock import locked

__all__ = ["candidate", "models"]  # fixtures


_ACCEPT = """
import sys
from pathlib import Path
from IncrementalSegLib.library import ModelLibrary
home, candidate, times = sys.argv[1:]
models = ModelLibrary(home, verify=lambda package: None)
print("ready", flush=True)
sys.stdin.readline()
for _ in range(int(times)):
    models.accept(candidate, "Abdomen")
assert "torch" not in sys.modules
"""


def test_two_processes_that_accept_at_once_lose_nothing(tmp_path):
    candidates = [_package(tmp_path / who, weights=who) for who in ("one", "two")]
    home, times = tmp_path / "home", 20
    environment = os.environ | {"PYTHONPATH": str(Path(library.__file__).parents[1])}
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", _ACCEPT, str(home), str(candidate), str(times)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for candidate in candidates
    ]
    assert [worker.stdout.readline() for worker in workers] == ["ready\n"] * 2
    for worker in workers:
        worker.stdin.write("go\n")
        worker.stdin.flush()
    for worker in workers:
        worker.communicate(timeout=60)
    assert [worker.returncode for worker in workers] == [0, 0]
    models = ModelLibrary(home, verify=_complete)
    everything = list(range(1, 2 * times + 1))
    assert models.versions("Abdomen") == everything
    assert [change.version for change in models.history("Abdomen")] == everything
    assert models.current_version("Abdomen") == 2 * times
    weights = [
        (home / "models" / "Abdomen" / f"v{n:04d}" / "models" / "model.pt").read_text(encoding="utf-8")
        for n in everything
    ]
    assert sorted(weights) == ["one"] * times + ["two"] * times


_CHANGE = """
import sys
from IncrementalSegLib.library import ModelLibrary
home, candidate, change = sys.argv[1:]
models = ModelLibrary(home, verify=lambda package: None)
print("ready", flush=True)
if change == "accept":
    models.accept(candidate, "Abdomen")
elif change == "revert":
    models.revert("Abdomen", 1)
else:
    models.delete("Abdomen", None if change == "delete" else 1)
"""


@pytest.mark.parametrize("change", ["accept", "revert", "delete", "delete one version"])
def test_another_process_changes_nothing_before_this_one_lets_the_lock_go(models, candidate, change):
    models.accept(candidate, "Abdomen")
    models.accept(candidate, "Abdomen")
    before = _tree(models.home / "models")
    with locked(models.home / ".lock"):
        other = subprocess.Popen(
            [sys.executable, "-c", _CHANGE, str(models.home), str(candidate), change],
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": str(Path(library.__file__).parents[1])},
        )
        assert other.stdout.readline() == "ready\n"
        with pytest.raises(subprocess.TimeoutExpired):
            other.wait(1.0)
        seen = _tree(models.home / "models")
        assert {name: content for name, content in seen.items() if not name.startswith(".partial_")} == before
    other.communicate(timeout=60)
    assert other.returncode == 0
    assert _tree(models.home / "models") != before and _nothing_half_written(models)
