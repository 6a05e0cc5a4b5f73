"""Prototype guidance: what PGCD and DAPD add to the loss of a step (method §3, §4, §6)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..losses.calibrated import CalibratedFeatureDistillation, Calibration
from ..losses.dual_aligned import DualAlignment
from ..losses.unbiased import IGNORE
from ..prototypes import RunningPrototypes, local_means
from .strategies import Strategy

_STRIDE = 4  # voxels along each axis between those that are compared: a 64th of them is plenty for means
_EVERY = slice(None, None, _STRIDE)


@dataclass(frozen=True)
class Advice:
    """``weight`` (B, V): how much each voxel counts in distillation, None for alike; ``parts`` of the loss."""

    weight: Tensor | None
    parts: dict[str, Tensor]


class Guidance(nn.Module):
    """Compares features of the student and of the old model with prototypes, at every fourth voxel along each axis.

    Args:
        strategy: which parts are on.
        prototypes: of the old model; the background's follows the batches.
    """

    def __init__(self, strategy: Strategy, prototypes: RunningPrototypes) -> None:
        super().__init__()
        self.strategy, self.prototypes = strategy, prototypes
        self.calibration, self.features = Calibration(), CalibratedFeatureDistillation()
        self.alignment = DualAlignment(strategy.to_global, strategy.to_old_local)

    def forward(self, features: Tensor, teacher_features: Tensor, teacher_logits: Tensor, target: Tensor) -> Advice:
        """Advice on a batch.

        Args:
            features: of the student, (B, F, x, y, z).
            teacher_features: the same shape.
            teacher_logits: (B, 1 + K, x, y, z).
            target: the step's annotation (B, x, y, z).
        """
        size = target.shape[1:]
        theirs, q = _thinned(teacher_features.detach()), _thinned(teacher_logits.detach()).softmax(1)
        ours, labels = _thinned(features), _thinned(target)
        old, s, p = q.shape[1], self.strategy, self.prototypes
        counted = (labels < old) | (labels == IGNORE)  # nothing new is annotated there
        labels = torch.where(counted, q.max(1).indices, IGNORE)
        old_local, present = local_means(theirs, labels, old)
        if self.training and present[0]:
            p.follow(old_local[0])
        parts, weight = {}, None
        if s.region or s.channel:
            affinity = self.calibration.affinity(theirs, p.mean, p.known)  #                                    B,C,V
        if s.region:
            weight = self.calibration.region(affinity, q.flatten(2), counted.flatten(1), p.known)
            coarse = weight.unflatten(1, q.shape[2:])[:, None]
            weight = nn.functional.interpolate(coarse, size, mode="nearest").flatten(1)
        if s.channel:
            channels = self.calibration.channels(p.mean, p.variance)
            trusted = affinity * counted.flatten(1)[:, None]
            parts["features"] = s.channel * self.features(ours, theirs, trusted, channels, p.scale())
        if s.to_global or s.to_old_local:
            local, _ = local_means(ours, labels, old)
            parts["prototypes"] = self.alignment(local, old_local, p.mean, present, p.known)
        return Advice(weight, parts)


class _Thinning(torch.autograd.Function):
    """Every fourth voxel along each axis; the gradient comes in the input's memory layout, or adding it is slow."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.shape, ctx.strides = x.shape, x.stride()
        return x[..., _EVERY, _EVERY, _EVERY].contiguous(
            memory_format=torch.channels_last_3d if x.dim() == 5 else torch.contiguous_format
        )

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        whole = gradient.new_empty_strided(ctx.shape, ctx.strides).zero_()
        whole[..., _EVERY, _EVERY, _EVERY] = gradient
        return whole


def _thinned(x: Tensor) -> Tensor:
    return _Thinning.apply(x)
