"""The training loop: the same weights again, whatever happens on the way."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from training_runs import CONFIG, TINY, cancel_at, same_weights, train, update

from IncrementalSegLib.errors import Cancelled, IncrementalSegError, InputError
from IncrementalSegLib.events import Reporter
from IncrementalSegLib.models.checkpoint import load_state
from IncrementalSegLib.models.networks import build_network
from IncrementalSegLib.training import loop
from IncrementalSegLib.training.config import STEP_TRAINING, TrainingConfig
from IncrementalSegLib.training.loop import fit, learning_rate
from IncrementalSegLib.training.patches import Batch

pytestmark = pytest.mark.usefixtures("one_thread")


class Noise:
    """Patches of noise whose sign is the target; notes which patch sizes it was asked for."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, ...]] = []

    def batch(self, step: int, size: int, patch: tuple[int, ...]) -> Batch:
        self.asked.append(patch)
        image = torch.randn(size, 1, *patch, generator=torch.Generator().manual_seed(step))
        return Batch(image, image, (image[:, 0] > 0).long(), torch.ones(size, 2, dtype=torch.bool))


def _cross_entropy(network: nn.Module, batch: Batch, done: float) -> dict[str, Tensor]:
    return {"seg": nn.functional.cross_entropy(network(batch.image).float(), batch.target)}


def _fitted(
    folder: Path, config: TrainingConfig = CONFIG, objective: loop.Objective = _cross_entropy, **options: object
) -> tuple[nn.Module, list[dict], Noise]:
    torch.manual_seed(7)
    network, sampler, events = build_network(TINY, 2), Noise(), []
    fit(
        network,
        objective,
        sampler,  # type: ignore[arg-type]
        config,
        device=torch.device("cpu"),
        checkpoint=folder / "training.pt",
        reporter=Reporter(events.append, every=0),
        phase="train",
        **options,  # type: ignore[arg-type]
    )
    return network, events, sampler


def test_the_same_seed_gives_bit_identical_weights_and_another_seed_others(two_cases, tmp_path):
    first, again = train(two_cases, tmp_path / "1"), train(two_cases, tmp_path / "2")
    other = train(two_cases, tmp_path / "3", replace(CONFIG, seed=1))
    assert same_weights(first.network, again.network)
    assert not same_weights(first.network, other.network)


@pytest.mark.parametrize("stop", [1, 3])
def test_a_stopped_base_training_resumes_to_the_weights_of_one_that_was_not(two_cases, tmp_path, stop):
    whole = train(two_cases, tmp_path / "whole")
    with pytest.raises(Cancelled):
        train(two_cases, tmp_path / "stopped", reporter=cancel_at("train", stop))
    assert load_state(tmp_path / "stopped/checkpoint/training.pt")["step"] == stop
    assert same_weights(whole.network, train(two_cases, tmp_path / "stopped").network)


@pytest.mark.parametrize("strategy", ["full", "plop"])
def test_a_stopped_update_resumes_to_the_weights_of_one_that_was_not(parent, two_cases, tmp_path, strategy):
    whole = update(parent, two_cases, tmp_path / "whole", strategy)
    with pytest.raises(Cancelled):
        update(parent, two_cases, tmp_path / "stopped", strategy, cancel_at("update", 2))
    resumed = update(parent, two_cases, tmp_path / "stopped", strategy)
    assert same_weights(whole.network, resumed.network)
    assert not same_weights(whole.network, update(parent, two_cases, tmp_path / "other", "mib").network)


def test_an_update_leaves_the_parent_in_memory_as_it_was(parent, two_cases, tmp_path):
    before = {key: value.clone() for key, value in parent.network.state_dict().items()}
    update(parent, two_cases, tmp_path)
    after = parent.network.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("no memory"),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    ],
    ids=["torch", "CUDA", "cuDNN"],
)
def test_out_of_memory_makes_the_patch_smaller_says_so_and_trains_on(tmp_path, error):
    def greedy(network: nn.Module, batch: Batch, done: float) -> dict[str, Tensor]:
        if batch.image.shape[-1] > 32:
            raise error
        return _cross_entropy(network, batch, done)

    config = replace(CONFIG, steps=2, patch=(64, 64, 64))
    _, events, sampler = _fitted(tmp_path, config, greedy)
    warnings = [event["text"] for event in events if event["event"] == "message"]
    assert [text.split("patches of ")[1] for text in warnings] == ["48×48×48 voxels.", "32×32×32 voxels."]
    assert events[-1]["step"] == events[-1]["of"] == 2
    assert sampler.asked[-1] == (32, 32, 32)
    assert load_state(tmp_path / "training.pt")["patch"] == [32, 32, 32]


def test_out_of_memory_at_the_smallest_patch_is_a_sentence(tmp_path):
    def hungry(network: nn.Module, batch: Batch, done: float) -> dict[str, Tensor]:
        raise torch.OutOfMemoryError("no memory")

    with pytest.raises(IncrementalSegError, match="too little memory even for the smallest patch"):
        _fitted(tmp_path, objective=hungry)


def test_a_smaller_patch_still_fits_the_network_and_never_grows():
    quiet = Reporter()
    assert loop._smaller((96, 96, 96), 32, quiet) == (64, 64, 64)
    assert loop._smaller((64, 64, 32), 16, quiet) == (48, 48, 32)
    for multiple in (32, 64):  # normalisation finds one voxel at the coarsest level of 32³, or of 64³
        with pytest.raises(IncrementalSegError, match="even for the smallest patch"):
            loop._smaller((multiple,) * 3, multiple, quiet)


def test_another_error_of_the_device_is_not_taken_for_too_little_memory(tmp_path):
    def broken(network: nn.Module, batch: Batch, done: float) -> dict[str, Tensor]:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    with pytest.raises(RuntimeError, match="illegal memory access"):
        _fitted(tmp_path, objective=broken)


def test_a_loss_that_is_not_a_number_is_a_sentence_and_leaves_no_checkpoint(tmp_path):
    def broken(network: nn.Module, batch: Batch, done: float) -> dict[str, Tensor]:
        return {"seg": network(batch.image).mean() * math.nan}

    with pytest.raises(IncrementalSegError, match=r"not a number at step 1: lower the learning rate"):
        _fitted(tmp_path, objective=broken)
    assert not (tmp_path / "training.pt").exists()


def test_the_objective_hears_how_much_of_the_run_is_done(tmp_path):
    heard: list[float] = []

    def listening(network: nn.Module, batch: Batch, done: float) -> dict[str, Tensor]:
        heard.append(done)
        return _cross_entropy(network, batch, done)

    _fitted(tmp_path, replace(CONFIG, steps=4), listening)
    assert heard == [0.0, 0.25, 0.5, 0.75]


def test_gradients_are_clipped_to_the_norm_that_was_asked_for(tmp_path):
    def steep(network: nn.Module, batch: Batch, done: float) -> dict[str, Tensor]:
        return {"seg": 1e4 * _cross_entropy(network, batch, done)["seg"]}

    def norm(config: TrainingConfig, folder: Path) -> float:
        network, _, _ = _fitted(folder, config, steep)
        return float(torch.stack([p.grad.norm() for p in network.parameters() if p.grad is not None]).norm())

    assert norm(replace(CONFIG, clip_norm=0.5), tmp_path / "clipped") == pytest.approx(0.5, rel=1e-3)
    assert norm(replace(CONFIG, clip_norm=1e9), tmp_path / "free") > 10


def test_the_learning_rate_rises_linearly_and_falls_as_half_a_cosine():
    config = TrainingConfig(steps=100, learning_rate=1.0, warmup=0.1)
    golden = {0: 0.1, 4: 0.5, 9: 1.0, 10: 1.0, 55: 0.5, 99: 0.00030459}
    assert {step: learning_rate(config, step) for step in golden} == pytest.approx(golden, rel=1e-4)


def test_the_optimiser_uses_the_scheduled_rate_and_for_the_head_a_multiple(tmp_path):
    network, _, _ = _fitted(tmp_path, replace(CONFIG, head_rate=10.0))
    trunk, head = load_state(tmp_path / "training.pt")["optimizer"]["param_groups"]
    assert trunk["lr"] == learning_rate(CONFIG, CONFIG.steps - 1) and head["lr"] == 10 * trunk["lr"]
    assert len(head["params"]) == 2 and len(trunk["params"]) == len(list(network.parameters())) - 2


@pytest.mark.parametrize("factor", [1.0, 10.0])
def test_adam_moves_a_head_by_the_rate_it_was_given(tmp_path, factor):
    torch.manual_seed(7)
    before = build_network(TINY, 2).head.bias.clone()
    config = replace(CONFIG, steps=1, warmup=1.0, weight_decay=0.0, head_rate=factor)
    network, _, _ = _fitted(tmp_path, config)
    moved = (network.head.bias - before).abs()
    assert moved.tolist() == pytest.approx([factor * config.learning_rate] * 2, rel=1e-3)


def _statistics(network: nn.Module) -> list[Tensor]:
    return [value.clone() for key, value in network.state_dict().items() if "running_" in key]


@pytest.mark.parametrize("frozen", [True, False])
def test_normalisation_statistics_stay_exactly_where_they_are_frozen(tmp_path, frozen):
    torch.manual_seed(7)
    before = _statistics(build_network(TINY, 2))
    network, _, _ = _fitted(tmp_path, frozen_statistics=frozen)
    same = [torch.equal(a, b) for a, b in zip(before, _statistics(network), strict=True)]
    assert same
    assert all(same) if frozen else not any(same)


WRONG: list[tuple[dict[str, object], str]] = [
    ({"steps": 0}, "steps 0"),
    ({"batch": 0}, "batch 0"),
    ({"patch": (8, 64, 64)}, "32 voxels or more"),
    ({"seed": -1}, "seed -1"),
    ({"learning_rate": 0.0}, "rates above 0"),
    ({"head_rate": 0.0}, "times 0.0"),
    ({"precision": "double"}, "precision double"),
]


@pytest.mark.parametrize(("setting", "sentence"), WRONG)
def test_refuses_settings_that_cannot_be_trained(setting, sentence):
    with pytest.raises(InputError, match=sentence):
        TrainingConfig(**setting)


def test_settings_survive_a_round_trip_and_unknown_ones_are_refused():
    from dataclasses import asdict

    config = replace(CONFIG, seed=3)
    assert STEP_TRAINING.with_settings(json.loads(json.dumps(asdict(config)))) == config
    some = STEP_TRAINING.with_settings({"steps": 7, "patch": [32, 32, 64], "augmentation": {"copies": 0}})
    assert (some.steps, some.patch, some.augmentation.copies) == (7, (32, 32, 64), 0)
    assert (some.learning_rate, some.augmentation.blur) == (STEP_TRAINING.learning_rate, 0.2)
    with pytest.raises(InputError, match="momentum"):
        STEP_TRAINING.with_settings({"momentum": 0.9})
