"""Review: a model, and the one before it, on scans that neither was trained on; report, table and pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
import torch

from .cases import Case
from .evaluation import OrganScore, agreement, mean_per_organ, organ_volumes, score_case, summarise
from .events import Reporter
from .figures import plot_organ_bars, plot_planes
from .inference import predict_label_map
from .models.networks import device_named
from .models.package import Model
from .peak import peak_memory_mb
from .report import build_report, organ_reports, write_report
from .volumes import oriented, to_array, to_image


@dataclass(frozen=True)
class Preview:
    """One case as it is shown: CT in HU and label maps by title, all images on the CT's grid."""

    ct: sitk.Image
    maps: dict[str, sitk.Image]


@dataclass
class Review:
    """Scores of a model, and of the ``old`` one where there is one, on the same cases; the first case for pictures."""

    new: Model
    old: Model | None
    device: torch.device
    before: list[OrganScore] = field(default_factory=list)
    after: list[OrganScore] = field(default_factory=list)
    agreements: list[dict[str, float | None]] = field(default_factory=list)
    volumes: list[dict[str, float | None]] = field(default_factory=list)
    preview: Preview | None = None

    def report(self, strategy: str, train_cases: int, seconds: float) -> dict[str, Any]:
        """The content of ``report.json``."""
        organs = organ_reports(
            self.new.organs,
            self.old.organs.keys if self.old else (),
            summarise(self.before),
            summarise(self.after),
            mean_per_organ(self.agreements),
            mean_per_organ(self.volumes),
        )
        cases = (train_cases, len(self.volumes))
        synthetic = self.new.history[-1].get("synthetic") if self.new.history else None
        return build_report(strategy, organs, cases, seconds, peak_memory_mb(self.device), synthetic)


def review(new: Model, old: Model | None, cases: Sequence[Case], device: str, reporter: Reporter) -> Review:
    """Predict every case with both models and score what is annotated in it; one case is in memory at a time."""
    done = Review(new, old, device_named(device))
    for number, case in enumerate(cases, start=1):
        _review_case(done, case, reporter)
        reporter.progress("evaluate", number, len(cases))
    return done


def _review_case(done: Review, case: Case, reporter: Reporter) -> None:
    ct, label = case.read()
    images = {"after": predict_label_map(done.new, ct, done.device, reporter)}
    if done.old:
        images = {"before": predict_label_map(done.old, ct, done.device, reporter)} | images
    maps = {title: to_array(image) for title, image in images.items()}
    spacing = ct.GetSpacing()
    done.volumes.append(dict(organ_volumes(maps["after"], done.new.organs, spacing)))
    if label is not None:
        truth, known = to_array(label), (case.annotated, case.labels)
        done.after += score_case(case.name, maps["after"], truth, done.new.organs, spacing, *known)
        if done.old:
            done.before += score_case(case.name, maps["before"], truth, done.old.organs, spacing, *known)
        values = np.array([0, *(organ.label for organ in done.new.organs)], np.uint16)
        images["annotation"] = to_image(values[case.channels(truth, done.new.organs)], ct)
    if done.old:
        pair = maps["before"], maps["after"]
        done.agreements.append(agreement(*pair, done.old.organs, done.new.organs, done.old.organs.keys))
    done.preview = done.preview or Preview(ct, images)


def write_review(
    done: Review,
    report: Mapping[str, Any],
    folder: Path,
    pictures: Path,
    reporter: Reporter,
    extra: Mapping[str, Mapping[str, float | None]] | None = None,
    caption: str = "",
) -> None:
    """Write ``report.json`` and ``.csv``, and ``dsc.png`` and ``planes.png`` where there is something to show.

    ``extra`` adds series of DSC per organ name to the bars; ``caption`` is a line under the planes.
    """
    write_report(report, folder)
    if not done.preview:
        return
    if find_spec("matplotlib") is None:
        reporter.message("No pictures were made: pip install IncrementalSegLib[figures] adds them.", "warning")
        return
    pictures.mkdir(parents=True, exist_ok=True)
    plot_organ_bars(report, pictures / "dsc.png", extra)
    _plot_preview(done, pictures / "planes.png", caption)


def _plot_preview(done: Review, path: Path, caption: str) -> None:
    assert done.preview
    ct = oriented(done.preview.ct)
    maps = {title: to_array(oriented(image)) for title, image in done.preview.maps.items()}
    if any(labels.any() for labels in maps.values()):
        newest = done.new.organs.organs[-1]
        reference = newest.name if any((labels == newest.label).any() for labels in maps.values()) else None
        window = done.new.preprocessing.window
        plot_planes(
            to_array(ct), maps, done.new.organs, ct.GetSpacing(), path, window, reference=reference, caption=caption
        )
