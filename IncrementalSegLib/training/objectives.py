"""What is minimised: the supervised loss of a base model and the incremental loss of every strategy (method §6)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ..losses.pooled import PooledStripDistillation
from ..losses.unbiased import IGNORE, Distillation, Posterior, UnbiasedDistillation, UnbiasedSegmentationLoss
from ..models.foreign import ForeignNetwork
from ..models.tap import features_and_logits
from .guidance import Guidance
from .patches import Batch
from .strategies import Strategy

_POOLED_STAGES, _POOLED_LOGITS = 0.01, 0.0005  # PLOP's weights (Douillard et al. 2021, §4.1)
_MOST_SETTLED = 0.4  # of a run


def class_balance(done: float, least: float = 0.0) -> float:
    """Share of the cross-entropy averaged over classes: one half at first, ``least`` from about mid-run on.

    It gets small organs off the ground; much of it to the end makes every organ too large (our formulation).
    """
    return max(least, 0.5 - done)


class SupervisedObjective:
    """Dice + CE; what was not annotated in a sample may hide in its background."""

    def __init__(self) -> None:
        self.segmentation = UnbiasedSegmentationLoss()

    def __call__(self, network: nn.Module, batch: Batch, done: float = 1.0) -> dict[str, Tensor]:
        """Loss parts of a batch when the share ``done`` of the run is behind."""
        return {"seg": self.of(network(batch.image), batch, done)}

    def of(self, logits: Tensor, batch: Batch, done: float) -> Tensor:
        """The loss of these logits (B, C, x, y, z)."""
        return self.segmentation(logits, batch.target, ~batch.annotated, class_balance(done))


class DistillationObjective:
    """A student that begins anew: Dice + CE on what the teacher sees in whole scans, and the teacher's own doubts.

    The doubts are its probabilities, softened and patch by patch, as in Hinton et al. (2015) and Learning without
    Forgetting; the teacher sees the patch with unchanged intensities.
    """

    def __init__(self, teacher: nn.Module) -> None:
        self.teacher = teacher.eval().requires_grad_(False)
        self.supervised, self.distillation = SupervisedObjective(), Distillation()

    def __call__(self, network: nn.Module, batch: Batch, done: float = 1.0) -> dict[str, Tensor]:
        """Loss parts of a batch when the share ``done`` of the run is behind."""
        logits = network(batch.image)
        with torch.no_grad():
            doubts = self.teacher(batch.plain)
        segmentation = self.supervised.of(logits, batch, done)
        return {"seg": segmentation, "kd": self.distillation(logits, doubts)}


class IncrementalObjective:
    """The loss of one incremental step: segmentation on the new annotations, plus what the strategy asks for.

    Args:
        teacher: the frozen old model with ``1 + K`` outputs.
        strategy: which parts are on.
        old: ``1 + K``.
        classes: ``1 + K + N``.
        thresholds: normalised entropy per class (1 + K,) up to which PLOP trusts the teacher.
        guidance: by the old model's prototypes, for strategies that ask for it.
        steps: of the run.
    """

    def __init__(
        self,
        teacher: nn.Module,
        strategy: Strategy,
        old: int,
        classes: int,
        thresholds: Tensor | None = None,
        guidance: Guidance | None = None,
        steps: int = 1,
    ) -> None:
        self.teacher, self.guidance = teacher.eval().requires_grad_(False), guidance
        self.strategy, self.old, self.classes, self.thresholds = strategy, old, classes, thresholds
        self.settled = min(strategy.settle / steps, _MOST_SETTLED)
        self.segmentation = UnbiasedSegmentationLoss()
        self.distillation = UnbiasedDistillation(strategy.label_guided)
        self.lwf = Distillation()
        self.pooled = PooledStripDistillation()

    def __call__(self, network: nn.Module, batch: Batch, done: float = 1.0) -> dict[str, Tensor]:
        """Loss parts of a batch, already weighted, when the share ``done`` of the run is behind."""
        s, balance = self.strategy, class_balance(done, self.strategy.balance)
        image = batch.plain if done > 1 - self.settled else batch.image
        with stages(network, record=bool(s.pooled or s.encoder)) as ours:
            features, logits = features_and_logits(network, image)
        posterior = Posterior.of(logits)
        if not s.needs_teacher:
            return {"seg": self.segmentation(posterior, batch.target, self._hidden(batch), balance)}
        with torch.no_grad(), stages(self.teacher, record=bool(s.pooled or s.encoder)) as theirs:
            old_features, old_logits = features_and_logits(self.teacher, batch.plain if s.clean_teacher else image)
            q = Posterior.of(old_logits)
        target = self._with_pseudo_labels(batch.target, q.p.unflatten(2, batch.target.shape[1:]))
        parts = {"seg": self.segmentation(posterior, target, self._hidden(batch), balance, self._surveyed(batch))}
        weight = None
        if self.guidance is not None:
            advice = self.guidance(features, old_features, old_logits, batch.target)
            parts, weight = parts | advice.parts, advice.weight
        if s.distillation:
            share = s.distillation / self.old if s.diluted else s.distillation
            parts["kd"] = share * self.distillation(posterior, q, batch.target, weight)
        if s.lwf:
            parts["lwf"] = s.lwf * self.lwf(logits, old_logits)
        if s.encoder:
            deepest = min(range(len(ours)), key=lambda stage: ours[stage][0, 0].numel())
            parts["encoder"] = s.encoder * nn.functional.mse_loss(ours[deepest].float(), theirs[deepest].float())
        if s.pooled:
            growth = math.sqrt((self.classes - 1) / (self.classes - self.old))
            strips = _POOLED_STAGES * self.pooled(ours, theirs)
            strips = strips + _POOLED_LOGITS * self.pooled([logits[:, : self.old]], [old_logits])
            parts["pod"] = s.pooled * growth * strips
        return parts

    def _hidden(self, batch: Batch) -> Tensor:
        """Classes (B, C) that an unlabelled voxel may be: what is not annotated, if the strategy knows of it."""
        return ~batch.annotated if self.strategy.unbiased else torch.zeros_like(batch.annotated)

    def _surveyed(self, batch: Batch) -> Tensor:
        """Classes (B, C) that no unlabelled voxel can be: the old ones in scans (not synthetic) that were surveyed."""
        real = batch.annotated[:, self.old :].any(1, keepdim=True)
        known = torch.arange(self.classes, device=real.device) < self.old
        return known & real & (self.strategy.pseudo_labels == "survey")

    def _with_pseudo_labels(self, target: Tensor, q: Tensor) -> Tensor:
        if self.strategy.pseudo_labels != "entropy" or self.thresholds is None:
            return target
        return torch.where(target > 0, target, entropy_pseudo_labels(q, self.thresholds.to(q.device)))


def normalised_entropy(q: Tensor) -> Tensor:
    """Entropy over classes divided by its largest value, (B, C, …) to (B, …) in [0, 1]."""
    return -(q * q.clamp(min=1e-8).log()).sum(1) / math.log(q.shape[1])


def entropy_pseudo_labels(q: Tensor, most: Tensor) -> Tensor:
    """PLOP's labels (§3.3): the teacher's argmax where its entropy is below the class's threshold, else `IGNORE`."""
    label = q.argmax(1)
    return torch.where(normalised_entropy(q) < most[label], label, IGNORE)


@contextmanager
def stages(network: nn.Module, record: bool = True) -> Iterator[list[Tensor]]:
    """Collect the last feature map (B, C, x, y, z) before every change of resolution in a network's trunk.

    The list fills during one forward pass inside the ``with`` block; with ``record=False`` it stays empty. Of a foreign
    network what makes classes, and what comes behind that, is no stage.
    """
    maps: list[Tensor] = []
    heads: set[str] = network.heads if isinstance(network, ForeignNetwork) else set()
    behind = False

    def keep(module: nn.Module, inputs: object, output: object) -> None:
        if isinstance(output, Tensor) and output.dim() == 5 and not behind:
            if maps and maps[-1].shape[2:] == output.shape[2:]:
                maps.pop()
            maps.append(output)

    def end(module: nn.Module, inputs: object) -> None:
        nonlocal behind
        behind = True

    hooks = []
    if record:
        trunk = network.get_submodule("trunk")
        layers = [layer for name, layer in trunk.named_modules() if not any(layer.children()) and name not in heads]
        hooks = [layer.register_forward_hook(keep) for layer in layers]
        if isinstance(network, ForeignNetwork):
            hooks.append(trunk.get_submodule(network.tap).register_forward_pre_hook(end))
    try:
        yield maps
    finally:
        for hook in hooks:
            hook.remove()
