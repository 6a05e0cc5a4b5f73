"""Peak memory: of a piece of work, not of all that the process ever did."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from IncrementalSegLib import peak
from IncrementalSegLib.peak import peak_memory_mb, reset_peak_memory

CPU = torch.device("cpu")


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only Linux can begin to measure anew")
def test_measuring_begins_anew():
    before = peak_memory_mb(CPU)
    large = np.ones(40 * 2**20)  # 320 MB
    grown = peak_memory_mb(CPU)
    del large
    reset_peak_memory(CPU)
    assert grown > before + 250 or grown > peak_memory_mb(CPU) + 250
    assert peak_memory_mb(CPU) < grown - 250


def test_memory_of_a_gpu_is_what_torch_reserved_on_that_gpu_and_nothing_of_the_host(monkeypatch):
    asked: list[tuple[str, torch.device | None]] = []
    second = torch.device("cuda", 1)
    monkeypatch.setattr(torch.cuda, "init", lambda: asked.append(("init", None)))
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: asked.append(("reset", device)))
    monkeypatch.setattr(torch.cuda, "max_memory_reserved", lambda device: 2**20 if device == second else 2**40)
    reset_peak_memory(second)
    assert asked == [("init", None), ("reset", second)]
    assert peak_memory_mb(second) == 1.0 < peak_memory_mb(CPU)


def test_a_platform_that_does_not_tell_gives_no_number(monkeypatch):
    monkeypatch.setattr(peak.Path, "read_text", lambda *args, **options: "")
    monkeypatch.setattr(peak.sys, "platform", "win32")
    assert peak_memory_mb(CPU) == 0.0
