"""Inversion images: synthetic scans that a model makes up, as thumbnails and in the scene."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import qt
import SimpleITK as sitk
import slicer
from slicer.i18n import tr as _

from IncrementalSegLib.errors import InputError
from IncrementalSegLib.organs import OrganTable

from .Process import CANCELLED, QtWorkerProcess, WorkerProcess
from .SegmentationIO import segmentationOf
from .Update import Progress, lastSentence

THUMBNAIL = 100  # pixels; three beside each other in the panel
_WINDOW = (-160.0, 240.0)  # HU


@dataclass(frozen=True)
class Dream:
    """One synthetic scan with what the model sees in it."""

    ct: Path

    @property
    def name(self) -> str:
        """What the gallery calls it."""
        return _("Synthetic {number}").format(number=self.ct.name.split("_")[1].lstrip("0"))

    @property
    def labels(self) -> Path:
        """The label map's file."""
        return self.ct.with_name(self.ct.name.replace("_ct.", "_seg."))


class Dreams:
    """Makes inversion images in the worker; ``onProgress`` at every event, ``onChanged`` when it begins and ends."""

    def __init__(
        self, onProgress: Callable[[], None], onChanged: Callable[[], None], process: WorkerProcess | None = None
    ) -> None:
        self.process = process or QtWorkerProcess()
        self.onProgress, self.onChanged = onProgress, onChanged
        self.progress, self.failure = Progress(), ""
        self.folder = Path()  # the job folder that the images go to

    @property
    def running(self) -> bool:
        """Whether the worker dreams."""
        return self.process.running

    def make(self, model: Path, folder: Path, count: int) -> None:
        """Have ``count`` images made of a model, in a new folder below ``folder``."""
        self.progress, self.failure, self.folder = Progress(), "", folder
        number = len(list(folder.glob("inversion*"))) + 1
        out = ["--out", str(folder / f"inversion{number}"), "--count", str(count), "--seed", str(number)]
        self.process.start(["synthesize", "--model", str(model), *out, "--json"], self._heard, self._ended)
        self.onChanged()

    def cancel(self) -> None:
        """Stop dreaming."""
        self.process.cancel()

    def _heard(self, event: dict[str, Any]) -> None:
        self.progress.take(event)
        self.onProgress()

    def _ended(self, code: int, errors: str) -> None:
        if code not in (0, CANCELLED):
            self.failure = lastSentence(errors) or _("The worker ended unexpectedly.")
        self.onChanged()


def dreamsIn(folder: Path) -> list[Dream]:
    """Every whole inversion image below a job folder: one whose worker was killed may lack its labels."""
    found = [Dream(path) for path in sorted(folder.glob("inversion*/synthetic_*_ct.nii.gz"))]
    return [dream for dream in found if dream.labels.exists()]


def thumbnail(dream: Dream, organs: OrganTable) -> Any:
    """The axial slice that shows most of the organs, in grey with the organs' colours over it."""
    ct, labels = (sitk.GetArrayFromImage(sitk.ReadImage(str(path))) for path in (dream.ct, dream.labels))
    at = int((labels > 0).sum(axis=(1, 2)).argmax())
    low, high = _WINDOW
    grey = np.clip((ct[at].astype(np.float32) - low) / (high - low), 0, 1) * 255
    picture = np.repeat(grey[..., None], 3, axis=2)
    for organ in organs:
        inside = labels[at] == organ.label
        picture[inside] = 0.65 * picture[inside] + 0.35 * np.array(organ.color)
    return _pixmap(picture.astype(np.uint8))


def _pixmap(rgb: np.ndarray) -> Any:
    """An RGB array (rows, columns, 3) as a pixmap of the gallery's size, by way of a file's bytes."""
    rows, columns, _channels = rgb.shape
    data = qt.QByteArray(f"P6 {columns} {rows} 255\n".encode() + rgb.tobytes())
    pixmap = qt.QPixmap()
    if not pixmap.loadFromData(data, "PPM"):
        raise InputError(_("A thumbnail could not be drawn."))
    return pixmap.scaled(THUMBNAIL, THUMBNAIL, qt.Qt.KeepAspectRatio, qt.Qt.SmoothTransformation)


def load(dream: Dream, organs: OrganTable, title: str) -> list[Any]:
    """Load an image and its labels into the scene: a volume and a segmentation."""
    name = _("{name} of {title} (no patient)").format(name=dream.name, title=title)
    volume = slicer.util.loadVolume(str(dream.ct), {"name": name, "show": False})
    segmentation = segmentationOf(sitk.ReadImage(str(dream.labels)), organs, f"{name}: organs", volume)
    return [volume, segmentation]
