"""Strategies: every published baseline and our default as configurations of the one loop (method §6)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

from ..errors import InputError


@dataclass(frozen=True)
class Strategy:
    """Which parts the loss of an incremental step has, and with what weight.

    ``unbiased``: unlabelled voxels may be old organs (folded CE and Dice). ``lwf``, ``encoder``, ``distillation``,
    ``pooled``: weights of LwF's, ILT's encoder, the unbiased and PLOP's feature distillation. ``label_guided``: the
    teacher has no say where a new organ is annotated. ``region``: PGCD's weights per voxel in the unbiased
    distillation; ``channel``: weight of its calibrated feature distillation. ``to_global``, ``to_old_local``: weights
    of DAPD's alignments. ``pseudo_labels``: ``confidence`` (ours, with ignore zone) or ``entropy`` (PLOP's).
    ``balance``: share of the cross-entropy that stays averaged over annotated classes to the end, in favour of small
    new organs. ``from_background``: new head rows start from the background. ``frozen_statistics``: BatchNorm
    statistics stay. ``fusion``: average with the old model where a hold-out shows that it helps. ``clean_teacher``: the
    teacher sees patches with unchanged intensities. ``replay``: share of the patches that are cut from synthetic
    volumes of the old model (MOSInversion), ``recipes`` how these are made; they show the old organs that the step's
    scans do not, or all (``replay_all``). ``refresh``: halfway more are made, on which the student and the old model
    disagree. ``lock``: the old network is not touched; a branch learns the new organs. ``from_scratch``: a new network
    learns ``all`` labels of all cases (the upper bound) or the ``new`` organs alone.
    """

    name: str
    summary: str
    unbiased: bool = False
    lwf: float = 0.0
    encoder: float = 0.0
    distillation: float = 0.0
    label_guided: bool = False
    region: bool = False
    channel: float = 0.0
    to_global: float = 0.0
    to_old_local: float = 0.0
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
    lock: bool = False
    from_scratch: Literal["", "all", "new"] = ""

    @property
    def guided(self) -> bool:
        """Whether prototypes of the old model are used."""
        return bool(self.region or self.channel or self.to_global or self.to_old_local)

    @property
    def needs_teacher(self) -> bool:
        """Whether the frozen old model is run beside the new one."""
        losses = self.lwf or self.encoder or self.distillation or self.pooled
        return bool(losses or self.guided or self.pseudo_labels or self.replay)


_MIB = Strategy("mib", "Modeling the Background (Cermelli et al. 2020)", unbiased=True, distillation=10.0)
_LWF = Strategy("lwf", "Learning without Forgetting (Li and Hoiem 2016)", lwf=1.0, from_background=False)
_PGCD_DAPD = replace(
    _MIB,
    name="pgcd-dapd",
    summary="prototype-guided calibrated distillation, dual-aligned prototypes (after Zhu et al. 2025)",
    label_guided=True,
    region=True,
    channel=1.0,
    to_global=0.1,
    to_old_local=0.1,
)
_FULL = replace(
    _PGCD_DAPD,
    name="full",
    summary="pgcd-dapd with pseudo-labels and replay of organs out of view (the default)",
    pseudo_labels="confidence",
    balance=0.05,
    clean_teacher=True,
    fusion=True,
    replay=0.2,
)
_ALL = [
    Strategy("fine-tune", "the new annotations alone; forgets", from_background=False),
    _LWF,
    replace(_LWF, name="ilt", summary="ILT (Michieli and Zanuttigh 2019): LwF and the encoder's features", encoder=1.0),
    _MIB,
    Strategy("plop", "PLOP (Douillard et al. 2021)", pooled=1.0, pseudo_labels="entropy"),
    replace(
        _MIB,
        name="mosinversion",
        summary="MiB's losses and replay of synthetic CT, made our fast way (after Kim et al. 2025)",
        replay=1 / 3,
        recipes=("fast",),
        replay_all=True,
        refresh=True,
    ),
    _PGCD_DAPD,
    _FULL,
    Strategy(
        "locked",
        "the old network stays as it is, a branch on its features learns the new organs",
        unbiased=True,
        balance=0.05,
        frozen_statistics=False,
        lock=True,
    ),
    Strategy("specialist", "a new network for the new organs alone; knows no old ones", from_scratch="new"),
    Strategy("joint", "all labels of all cases from the start; the upper bound", from_scratch="all"),
]
STRATEGIES = {strategy.name: strategy for strategy in _ALL}
DEFAULT = "full"
_WITHOUT = "-without-"
PARTS: dict[str, dict[str, Any]] = {
    "inversion": {"replay": 0.0},
    "region": {"region": False},
    "channel": {"channel": 0.0},
    "local-to-global": {"to_global": 0.0},
    "local-to-old-local": {"to_old_local": 0.0},
    "pseudo-labels": {"pseudo_labels": ""},
    "fusion": {"fusion": False},
}


def strategy_named(name: str) -> Strategy:
    """The strategy of this name; ``full-without-region`` is ``full`` with one of its `PARTS` switched off.

    Raises:
        InputError: there is none, or it has no such part.
    """
    whole, without, part = name.partition(_WITHOUT)
    if whole not in STRATEGIES:
        raise InputError(f"Strategy '{name}' is not known: choose one of {', '.join(STRATEGIES)}.")
    if not without:
        return STRATEGIES[whole]
    strategy = STRATEGIES[whole]
    reduced = replace(strategy, **PARTS.get(part, {}))
    if reduced == strategy:
        known = [part for part, off in PARTS.items() if replace(strategy, **off) != strategy]
        raise InputError(f"Strategy '{whole}' has no part '{part}': it can do without {', '.join(known) or 'none'}.")
    return replace(reduced, name=name, summary=f"{whole} without {part}")
