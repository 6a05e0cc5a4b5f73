"""PGCD: distillation that trusts the old model where its features look like what it says (Zhu et al. 2025, stated).

The idea is the paper's (arXiv 2511.07749, abstract and figures: prototype-to-feature similarity, class by class, and
per feature channel); the equations are our formulation (method §3).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .unbiased import at_least_float32, product

_EPSILON = 1e-5


class Calibration(nn.Module):
    """How much each voxel, and each feature channel in it, counts in distillation.

    Args:
        temperature: τ of the softmax over similarities.
        gamma: exponent of the trust; 0 trusts every voxel alike.
    """

    def __init__(self, temperature: float = 0.1, gamma: float = 1.0) -> None:
        super().__init__()
        self.temperature, self.gamma = temperature, gamma

    def affinity(self, features: Tensor, means: Tensor, known: Tensor) -> Tensor:
        """``A_c(x)``: softmax over classes of the similarity of features (B, F, …) to prototypes (C, F): (B, C, V).

        Both are centred on the mean prototype first: features behind a ReLU all point the same way. Classes without a
        prototype (``known`` (C,) False) get nothing.

        Raises:
            ValueError: features and prototypes of different length.
        """
        if features.shape[1] != means.shape[1] or known.shape != means.shape[:1]:
            raise ValueError(f"features {tuple(features.shape)}, prototypes {tuple(means.shape)}")
        centre = means[known].mean(0)  #                                                                            F
        f = at_least_float32(features).flatten(2) - centre[:, None]  #                                          B,F,V
        directions = nn.functional.normalize(means - centre, dim=1)  #                                            C,F
        cosine = product(directions, f) / f.norm(dim=1, keepdim=True).clamp(min=_EPSILON)  #                    B,C,V
        return cosine.div(self.temperature).masked_fill(~known[:, None], -torch.inf).softmax(1)

    def region(self, affinity: Tensor, q: Tensor, counted: Tensor, known: Tensor) -> Tensor:
        """``w(x) = Σ_c q_c(x) A_c(x)^γ`` over its mean where ``counted``: one weight per voxel, (B, V).

        One number per voxel, since a weight per class inside the sum over classes would move the minimum off ``q``.
        A class without a prototype is trusted: nothing speaks against it.

        Args:
            affinity: (B, C, V).
            q: teacher's probabilities (B, C, V).
            counted: bool (B, V), the voxels in which the teacher has a say.
            known: bool (C,), classes that have a prototype.
        """
        trust = torch.where(known[:, None], affinity.pow(self.gamma), 1.0)  #                                   B,C,V
        weight = (q * trust).sum(1)  #                                                                            B,V
        return weight / ((weight * counted).sum() / counted.sum().clamp(min=1)).clamp(min=_EPSILON)

    @staticmethod
    def channels(means: Tensor, variances: Tensor) -> Tensor:
        """``v_c,k ∝ |P_c,k - P_0,k| / sqrt(var_c,k + var_0,k)``, mean 1 over channels; 1 for the background: (C, F)."""
        v = (means - means[0]).abs() / (variances + variances[0] + _EPSILON).sqrt()
        v = v / v.mean(1, keepdim=True).clamp(min=_EPSILON)
        return torch.cat([torch.ones_like(v[:1]), v[1:]])


class CalibratedFeatureDistillation(nn.Module):
    """``mean_x mean_k [Σ_c A_c(x) v_c,k] (F_k(x) - F_old,k(x))² / var_k`` (method §3, second term)."""

    def forward(
        self, features: Tensor, teacher_features: Tensor, affinity: Tensor, channels: Tensor, scale: Tensor
    ) -> Tensor:
        """The loss of features (B, F, …) against the teacher's.

        Args:
            features: of the student.
            teacher_features: the same shape.
            affinity: ``A`` (B, C, V).
            channels: ``v`` (C, F).
            scale: ``var`` (F,), what a channel varies by.

        Raises:
            ValueError: shapes that do not belong together.
        """
        if features.shape != teacher_features.shape or channels.shape != (affinity.shape[1], features.shape[1]):
            raise ValueError(
                f"features {tuple(features.shape)} and {tuple(teacher_features.shape)}, affinity "
                f"{tuple(affinity.shape)}, channels {tuple(channels.shape)}"
            )
        ours, theirs = (at_least_float32(f).flatten(2) for f in (features, teacher_features))  #                B,F,V
        weight = product((channels / (scale + _EPSILON)).T, affinity)  #                                        B,F,V
        return (weight * (ours - theirs).square()).mean()
