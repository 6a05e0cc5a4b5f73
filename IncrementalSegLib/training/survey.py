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
from ..pieces import keep_largest_pieces
from .objectives import normalised_entropy
from .patches import CachedCase, save_array

_BINS = 1000
_ENTROPY_FLOOR = 0.001


@dataclass(frozen=True)
class Survey:
    """Old-organ predictions (uint8 channels, (x, y, z)) by case key, organs of one piece in one.

    ``entropy`` (1 + K,) is each class's median normalised entropy, at least 0.001 (PLOP, Douillard et al. 2021, §3.3).
    """

    predictions: dict[str, np.ndarray]
    entropy: torch.Tensor


def survey(model: Model, cases: Sequence[CachedCase], folder: Path, device: torch.device, reporter: Reporter) -> Survey:
    """Predict every training scan with the old model; resumes from what ``folder`` already holds."""
    network = model.network.to(device).eval()
    histograms = torch.zeros(model.classes, _BINS)
    for number, case in enumerate(cases, start=1):
        measured = folder / f"{case.key}.pt"
        if not measured.exists():
            labels, counts = _survey_case(model, network, case, device, reporter)
            save_array(folder / f"{case.key}.npy", labels)
            save_state(measured, counts)
        histograms += load_state(measured)
        reporter.progress("survey", number, len(cases))
    predictions = {case.key: np.load(folder / f"{case.key}.npy", mmap_mode="r") for case in cases}
    return Survey(predictions, _medians(histograms).clamp(min=_ENTROPY_FLOOR))


def _survey_case(
    model: Model, network: nn.Module, case: CachedCase, device: torch.device, reporter: Reporter
) -> tuple[np.ndarray, torch.Tensor]:
    image = torch.from_numpy(model.preprocessing.normalise(case.image))
    warn = partial(reporter.message, level="warning")
    q = probabilities(network, image, model.patch, device, reporter.check, warn)[None]
    entropy, label = normalised_entropy(q)[0], q[0].argmax(0)
    unlabelled = torch.from_numpy(np.asarray(case.target) == 0)
    histograms = torch.stack(
        [torch.histc(entropy[(label == c) & unlabelled], _BINS, 0, 1) for c in range(model.classes)]
    )
    prediction = label.to(torch.uint8).numpy()
    keep_largest_pieces(prediction, map(model.organs.channel, model.connected))
    return prediction, histograms


def _medians(histograms: torch.Tensor) -> torch.Tensor:
    """Medians (1 + K,) of values in [0, 1] from their histograms (1 + K, bins)."""
    cumulative = histograms.cumsum(-1)
    return ((cumulative < cumulative[:, -1:] / 2).sum(-1) + 0.5) / _BINS


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
