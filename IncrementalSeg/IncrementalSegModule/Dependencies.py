"""The Python packages that the worker needs: what is there, what is missing, how it is installed on request.

Nothing here imports them: torch takes seconds and gigabytes.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import platform
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

import slicer
from slicer.i18n import tr as _

from IncrementalSegLib import __version__
from IncrementalSegLib.errors import IncrementalSegError

from .Paths import libraryFolder
from .Process import pythonProgram

TORCH = "torch"
_LEAST = {TORCH: (2, 6), "monai": (1, 5), "SimpleITK": (2, 4), "scipy": (1, 13), "numpy": (2, 0), "matplotlib": (3, 9)}
_KEPT = (TORCH, "numpy", "SimpleITK", "scipy")  # what no installation of ours may replace where it is new enough


def version(name: str) -> str:
    """The installed version, empty where there is none."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""


def missing() -> list[str]:
    """Packages that are not installed or too old."""
    return [name for name, least in _LEAST.items() if _number(version(name)) < least]


def _number(text: str) -> tuple[int, ...]:
    parts = text.partition("+")[0].split(".")[:2]
    return tuple(int(part) for part in parts if part.isdigit())


def sentence(names: Iterable[str]) -> str:
    """What the panel says of the environment."""
    names = list(names)
    if not names:
        return _("All Python packages are installed.")
    return _("To predict and to learn, these Python packages are still needed: {names}.").format(names=", ".join(names))


def constraints(folder: Path) -> Path:
    """A pip constraints file that pins what is installed and can stay, so that no other package can replace it."""
    path = folder / "constraints.txt"
    kept = set(_KEPT) - set(missing())
    pins = [f"{name}=={version(name).partition('+')[0]}" for name in sorted(kept)]
    path.write_text("\n".join(pins) + "\n", encoding="utf-8")
    return path


def install(names: Iterable[str]) -> None:
    """Install packages into Slicer's Python; torch only through the PyTorch extension.

    Raises:
        IncrementalSegError: torch is wanted and the extension is not installed, or pip failed.
    """
    names = list(names)
    if TORCH in names:
        _installTorch()
    wanted = [f"{name}>={'.'.join(map(str, _LEAST[name]))}" for name in names if name != TORCH]
    if not wanted:
        return
    with tempfile.TemporaryDirectory() as folder:
        pins = constraints(Path(folder))
        try:
            if hasattr(slicer, "packaging"):
                slicer.packaging.pip_install(wanted, constraints=str(pins))
            else:
                slicer.util.pip_install(["--constraint", str(pins), *wanted])
        except Exception as error:  # pip's failures have no type of their own
            raise IncrementalSegError(
                _("pip could not install {names}: {error}").format(names=wanted, error=error)
            ) from error


def _installTorch() -> None:
    if sys.platform == "darwin" and platform.machine() == "x86_64":
        raise IncrementalSegError(
            _("PyTorch is made neither for Intel Macs any more nor for Slicer's Intel build: use another machine.")
        )
    if importlib.util.find_spec("PyTorchUtils") is None:
        raise IncrementalSegError(
            _("PyTorch comes with the extension 'PyTorch': install it in the Extensions Manager, restart, try again.")
        )
    import PyTorchUtils

    least = ".".join(map(str, _LEAST[TORCH]))
    if (
        PyTorchUtils.PyTorchUtilsLogic().installTorch(askConfirmation=True, torchVersionRequirement=f">={least}")
        is None
    ):
        raise IncrementalSegError(_("PyTorch was not installed."))


def report() -> str:
    """Versions and paths, for a bug report."""
    lines = [
        f"IncrementalSeg {__version__} ({libraryFolder()})",
        f"Slicer {slicer.app.applicationVersion}",
        f"Python {platform.python_version()} ({pythonProgram()}; {sys.executable})",
        platform.platform(),
        *(f"{name} {version(name) or 'missing'}" for name in _LEAST),
    ]
    return "\n".join(lines)
