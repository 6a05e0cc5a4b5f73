"""The starter model: what those can grow who have no model of their own."""

from __future__ import annotations

from pathlib import Path

from .errors import InputError

STARTER = "starter"  # its name where a model is asked for
_PLACE = Path("Resources") / "Models" / "Abdomen"


def starter_model() -> Path:
    """The folder of the starter model's package, which lies beside this library in the repository and the extension.

    Raises:
        InputError: this installation came without it.
    """
    folder = Path(__file__).resolve().parents[1] / _PLACE
    if not (folder / "checksums.json").exists():
        raise InputError(
            f"The starter model is not part of this installation ({folder} is missing): take it from the extension or "
            "the repository, or train a model of your own with  incrementalseg train."
        )
    return folder
