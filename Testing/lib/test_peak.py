"""Peak memory: of a piece of work, not of all that the process ever did."""

from __future__ import annotations

import sys
import types
from pathlib import Path

import numpy as np
import pytest

from IncrementalSegLib import peak
from IncrementalSegLib.peak import peak_memory_mb, reset_peak_memory


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only Linux can begin to measure anew")
def test_measuring_begins_anew():
    before = peak_memory_mb()
    large = np.ones(40 * 2**20)  # 320 MB
    grown = peak_memory_mb()
    del large
    reset_peak_memory()
    assert grown > before + 250 or grown > peak_memory_mb() + 250
    assert peak_memory_mb() < grown - 250


def test_memory_of_a_gpu_counts_where_it_is_more(monkeypatch):
    reset: list[bool] = []
    cuda = types.SimpleNamespace(
        is_available=lambda: True,
        max_memory_allocated=lambda: 2**40,
        reset_peak_memory_stats=lambda: reset.append(True),
    )
    monkeypatch.setitem(sys.modules, "torch", types.SimpleNamespace(cuda=cuda))
    reset_peak_memory()
    assert reset and peak_memory_mb() == 2**20


def test_a_platform_that_does_not_tell_gives_no_number(monkeypatch):
    monkeypatch.setattr(peak.Path, "read_text", lambda *args, **options: "")
    monkeypatch.setattr(peak.sys, "platform", "win32")
    monkeypatch.setitem(sys.modules, "torch", None)
    assert peak_memory_mb() == 0.0
