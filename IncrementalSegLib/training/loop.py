"""The one training loop: events, atomic checkpoints, cancel, resume to the same weights, OOM back-off."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from ..errors import Cancelled, IncrementalSegError
from ..events import Reporter
from ..models.checkpoint import load_state, save_state
from ..models.networks import divisor, freeze_statistics, head_parameters, out_of_memory, place
from .config import TrainingConfig
from .patches import Batch

# network, batch and the share of the run that is done, to weighted parts of the loss
Objective = Callable[[nn.Module, Batch, float], dict[str, Tensor]]


class Sampler(Protocol):
    """Where the patches of a step come from."""

    def batch(self, step: int, size: int, patch: Sequence[int]) -> Batch:
        """The same for the same arguments."""


def fit(
    network: nn.Module,
    objective: Objective,
    sampler: Sampler,
    config: TrainingConfig,
    *,
    device: torch.device,
    checkpoint: Path,
    reporter: Reporter,
    phase: str,
    frozen_statistics: bool = False,
    until: int | None = None,
    carried: nn.Module | None = None,
) -> None:
    """Train ``network`` in place for ``config.steps`` steps, going on from ``checkpoint`` where there is one.

    With ``until`` it pauses after this many of them, with a checkpoint from which another call goes on. ``carried`` is
    what the objective carries from step to step beside the weights.

    Every random choice is a function of seed and step and the checkpoint holds everything else, so that a run that was
    stopped (or killed) ends at the weights of one that was not.

    Raises:
        Cancelled: after a checkpoint was written.
    """
    place(network, device).train()
    if frozen_statistics:
        freeze_statistics(network)
    optimizer = _optimizer(network, config)
    precision = Precision(config.precision, device)
    state = _State(network, optimizer, precision, carried or nn.Module(), checkpoint, config.patch)
    state.restore()
    last = config.steps if until is None else until
    saved = time.monotonic()
    with ThreadPoolExecutor(1) as loader:
        pending: Future[Batch] | None = None
        try:
            while state.step < last:
                batch = (pending or loader.submit(sampler.batch, state.step, config.batch, state.patch)).result()
                pending = loader.submit(sampler.batch, state.step + 1, config.batch, state.patch)
                losses: dict[str, float] | None
                try:
                    losses = _step(network, objective, batch.to(device), optimizer, precision, config, state.step)
                except RuntimeError as error:
                    if not out_of_memory(error):
                        raise
                    losses = None
                if losses is None:  # outside of the handler, which holds on to the tensors of the failed step
                    optimizer.zero_grad(set_to_none=True)
                    precision.renew()
                    state.patch = _smaller(state.patch, divisor(network), reporter)
                    pending = None
                    continue
                state.step += 1
                reporter.progress(phase, state.step, config.steps, losses)
                if time.monotonic() - saved > config.checkpoint_seconds:
                    state.save()
                    saved = time.monotonic()
        except Cancelled:  # comes between two steps; in the middle of one, the last checkpoint is what counts
            state.save()
            raise
    state.save()


def _optimizer(network: nn.Module, config: TrainingConfig) -> torch.optim.AdamW:
    """AdamW on all that learns; the head has a group of its own, whose rate is ``head_rate`` times the other's."""
    head = set(head_parameters(network))
    learning = [parameter for parameter in network.parameters() if parameter.requires_grad]
    groups = [
        {"params": [parameter for parameter in learning if (parameter in head) == inside], "factor": factor}
        for inside, factor in ((False, 1.0), (True, config.head_rate))
    ]
    return torch.optim.AdamW(groups, config.learning_rate, weight_decay=config.weight_decay)


def _step(
    network: nn.Module,
    objective: Objective,
    batch: Batch,
    optimizer: torch.optim.Optimizer,
    precision: Precision,
    config: TrainingConfig,
    step: int,
) -> dict[str, float]:
    torch.manual_seed(config.seed * 1_000_003 + step)
    for group in optimizer.param_groups:
        group["lr"] = group["factor"] * learning_rate(config, step)
    with precision.autocast():
        parts = objective(network, batch, step / config.steps)
    total = torch.stack(list(parts.values())).sum()
    if not torch.isfinite(total):
        raise IncrementalSegError(
            f"The loss is not a number at step {step + 1}: lower the learning rate or use --precision float32."
        )
    optimizer.zero_grad(set_to_none=True)
    precision.scaler.scale(total).backward()
    precision.scaler.unscale_(optimizer)
    nn.utils.clip_grad_norm_(network.parameters(), config.clip_norm)
    precision.scaler.step(optimizer)
    precision.scaler.update()
    if precision.scaler.is_enabled() and precision.scaler.get_scale() < 1:
        raise IncrementalSegError(f"No gradient is a number at step {step + 1}: use --precision float32.")
    return {name: float(value.detach()) for name, value in parts.items()} | {"total": float(total.detach())}


def learning_rate(config: TrainingConfig, step: int) -> float:
    """Linear warm-up over a share ``warmup`` of the steps, then half a cosine to zero."""
    rise = max(1, round(config.warmup * config.steps))
    if step < rise:
        return config.learning_rate * (step + 1) / rise
    return config.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, config.steps - rise)))


class Precision:
    """Automatic mixed precision on this device, and the gradient scaler that float16 needs."""

    def __init__(self, name: str, device: torch.device) -> None:
        self.device = device
        self.dtype = self._auto() if name == "auto" else getattr(torch, name)
        self.scaler = self._fresh()

    def renew(self) -> None:
        """Go on at the same scale after a step that broke off, of which the scaler would remember half."""
        before, self.scaler = self.scaler, self._fresh()
        self.scaler.load_state_dict(before.state_dict())

    def _fresh(self) -> torch.amp.GradScaler:
        return torch.amp.GradScaler(self.device.type, enabled=self.dtype is torch.float16)

    def _auto(self) -> torch.dtype:
        if self.device.type == "cuda":
            return torch.float16
        return torch.bfloat16 if native_bfloat16() else torch.float32

    def autocast(self) -> AbstractContextManager[object]:
        """The context for a forward pass."""
        if self.dtype is torch.float32:
            return nullcontext()
        return torch.autocast(self.device.type, self.dtype)


def native_bfloat16() -> bool:
    """Whether this CPU multiplies bfloat16 in hardware; elsewhere float32 is faster."""
    questions = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    native = any(getattr(torch.cpu, question, lambda: False)() for question in questions)
    return native and torch.backends.mkldnn.is_available()


class _State:
    """What a checkpoint holds: step, weights, optimiser, scaler and the patch size that fits the memory."""

    def __init__(
        self,
        network: nn.Module,
        optimizer: torch.optim.Optimizer,
        precision: Precision,
        carried: nn.Module,
        path: Path,
        patch: tuple[int, ...],
    ) -> None:
        self.network, self.optimizer, self.carried, self.path = network, optimizer, carried, path
        self.precision, self.step, self.patch = precision, 0, tuple(patch)

    def save(self) -> None:
        save_state(
            self.path,
            {
                "step": self.step,
                "patch": list(self.patch),
                "network": self.network.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "scaler": self.precision.scaler.state_dict(),
                "carried": self.carried.state_dict(),
            },
        )

    def restore(self) -> None:
        if not self.path.exists():
            return
        content = load_state(self.path)
        self.network.load_state_dict(content["network"])
        self.optimizer.load_state_dict(content["optimizer"])
        self.carried.load_state_dict(content["carried"])
        if content["scaler"]:
            self.precision.scaler.load_state_dict(content["scaler"])
        self.step, self.patch = content["step"], tuple(content["patch"])


def _smaller(patch: tuple[int, ...], multiple: int, reporter: Reporter) -> tuple[int, ...]:
    """The next smaller patch (multiples of what the network needs) after the device ran out of memory.

    Raises:
        IncrementalSegError: there is none.
    """
    smaller = tuple(min(edge, max(32, multiple, int(edge * 0.75) // multiple * multiple)) for edge in patch)
    if smaller == patch or max(smaller) <= multiple:  # normalisation needs more than one voxel at the coarsest level
        raise IncrementalSegError("The device has too little memory even for the smallest patch: use --device cpu.")
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    shown = "×".join(map(str, smaller))
    reporter.message(f"Out of memory: going on with patches of {shown} voxels.", "warning")
    return smaller
