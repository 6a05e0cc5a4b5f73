"""The benchmark of what prototype guidance costs."""

from __future__ import annotations

import csv

import pytest

from IncrementalSegLib.benchmarks import overhead
from IncrementalSegLib.benchmarks.overhead import COLUMNS, main

pytestmark = pytest.mark.usefixtures("one_thread")


def test_both_strategies_take_every_batch_in_turn_and_the_ratio_is_that_of_medians(tmp_path, capsys, monkeypatch):
    clock = iter(range(1000))
    taken: list[tuple[str, int]] = []
    monkeypatch.setattr(overhead.time, "perf_counter", lambda: float(next(clock)))

    def stepper(strategy, *rest):
        def step(batch):
            taken.append((strategy.name, int(batch.target.sum())))
            if strategy.guided:
                next(clock)

        return step

    monkeypatch.setattr(overhead, "_stepper", stepper)
    command = ["--out", str(tmp_path), "--patch", "32", "--repetitions", "2", "--device", "cpu"]
    assert main(command) == 0
    assert [name for name, _ in taken] == ["pgcd-dapd", "mib"] * 3 and taken[0][1] > 0
    (row,) = csv.DictReader((tmp_path / "speed.csv").read_text(encoding="utf-8").splitlines())
    assert tuple(row) == COLUMNS
    assert (row["ours_s"], row["alternative_s"], row["ratio"]) == ("2.0", "1.0", "2.0")
    assert "| training step, pgcd-dapd | mib |" in capsys.readouterr().out


def test_a_real_step_of_each_runs(tmp_path):
    assert main(["--out", str(tmp_path), "--patch", "32", "--repetitions", "1", "--device", "cpu"]) == 0
    (row,) = csv.DictReader((tmp_path / "speed.csv").read_text(encoding="utf-8").splitlines())
    assert float(row["ours_s"]) > 0 and float(row["alternative_s"]) > 0


def test_refuses_an_unknown_strategy(tmp_path, capsys):
    assert main(["--out", str(tmp_path), "--ours", "magic", "--device", "cpu"]) == 2
    assert "Strategy 'magic' is not known" in capsys.readouterr().err
