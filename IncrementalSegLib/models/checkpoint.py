"""Safe checkpoints: written whole or not at all, read without ever running code from the file."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch

from ..errors import PackageError
from ..storage import write_atomically


def save_state(path: Path, state: Any) -> None:
    """Save tensors and plain values atomically; equal content gives equal bytes."""

    def write(partial: Path) -> None:
        with partial.open("wb") as file:  # through a handle, since torch writes a path's name into the archive
            torch.save(state, file)

    write_atomically(path, write)


def load_state(path: Path) -> Any:
    """Load tensors and plain values onto the CPU; code in the file is never executed.

    Raises:
        PackageError: missing, truncated, or holding anything but tensors and plain values.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise PackageError(f"{path} is missing: copy the whole folder again.") from error
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError) as error:
        raise PackageError(
            f"{path} is damaged or holds more than weights; it was not loaded: copy it again."
        ) from error
