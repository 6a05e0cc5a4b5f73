"""Strategies: every published baseline and our default as configurations of the one loop (method §6)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from ..errors import InputError


@dataclass(frozen=True)
class Strategy:
    """Which parts the loss of an incremental step has, and with what weight.

    ``unbiased``: unlabelled voxels may be old organs (folded CE and Dice). ``lwf``, ``distillation``, ``pooled``:
    weights of LwF's, the unbiased and PLOP's feature distillation. ``label_guided``: the teacher has no say where a new
    organ is annotated. ``pseudo_labels``: ``confidence`` (ours, with ignore zone) or ``entropy`` (PLOP's). ``balance``:
    share of the cross-entropy that stays averaged over annotated classes to the end, in favour of small new organs.
    ``from_background``: new head rows start from the background. ``frozen_statistics``: BatchNorm statistics stay.
    ``fusion``: average with the old model where a hold-out shows that it helps. ``clean_teacher``: the teacher sees
    patches with unchanged intensities. ``replay``: share of the patches that are cut from synthetic volumes of the old
    model (MOSInversion), ``recipes`` how these are made; they show the old organs that the step's scans do not, or all
    (``replay_all``). ``refresh``: halfway more are made, on which the student and the old model disagree.
    ``all_labels``: train on every label of every case from the start (the upper bound).
    """

    name: str
    summary: str
    unbiased: bool = False
    lwf: float = 0.0
    distillation: float = 0.0
    label_guided: bool = False
    pooled: float = 0.0
    pseudo_labels: Literal["", "confidence", "entropy"] = ""
    balance: float = 0.0
    from_background: bool = True
    frozen_statistics: bool = True
    clean_teacher: bool = False
    fusion: bool = False
    replay: float = 0.0
    recipes: tuple[str, ...] = ("fast", "grounded")
    replay_all: bool = False
    refresh: bool = False
    all_labels: bool = False

    @property
    def needs_teacher(self) -> bool:
        """Whether the frozen old model is run beside the new one."""
        return bool(self.lwf or self.distillation or self.pooled or self.pseudo_labels or self.replay)


_DISTILL = Strategy(
    "distill",
    "unbiased losses, pseudo-labels, label-guided distillation, replay of organs out of view (the default)",
    unbiased=True,
    distillation=10.0,
    label_guided=True,
    pseudo_labels="confidence",
    balance=0.05,
    clean_teacher=True,
    fusion=True,
    replay=0.2,
)
_ALL = [
    Strategy("fine-tune", "the new annotations alone; forgets", from_background=False),
    Strategy("lwf", "Learning without Forgetting (Li and Hoiem 2016)", lwf=1.0, from_background=False),
    Strategy("mib", "Modeling the Background (Cermelli et al. 2020)", unbiased=True, distillation=10.0),
    Strategy("plop", "PLOP (Douillard et al. 2021)", pooled=1.0, pseudo_labels="entropy"),
    _DISTILL,
    replace(_DISTILL, name="no-replay", summary="distill without synthetic CT", replay=0.0),
    Strategy(
        "mosinversion",
        "MiB's losses and replay of synthetic CT, made our fast way (after Kim et al. 2025)",
        unbiased=True,
        distillation=10.0,
        replay=1 / 3,
        recipes=("fast",),
        replay_all=True,
        refresh=True,
    ),
    Strategy("joint", "all labels of all cases from the start; the upper bound", all_labels=True),
]
STRATEGIES = {strategy.name: strategy for strategy in _ALL}
DEFAULT = "distill"


def strategy_named(name: str) -> Strategy:
    """The strategy of this name.

    Raises:
        InputError: there is none.
    """
    if name not in STRATEGIES:
        raise InputError(f"Strategy '{name}' is not known: choose one of {', '.join(STRATEGIES)}.")
    return STRATEGIES[name]
