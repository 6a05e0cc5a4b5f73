"""Peak memory of a piece of work in this process, on the CPU or the GPU."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path

import torch


def reset_peak_memory(device: torch.device) -> None:
    """Begin to measure anew, where the platform can (Linux, CUDA)."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    if device.type == "cuda":
        torch.cuda.init()
        torch.cuda.reset_peak_memory_stats(device)


def peak_memory_mb(device: torch.device) -> float:
    """The most memory since `reset_peak_memory`, in MB: that torch reserved on a GPU, else what was resident.

    Where measuring cannot begin anew it is the largest of this process so far, 0 where the platform does not tell.
    """
    return torch.cuda.max_memory_reserved(device) / 2**20 if device.type == "cuda" else _resident_mb()


def _resident_mb() -> float:
    with suppress(OSError, StopIteration):
        status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
        return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) / 1024
    if sys.platform == "win32":
        return 0.0
    import resource

    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used / (1024 * 1024 if sys.platform == "darwin" else 1024)
