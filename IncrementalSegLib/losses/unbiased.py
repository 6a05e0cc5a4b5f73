"""Cross-entropy, Dice and distillation that know what "background" hides (method §1; MiB, Cermelli et al. 2020, §3.2)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

IGNORE = 255


def fold_background(log_p: Tensor, hidden: Tensor) -> Tensor:
    """Log-probabilities in which the background also holds the classes it may hide.

    Args:
        log_p: log-softmax over classes, (B, C, …).
        hidden: bool (B, C), True for a class that an unlabelled voxel of this sample may be.

    Returns:
        (B, C, …): channel 0 is ``log(p_0 + sum of hidden p_c)``, the others as they were.
    """
    allowed = hidden.clone()
    allowed[:, 0] = True
    mask = allowed.reshape(*allowed.shape, *[1] * (log_p.dim() - 2))
    background = log_p.masked_fill(~mask, float("-inf")).logsumexp(1, keepdim=True)
    return torch.cat([background, log_p[:, 1:]], 1)


class UnbiasedSegmentationLoss(nn.Module):
    """Cross-entropy plus Dice with a folded background.

    With nothing hidden it is the ordinary Dice + CE of fully annotated scans; with the old organs hidden it is MiB's
    unbiased cross-entropy, its Dice folded the same way (our formulation). Voxels of value `IGNORE` count nowhere.
    """

    def __init__(self, smooth: float = 1.0) -> None:
        super().__init__()
        self.smooth = smooth

    def forward(self, logits: Tensor, target: Tensor, hidden: Tensor) -> Tensor:
        """The loss of logits (B, C, x, y, z) against target (B, x, y, z) with ``hidden`` (B, C).

        Raises:
            ValueError: shapes that do not belong together.
        """
        if logits.dim() != 5 or target.shape != logits[:, 0].shape or hidden.shape != logits.shape[:2]:
            raise ValueError(
                f"logits {tuple(logits.shape)}, target {tuple(target.shape)}, hidden {tuple(hidden.shape)}"
            )
        counted = target != IGNORE  #                                                                       B,x,y,z
        log_p = fold_background(logits.log_softmax(1), hidden)  #                                         B,C,x,y,z
        labels = target.where(counted, 0)
        nll = -log_p.gather(1, labels[:, None])[:, 0]  #                                                    B,x,y,z
        cross_entropy = (nll * counted).sum() / counted.sum().clamp(min=1)
        return cross_entropy + self._dice(log_p.exp(), labels, counted, hidden)

    def _dice(self, p: Tensor, labels: Tensor, counted: Tensor, hidden: Tensor) -> Tensor:
        classes = p.shape[1]
        known = torch.stack([(labels == c).flatten(1).any(1) for c in range(classes)], 1) | ~hidden  #           B,C
        weight = counted[:, None] * known[:, :, None, None, None]  #                                      B,C,x,y,z
        axes = (0, 2, 3, 4)
        truth = torch.zeros_like(p).scatter_(1, labels[:, None], 1.0) * weight
        overlap = (p * truth).sum(axes)  #                                                                         C
        total = (p * weight).sum(axes) + truth.sum(axes)
        dice = (2 * overlap + self.smooth) / (total + self.smooth)
        used = known.any(0)
        used[0] = False
        return (1 - dice)[used].mean() if used.any() else p.sum() * 0


class UnbiasedDistillation(nn.Module):
    """Cross-entropy of the student, its new classes folded into the background, against the teacher (MiB, §3.2, eq. 7).

    With ``label_guided`` the voxels annotated as a new organ get that organ as their target: the teacher's background
    and old-organ mass belongs to it (method §1, our formulation).
    """

    def __init__(self, label_guided: bool = False) -> None:
        super().__init__()
        self.label_guided = label_guided

    def forward(self, logits: Tensor, teacher_logits: Tensor, target: Tensor) -> Tensor:
        """The loss of logits (B, 1+K+N, …) against teacher logits (B, 1+K, …) with the step's annotation (B, …)."""
        old = teacher_logits.shape[1]
        if logits.shape[1] < old or logits.shape[2:] != teacher_logits.shape[2:] or target.shape != logits[:, 0].shape:
            raise ValueError(
                f"logits {tuple(logits.shape)}, teacher {tuple(teacher_logits.shape)}, target {tuple(target.shape)}"
            )
        log_p = logits.log_softmax(1)
        hidden = torch.zeros(log_p.shape[:2], dtype=torch.bool, device=log_p.device)
        hidden[:, old:] = True
        folded = fold_background(log_p, hidden)[:, :old]  #                                             B,1+K,x,y,z
        loss = -(teacher_logits.softmax(1) * folded).sum(1)  #                                              B,x,y,z
        if self.label_guided:
            new = (target >= old) & (target != IGNORE)
            loss = torch.where(new, -log_p.gather(1, target.where(new, 0)[:, None])[:, 0], loss)
        return loss.mean()


class Distillation(nn.Module):
    """Learning without Forgetting (Li and Hoiem 2016, eq. 2-3): old logits at a temperature, new classes dropped."""

    def __init__(self, temperature: float = 2.0) -> None:
        super().__init__()
        self.temperature = temperature

    def forward(self, logits: Tensor, teacher_logits: Tensor) -> Tensor:
        """The loss of logits (B, 1+K+N, …) against teacher logits (B, 1+K, …)."""
        t, old = self.temperature, teacher_logits.shape[1]
        log_p = (logits[:, :old] / t).log_softmax(1)
        return -((teacher_logits / t).softmax(1) * log_p).sum(1).mean() * t**2
