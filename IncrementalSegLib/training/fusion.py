"""Weight fusion after the step (EWF, Xiao et al. 2023): an average with the old model, kept only where it helps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from ..cases import Case
from ..evaluation import dice
from ..events import Reporter
from ..inference import predict_label_map
from ..models.networks import build_network
from ..models.package import Model
from ..volumes import to_array


def fuse(parent: Model, updated: Model, share: float) -> dict[str, Tensor]:
    """State dict ``(1 - share) · parent + share · updated``; what the parent lacks stays as trained (method §1).

    The parent counts as it was widened at the start of the step, with the background's bias split.
    """
    narrow, start = parent.network.state_dict(), parent.widened(updated.classes).state_dict()
    fused = {}
    for key, tensor in updated.network.state_dict().items():
        fused[key] = tensor.to("cpu", copy=True)
        if tensor.is_floating_point():
            known = tuple(slice(0, n) for n in narrow[key].shape)
            fused[key][known] = (1 - share) * start[key][known] + share * fused[key][known]
    return fused


def fusion_share(old: int, classes: int) -> float:
    """``sqrt(N / (K + 1 + N))`` for ``old = 1 + K`` and ``classes = 1 + K + N``."""
    return math.sqrt((classes - old) / classes)


def fuse_if_better(
    parent: Model, updated: Model, heldout: Sequence[Case], device: torch.device, reporter: Reporter
) -> Model:
    """The fused model if new-organ DSC and old-organ agreement on held-out cases rise in the mean, else ``updated``."""
    share = fusion_share(parent.classes, updated.classes)
    network = build_network(updated.spec, updated.classes)
    network.load_state_dict(fuse(parent, updated, share))
    fused = replace(updated, network=network.eval())
    before, after = (_merit(parent, model, heldout, device, reporter) for model in (updated, fused))
    kept = after > before
    reporter.message(
        f"Weight fusion {'kept' if kept else 'not kept'}: hold-out {before:.3f} without, {after:.3f} with."
    )
    record = {**updated.history[-1], "fusion": share if kept else None}
    return replace(fused if kept else updated, history=(*updated.history[:-1], record))


def _merit(parent: Model, candidate: Model, heldout: Sequence[Case], device: torch.device, reporter: Reporter) -> float:
    scores = []
    for number, case in enumerate(heldout, start=1):
        ct, label = case.read()
        old, new = (to_array(predict_label_map(model, ct, device, reporter)) for model in (parent, candidate))
        for organ in parent.organs:
            scores.append(dice(old == organ.label, new == organ.label))
        for organ in list(candidate.organs)[len(parent.organs) :]:
            if label is not None and organ.key in case.annotated:
                truth = case.channels(to_array(label), candidate.organs) == candidate.organs.channel(organ.key)
                scores.append(dice(truth, new == organ.label))
        reporter.progress("fusion", number, len(heldout))
    found = [score for score in scores if score is not None]
    return float(np.mean(found)) if found else 0.0
