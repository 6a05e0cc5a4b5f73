"""Strategies: every published baseline and our default as configurations of the one loop (method §6)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

from ..errors import InputError


@dataclass(frozen=True)
class Strategy:
    """Which parts the loss of an incremental step has, and with what weight.

    ``unbiased``: unlabelled voxels may be old organs (folded CE and Dice). ``lwf``, ``encoder``, ``distillation``,
    ``pooled``: weights of LwF's, ILT's encoder, the unbiased and PLOP's feature distillation; ``diluted``: the unbiased
    one's is divided by the number of the old model's classes, as MiB has it, so that it fades from step to step.
    ``label_guided``: the teacher has no say where a new organ is annotated. ``region``: PGCD's weights per voxel in the
    unbiased distillation; ``channel``: weight of its calibrated feature distillation. ``to_global``, ``to_old_local``:
    weights of DAPD's alignments. ``pseudo_labels``: ``survey`` (what the old model sees in the whole scan is an old
    organ, the rest is none, ours) or ``entropy`` (PLOP's, patch by patch). ``balance``: share of the cross-entropy that
    stays averaged over annotated classes to the end, in favour of small new organs.
    ``from_background``: new head rows start from the background. ``frozen_statistics``: BatchNorm statistics stay.
    ``settle``: number of steps, at the end, whose patches have unchanged intensities (two fifths of a short run at
    most): statistics that stay do not fit changed ones, and what a short run learns to make up for that makes organs
    too large in scans as they are (our formulation). ``calibrated``: from the second update on, biases of old organs
    are shifted so that these are as large on its scans as the old model saw them. ``fusion``: share of the updated
    weights in an average with the old ones. ``clean_teacher``: the teacher sees patches with unchanged intensities.
    ``replay``: share of the patches that are cut from synthetic volumes of the old model (MOSInversion),
    ``recipes`` how these are made; they show the old organs that the step's scans do not, or all (``replay_all``).
    ``refresh``: halfway more are made, on which the student and the old model disagree. ``lock``: the old network is
    not touched; a branch learns the new organs.
    ``from_scratch``: a new network learns ``all`` labels of all cases (the upper bound) or the ``new`` organs alone.
    """

    name: str
    summary: str
    unbiased: bool = False
    lwf: float = 0.0
    encoder: float = 0.0
    distillation: float = 0.0
    diluted: bool = False
    label_guided: bool = False
    region: bool = False
    channel: float = 0.0
    to_global: float = 0.0
    to_old_local: float = 0.0
    pooled: float = 0.0
    pseudo_labels: Literal["", "survey", "entropy"] = ""
    balance: float = 0.0
    from_background: bool = True
    frozen_statistics: bool = True
    clean_teacher: bool = False
    settle: int = 0
    calibrated: bool = False
    fusion: float = 0.0
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


_MIB = Strategy("mib", "Modeling the Background (Cermelli et al. 2020)", unbiased=True, distillation=10.0, diluted=True)
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
    _MIB,
    name="full",
    summary="MiB's losses, pseudo-labels, weight fusion, replay of organs out of view (the default)",
    distillation=2.0,
    diluted=False,
    label_guided=True,
    pseudo_labels="survey",
    balance=0.05,
    clean_teacher=True,
    settle=120,
    calibrated=True,
    fusion=0.9,
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
# What a strategy can be told to do without or with: its settings when off and when on.
PARTS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "inversion": ({"replay": 0.0}, {"replay": 0.2}),
    "region": ({"region": False}, {"region": True}),
    "channel": ({"channel": 0.0}, {"channel": 1.0}),
    "local-to-global": ({"to_global": 0.0}, {"to_global": 0.1}),
    "local-to-old-local": ({"to_old_local": 0.0}, {"to_old_local": 0.1}),
    "pseudo-labels": ({"pseudo_labels": ""}, {"pseudo_labels": "survey"}),
    "fusion": ({"fusion": 0.0}, {"fusion": 0.9}),
    "calibration": ({"calibrated": False}, {"calibrated": True}),
    "settling": ({"settle": 0}, {"settle": 120}),
}
_PROTOTYPES = ("region", "channel", "local-to-global", "local-to-old-local")
PARTS["prototypes"] = (
    {name: value for part in _PROTOTYPES for name, value in PARTS[part][0].items()},
    {name: value for part in _PROTOTYPES for name, value in PARTS[part][1].items()},
)


def strategy_named(name: str) -> Strategy:
    """The strategy of this name; ``full-without-fusion`` and ``full-with-region`` have one of its `PARTS` off or on.

    Raises:
        InputError: there is none, or the part changes nothing.
    """
    for word, on in (("-without-", False), ("-with-", True)):
        whole, found, part = name.partition(word)
        if found:
            return _changed(_known(whole), part, on, name)
    return _known(name)


def _known(name: str) -> Strategy:
    if name not in STRATEGIES:
        raise InputError(f"Strategy '{name}' is not known: choose one of {', '.join(STRATEGIES)}.")
    return STRATEGIES[name]


def _changed(strategy: Strategy, part: str, on: bool, name: str) -> Strategy:
    word = "with" if on else "without"
    able = [known for known, settings in PARTS.items() if replace(strategy, **settings[on]) != strategy]
    if part not in able:
        raise InputError(
            f"Strategy '{strategy.name}' cannot be had {word} '{part}', only {word} {', '.join(able) or 'nothing'}."
        )
    return replace(strategy, **PARTS[part][on], name=name, summary=f"{strategy.name} {word} {part}")
