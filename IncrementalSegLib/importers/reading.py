"""Which tool a model comes from, and the way from its files to our `Model`."""

from __future__ import annotations

from pathlib import Path

from ..errors import InputError
from ..events import Reporter
from ..models.package import Model
from .archive import opened
from .auto3dseg import import_auto3dseg, is_auto3dseg
from .monai_bundle import CANNOT_GROW, import_bundle, is_bundle
from .nnunet import import_nnunet, is_nnunet

_KINDS = ((is_bundle, import_bundle), (is_auto3dseg, import_auto3dseg), (is_nnunet, import_nnunet))
_ORIENTATIONS = ("RAS", "LPS", "LAS", "RPS")


def import_model(source: Path | str, reporter: Reporter | None = None, orientation: str = "RAS") -> Model:
    """A model of another tool: a MONAI bundle, an Auto3DSeg model or a trained nnU-Net, as folder or zip file.

    Args:
        source: the folder, one that holds nothing but it, or a zip file of either.
        reporter: is told what the user should know of the model.
        orientation: how the scans lay that it was trained on, where the model does not say.

    Raises:
        InputError: none of these, incomplete, or it asks for what is not supported; the sentence says what.
        PackageError: its weights are damaged, hold more than weights, or do not fit.
    """
    if orientation not in _ORIENTATIONS:
        raise InputError(f"Orientation '{orientation}': choose one of {', '.join(_ORIENTATIONS)}.")
    source = Path(source)
    if source.is_file() and source.suffix == ".ts":
        raise InputError(f"{source} is TorchScript, {CANNOT_GROW}")
    with opened(source) as folder:
        place = _deepened(folder)
        for looks, read in _KINDS:
            if looks(place):
                model, notes = read(place, orientation)
                for note in notes:
                    (reporter or Reporter()).message(note)
                return model
    raise InputError(
        f"{source} is no model that can be read: give a MONAI bundle (configs/metadata.json), an Auto3DSeg model "
        "(model.pt and labels.csv) or a trained nnU-Net configuration (plans.json, dataset.json and fold_0)."
    )


def _deepened(folder: Path) -> Path:
    """The folder itself, or the only folder of a model below it."""
    found = [folder] if any(looks(folder) for looks, _ in _KINDS) else []
    below = sorted(
        {path.parent for path in folder.glob("*/plans.json")}
        | {p.parents[1] for p in folder.glob("*/configs/metadata.json")}
    )
    candidates = found or below
    if len(candidates) > 1:
        raise InputError(
            f"{folder} holds several models ({', '.join(path.name for path in candidates)}): give one of them."
        )
    return candidates[0] if candidates else folder
