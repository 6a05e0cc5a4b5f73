"""The survey: what the old model sees on the step's scans, before anything is learned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import nn

from ..errors import InputError
from ..events import Reporter
from ..inference import probabilities
from ..models.checkpoint import load_state, save_state
from ..models.package import Model
from ..organs import OrganTable
from .objectives import Thresholds, normalised_entropy
from .patches import CachedCase, save_array

_BINS = 1000
_ENTROPY_FLOOR = 0.001  # PLOP, Douillard et al. 2021, §3.3
_LEAST_CONFIDENCE, _MOST_CONFIDENCE = 0.5, 0.9


@dataclass(frozen=True)
class Survey:
    """Old-organ predictions (uint8 channels, (x, y, z)) by case key and the thresholds measured on them."""

    predictions: dict[str, np.ndarray]
    thresholds: Thresholds


def survey(model: Model, cases: Sequence[CachedCase], folder: Path, device: torch.device, reporter: Reporter) -> Survey:
    """Predict every training scan with the old model; resumes from what ``folder`` already holds.

    Thresholds per class: the median confidence, within 0.5 to 0.9 (our formulation), and the median normalised entropy,
    at least 0.001 (PLOP §3.3).
    """
    network = model.network.to(device).eval()
    histograms = torch.zeros(2, model.classes, _BINS)
    for number, case in enumerate(cases, start=1):
        measured = folder / f"{case.key}.pt"
        if not measured.exists():
            labels, counts = _survey_case(model, network, case, device, reporter)
            save_array(folder / f"{case.key}.npy", labels)
            save_state(measured, counts)
        histograms += load_state(measured)
        reporter.progress("survey", number, len(cases))
    predictions = {case.key: np.load(folder / f"{case.key}.npy", mmap_mode="r") for case in cases}
    return Survey(predictions, _thresholds(histograms))


def _survey_case(
    model: Model, network: nn.Module, case: CachedCase, device: torch.device, reporter: Reporter
) -> tuple[np.ndarray, torch.Tensor]:
    image = torch.from_numpy(model.preprocessing.normalise(case.image))
    warn = partial(reporter.message, level="warning")
    q = probabilities(network, image, model.patch, device, reporter.check, warn)[None]
    confidence, label = q.max(1)
    measures = (confidence, normalised_entropy(q))
    unlabelled = torch.from_numpy(np.asarray(case.target) == 0)[None]
    histograms = torch.zeros(2, model.classes, _BINS)
    for i, measure in enumerate(measures):
        for c in range(model.classes):
            values = measure[(label == c) & unlabelled]
            histograms[i, c] = torch.histc(values, _BINS, 0, 1)
    return label[0].to(torch.uint8).numpy(), histograms


def _thresholds(histograms: torch.Tensor) -> Thresholds:
    """Medians of confidence and entropy per class from histograms (2, 1 + K, bins)."""
    cumulative = histograms.cumsum(-1)
    half = cumulative[..., -1:] / 2
    medians = ((cumulative < half).sum(-1) + 0.5) / _BINS
    confidence = medians[0].clamp(_LEAST_CONFIDENCE, _MOST_CONFIDENCE)
    return Thresholds(confidence, medians[1].clamp(min=_ENTROPY_FLOOR))


def question_overlaps(
    cases: Sequence[CachedCase], survey: Survey, organs: OrganTable, old: int, share: float = 0.2
) -> None:
    """Refuse an annotation that covers much of an old organ's prediction without naming it as its parent (method §1).

    Raises:
        InputError: names both organs and how to go on.
    """
    for channel, organ in enumerate(list(organs)[old - 1 :], start=old):
        for old_channel, old_organ in enumerate(list(organs)[: old - 1], start=1):
            if organ.parent == old_organ.key:
                continue
            pairs = [(survey.predictions[case.key] == old_channel, case.target == channel) for case in cases]
            predicted = sum(int(p.sum()) for p, _ in pairs)
            covered = sum(int((p & t).sum()) for p, t in pairs)
            if predicted and covered > share * predicted:
                raise InputError(
                    f"The annotation of '{organ.name}' covers {covered / predicted:.0%} of what the model calls "
                    f"'{old_organ.name}': if it lies inside that organ, declare it (--parent '{old_organ.name}'); "
                    "otherwise correct the annotation, or pass --allow-overlap."
                )
