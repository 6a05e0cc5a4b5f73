"""Recorded stages of a trunk: the maps that PLOP and ILT compare."""

from __future__ import annotations

import pytest
import torch
from teachers import (
    CLASSES,
    OLD,
    SPEC,
    batch_of,
    objective_of,
    student_of,
    teacher,
)

from IncrementalSegLib.models.networks import PRESETS, NetworkSpec, build_network, freeze_statistics
from IncrementalSegLib.models.widen import widen
from IncrementalSegLib.training.objectives import (
    stages,
)
from IncrementalSegLib.training.strategies import STRATEGIES

pytestmark = pytest.mark.usefixtures("one_thread")


def test_stages_are_the_last_maps_before_a_change_of_resolution() -> None:
    network = teacher()
    with stages(network) as maps:
        network(torch.randn(1, 1, 16, 16, 16))
    assert [m.shape[2] for m in maps] == [8, 4, 8, 16]
    assert maps[-1].shape[1] == SPEC.features


@pytest.mark.parametrize("name", PRESETS)
def test_teacher_and_student_record_the_same_stages_in_every_network(name: str) -> None:
    spec = NetworkSpec.preset(name)
    torch.manual_seed(0)
    old = build_network(spec, OLD)
    student = widen(lambda n: build_network(spec, n), old.state_dict(), OLD, CLASSES).train()
    freeze_statistics(student)
    size = (64, 32, 32) if name == "SwinUNETR" else (32, 16, 16)
    image, recorded = torch.randn(1, 1, *size), []
    for network in (old.eval(), student):
        with torch.no_grad(), stages(network) as maps:
            network(image)
        recorded.append(maps)
        assert not any(module._forward_hooks for module in network.modules())
    assert [m.shape for m in recorded[0]] == [m.shape for m in recorded[1]]
    assert len(recorded[0]) >= 3 and all(m.dim() == 5 for m in recorded[0])
    if name != "VNet":  # whose dropout MONAI does not let anyone switch off
        assert all(torch.allclose(a, b, atol=1e-4) for a, b in zip(*recorded, strict=True))


def test_recording_ends_with_its_block_even_after_an_error() -> None:
    network = teacher()
    with pytest.raises(torch.OutOfMemoryError), stages(network) as maps:
        network(torch.randn(1, 1, 16, 16, 16))
        raise torch.OutOfMemoryError
    count = len(maps)
    network(torch.randn(1, 1, 16, 16, 16))
    assert len(maps) == count > 0
    assert not any(module._forward_hooks for module in network.modules())


def test_plop_leaves_no_hooks_behind() -> None:
    old = teacher()
    student, objective = student_of(old), objective_of(STRATEGIES["plop"], old)
    for _ in range(2):
        objective(student, batch_of())
    assert not any(module._forward_hooks for network in (old, student) for module in network.modules())
