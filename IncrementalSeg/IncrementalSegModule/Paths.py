"""Where the library and the user's job folders lie."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path


def libraryFolder() -> Path:
    """The folder that holds IncrementalSegLib: beside this module in the extension, its parent in a source tree."""
    module = Path(__file__).resolve().parents[1]
    return next((place for place in (module, module.parent) if (place / "IncrementalSegLib").is_dir()), module)


def makeLibraryImportable() -> None:
    """Put the library on ``sys.path`` where it is not found by itself.

    Raises:
        ModuleNotFoundError: this installation came without it.
    """
    if importlib.util.find_spec("IncrementalSegLib") is None:
        sys.path.append(str(libraryFolder()))
    if importlib.util.find_spec("IncrementalSegLib") is None:
        raise ModuleNotFoundError(
            f"IncrementalSegLib was not found in {libraryFolder()}: install the extension again, or add the folder "
            "that holds both to Slicer's additional module paths."
        )


def forgetPanel() -> None:
    """Have the files of this package read anew by the next import."""
    package = __name__.partition(".")[0]
    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        del sys.modules[name]


def jobsFolder() -> Path:
    """Where updates keep their files."""
    from IncrementalSegLib.library import default_home

    return default_home() / "jobs"
