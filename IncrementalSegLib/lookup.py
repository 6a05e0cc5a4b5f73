"""Which model is meant: a folder, a name in the user's library, or the starter model."""

from __future__ import annotations

from pathlib import Path

from .errors import InputError
from .library import ModelLibrary
from .starter import STARTER, starter_model


def model_folder(given: Path) -> Path:
    """The package folder of a package folder, a job folder (its candidate), a name in the library, or ``starter``.

    Raises:
        InputError: there is no such model, or the job has not finished one.
    """
    if (given / "model" / "checksums.json").exists():
        return given / "model"
    if (given / "job.json").exists():
        raise InputError(f"The job {given} has no finished model: go on with it (incrementalseg resume {given}).")
    if given.exists():
        return given
    library = ModelLibrary()
    if str(given) in library.names():
        return library.current(str(given))
    if str(given) == STARTER:
        return starter_model()
    known = ", ".join([*library.names(), STARTER])
    raise InputError(f"{given} is neither a model package nor a model of your library (it has: {known}).")
