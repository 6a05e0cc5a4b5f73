"""Weight fusion after the step (EWF, Xiao et al. 2023): an average with the old model, kept only where it helps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from ..cases import Case
from ..evaluation import dice
from ..events import Reporter
from ..inference import predict_label_map
from ..models.networks import build_network
from ..models.package import Model
from ..models.widen import widen
from ..volumes import to_array


def fuse(old: nn.Module, new: nn.Module, share: float) -> dict[str, Tensor]:
    """State dict ``(1 - share) · old + share · new``; what only the new network has stays as trained (method §1).

    Args:
        old: the parent's network with its own number of classes.
        new: the trained, wider network.
        share: weight of the new network, 0 to 1.
    """
    before, fused = old.state_dict(), {}
    for key, tensor in new.state_dict().items():
        mixed = tensor.clone()
        if tensor.is_floating_point():
            overlap = tuple(slice(0, n) for n in before[key].shape)
            mixed[overlap] = (1 - share) * before[key] + share * tensor[overlap]
        fused[key] = mixed
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
    widened = widen(lambda n: build_network(parent.spec, n), _on_cpu(parent), parent.classes, updated.classes)
    state = fuse(_old_part(widened, parent), updated.network, share)
    network.load_state_dict(state)
    fused = replace(updated, network=network.eval())
    before, after = (_merit(parent, model, heldout, device, reporter) for model in (updated, fused))
    kept = after > before
    reporter.message(
        f"Weight fusion {'kept' if kept else 'not kept'}: hold-out {before:.3f} without, {after:.3f} with."
    )
    record = {**updated.history[-1], "fusion": share if kept else None}
    return replace(fused if kept else updated, history=(*updated.history[:-1], record))


def _on_cpu(model: Model) -> dict[str, Tensor]:
    return {key: value.cpu() for key, value in model.network.state_dict().items()}


def _old_part(widened: nn.Module, parent: Model) -> nn.Module:
    """The widened old model cut back to the parent's shapes: its background bias is the one that was split."""
    network = build_network(parent.spec, parent.classes)
    shapes = network.state_dict()
    wide = widened.state_dict()
    network.load_state_dict({key: wide[key][tuple(slice(0, n) for n in shapes[key].shape)] for key in shapes})
    return network


def _merit(parent: Model, candidate: Model, heldout: Sequence[Case], device: torch.device, reporter: Reporter) -> float:
    scores = []
    for number, case in enumerate(heldout, start=1):
        ct, label = case.read()
        old, new = (to_array(predict_label_map(model, ct, device, reporter)) for model in (parent, candidate))
        for organ in parent.organs:
            scores.append(dice(old == organ.label, new == organ.label))
        for organ in list(candidate.organs)[len(parent.organs) :]:
            if label is not None and organ.key in case.annotated:
                truth = to_array(label) == case.labels.find(organ.key).label
                scores.append(dice(truth, new == organ.label))
        reporter.progress("fusion", number, len(heldout))
    found = [score for score in scores if score is not None]
    return float(np.mean(found)) if found else 0.0
