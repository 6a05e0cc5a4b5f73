"""Cross-entropy, Dice and distillation that know what "background" hides (MiB, Cermelli et al. 2020, §3.2; method §1).

Work over all classes and voxels is kept to few passes: on a CPU it would cost more than the network otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

IGNORE = 255


def at_least_float32(x: Tensor) -> Tensor:
    """float16 and bfloat16 as float32, in which sums over a patch neither overflow nor lose digits."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def product(a: Tensor, b: Tensor) -> Tensor:
    """Matrix product in the precision of its factors: autocast would sum voxels in float16, which ends at 65,504."""
    with torch.autocast(a.device.type, enabled=False):
        return a @ b


@dataclass(frozen=True, eq=False)
class Posterior:
    """Class probabilities ``p`` and ``log_p``, (B, C, V) over voxels V, of logits of a ``shape`` (B, C, …).

    Worked out once and given to every loss of a step: on a CPU a softmax takes as long as a convolution.
    """

    log_p: Tensor
    p: Tensor
    shape: torch.Size

    @classmethod
    def of(cls, logits: Tensor | Posterior) -> Posterior:
        """The posterior of logits (B, C, …), or the one that is given."""
        if isinstance(logits, Posterior):
            return logits
        log_p = at_least_float32(logits).flatten(2).contiguous().log_softmax(1)
        return cls(log_p, log_p.exp(), logits.shape)

    def background(self, hidden: Tensor) -> Tensor:
        """Log-probability (B, V) of the background together with the classes it may hide: ``log(p_0 + Σ p_c)``.

        Args:
            hidden: bool (B, C), True for a class that an unlabelled voxel of this sample may be.
        """
        if not hidden[:, 1:].any():
            return self.log_p[:, 0]
        folded = hidden.clone()
        folded[:, 0] = True
        together = product(folded[:, None].to(self.p.dtype), self.p)[:, 0]  #                                     B,V
        return together.clamp(min=torch.finfo(together.dtype).tiny).log()


class UnbiasedSegmentationLoss(nn.Module):
    """Cross-entropy plus Dice with a folded background.

    With nothing hidden it is the ordinary Dice + CE of fully annotated scans; with the old organs hidden it is MiB's
    unbiased cross-entropy, its Dice over what was annotated in each sample. Pseudo-labels of hidden organs have a Dice
    of their own, added to it: in one mean they would thin out what is to be learned (our formulation). Voxels of value
    `IGNORE` count nowhere.

    Args:
        smooth: added above and below in Dice.
    """

    def __init__(self, smooth: float = 1.0) -> None:
        super().__init__()
        self.smooth = smooth

    def forward(
        self,
        logits: Tensor | Posterior,
        target: Tensor,
        hidden: Tensor,
        balance: float = 0.0,
        pseudo: Tensor | None = None,
    ) -> Tensor:
        """The loss of logits (B, C, x, y, z), or their posterior, against target (B, x, y, z) with ``hidden`` (B, C).

        A share ``balance`` of the cross-entropy is averaged over the annotated classes in the batch instead of over
        voxels: Dice alone hardly moves an organ whose probability is still near 0. Hidden classes that are ``pseudo``
        (B, C) have pseudo-labels in the whole scan: the background is none of them (our formulation).

        Raises:
            ValueError: shapes that do not belong together.
        """
        samples, classes, *size = logits.shape
        if len(size) != 3 or target.shape != (samples, *size) or hidden.shape != (samples, classes):
            raise ValueError(
                f"logits {tuple(logits.shape)}, target {tuple(target.shape)}, hidden {tuple(hidden.shape)}"
            )
        posterior, folded = Posterior.of(logits), hidden if pseudo is None else hidden & ~pseudo
        counted = target.flatten(1) != IGNORE  #                                                             B,V
        labels = target.flatten(1).where(counted, 0)
        picked = posterior.log_p.gather(1, labels[:, None])[:, 0]  #                                         B,V
        nll = -torch.where(labels > 0, picked, posterior.background(folded)) * counted  #                    B,V
        where = (labels + classes * torch.arange(samples, device=labels.device)[:, None]).flatten()
        empty = picked.new_zeros(samples * classes)
        errors, overlap, voxels = (
            empty.index_add(0, where, part.flatten()).view(samples, classes)  #                              B,C
            for part in (nll, picked.exp() * counted, counted.to(empty.dtype))
        )
        mass = (posterior.p * counted[:, None]).sum(2)  #                                                    B,C
        known, pseudo, total = ~hidden, hidden & (voxels > 0), mass + voxels
        dice = self._dice(overlap, total, known) + self._dice(overlap, total, pseudo)
        return self._cross_entropy(errors, voxels, known, balance) + dice

    @staticmethod
    def _cross_entropy(errors: Tensor, voxels: Tensor, known: Tensor, balance: float) -> Tensor:
        over_voxels = errors.sum() / voxels.sum().clamp(min=1)
        errors, voxels = (errors * known).sum(0), (voxels * known).sum(0)
        over_classes = (errors / voxels.clamp(min=1)).sum() / (voxels > 0).sum().clamp(min=1)
        return (1 - balance) * over_voxels + balance * over_classes

    def _dice(self, overlap: Tensor, total: Tensor, known: Tensor) -> Tensor:
        used = known.any(0)
        used[0] = False
        overlap, total = ((part * known).sum(0) for part in (overlap, total))
        dice = (2 * overlap + self.smooth) / (total + self.smooth)  #                                           C
        return (1 - dice)[used].mean() if used.any() else total.sum() * 0


class UnbiasedDistillation(nn.Module):
    """Cross-entropy of the student, its new classes folded into the background, against the teacher (MiB, §3.2, eq. 7).

    With ``label_guided`` the teacher has no say where a new organ is annotated: what it calls background or an old
    organ there belongs to the annotation, which the segmentation loss knows (our formulation). Method §1 makes the
    annotation their target here as well; that counted them twice, and new organs came out too large.
    """

    def __init__(self, label_guided: bool = False) -> None:
        super().__init__()
        self.label_guided = label_guided

    def forward(
        self,
        logits: Tensor | Posterior,
        teacher_logits: Tensor | Posterior,
        target: Tensor,
        weight: Tensor | None = None,
    ) -> Tensor:
        """The loss of logits (B, 1+K+N, …) against teacher logits (B, 1+K, …) with the step's annotation (B, …).

        Logits may be given as their posterior. ``weight`` (B, V) is what each voxel counts: PGCD's region calibration
        (method §3).

        Raises:
            ValueError: shapes that do not belong together.
        """
        samples, classes, *size = logits.shape
        old = teacher_logits.shape[1]
        fits = teacher_logits.shape == (samples, min(old, classes), *size) and target.shape == (samples, *size)
        if not fits or (weight is not None and weight.shape != target.flatten(1).shape):
            raise ValueError(
                f"logits {tuple(logits.shape)}, teacher {tuple(teacher_logits.shape)}, target {tuple(target.shape)}, "
                f"weight {None if weight is None else tuple(weight.shape)}"
            )
        posterior = Posterior.of(logits)
        q = Posterior.of(teacher_logits).p  #                                                            B,1+K,V
        labels = target.flatten(1)
        hidden = torch.arange(classes, device=q.device).expand(samples, classes) >= old
        voxels = q[:, 0] * posterior.background(hidden) + (q[:, 1:] * posterior.log_p[:, 1:old]).sum(1)  #        B,V
        if self.label_guided:
            voxels = voxels * ((labels < old) | (labels == IGNORE))
        if weight is not None:
            voxels = voxels * weight
        return -voxels.sum() / labels.numel()


class Distillation(nn.Module):
    """Learning without Forgetting (Li and Hoiem 2016, eq. 2-3): old logits at a temperature, new classes dropped."""

    def __init__(self, temperature: float = 2.0) -> None:
        super().__init__()
        self.temperature = temperature

    def forward(self, logits: Tensor, teacher_logits: Tensor) -> Tensor:
        """The loss of logits (B, 1+K+N, …) against teacher logits (B, 1+K, …).

        Raises:
            ValueError: shapes that do not belong together.
        """
        old, t = teacher_logits.shape[1], self.temperature
        if logits[:, :old].shape != teacher_logits.shape:
            raise ValueError(f"logits {tuple(logits.shape)}, teacher {tuple(teacher_logits.shape)}")
        logits, teacher_logits = at_least_float32(logits), at_least_float32(teacher_logits)
        log_p = (logits[:, :old] / t).log_softmax(1)
        return -((teacher_logits / t).softmax(1) * log_p).sum(1).mean() * t**2
