"""A GPU that has too little memory, or another fault, where no step of training can be made smaller."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from IncrementalSegLib.events import Reporter
from IncrementalSegLib.inference import probabilities
from IncrementalSegLib.models.networks import out_of_memory
from IncrementalSegLib.prototypes import collect

PATCH = (8, 8, 8)
GPU = torch.device("meta")  # stands in for one: nothing is ever computed there


class Powers(nn.Module):
    """Two features of every voxel alone: x, x². A GPU refuses it with these words."""

    def __init__(self, words: str = "CUDA error: out of memory") -> None:
        super().__init__()
        self.words = words

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type == "meta":
            raise RuntimeError(self.words)
        return torch.cat([x, x * x], 1)


def _network(*words: str) -> nn.Sequential:
    return nn.Sequential(OrderedDict(trunk=Powers(*words), head=nn.Identity()))


def _scans() -> list[tuple[Tensor, np.ndarray]]:
    generator = np.random.default_rng(0)
    sizes = [(16, 8, 8), (8, 8, 8)]
    return [
        (torch.from_numpy(generator.normal(size=size).astype(np.float32)), generator.integers(0, 3, size))
        for size in sizes
    ]


def test_prototypes_that_do_not_fit_are_collected_by_the_cpu_which_is_said_once() -> None:
    told: list[dict[str, Any]] = []
    (found,) = collect([_network()], _scans(), 3, PATCH, GPU, Reporter(told.append))
    (expected,) = collect([_network()], _scans(), 3, PATCH, torch.device("cpu"), Reporter())
    assert torch.equal(found.mean, expected.mean) and torch.equal(found.count, expected.count)
    assert found.count.sum() == 16 * 8 * 8 + 8**3
    (event,) = told
    assert event["level"] == "warning" and "the CPU collects them" in event["text"]


def test_another_error_of_the_gpu_is_not_hidden() -> None:
    network = _network("CUDA error: device-side assert triggered")
    with pytest.raises(RuntimeError, match="device-side assert"):
        collect([network], _scans(), 3, PATCH, GPU, Reporter())
    network.to = network.forward = _refuse  # type: ignore[assignment, method-assign]
    with pytest.raises(RuntimeError, match="device-side assert"):
        probabilities(network, torch.zeros(PATCH), PATCH, GPU)


def _refuse(*given: object, **options: object) -> nn.Sequential:
    raise RuntimeError("CUDA error: device-side assert triggered")


@pytest.mark.parametrize(
    ("text", "is_memory"),
    [
        ("CUDA out of memory. Tried to allocate 2.00 GiB", True),
        ("cuDNN error: CUDNN_STATUS_ALLOC_FAILED", True),
        ("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`", True),
        ("patch size (96, 96, 96), mode gaussian. Seems to be OOM. Please try smaller patch size", True),
        ("CUDA error: no kernel image is available for execution on the device", False),
        ("Given groups=1, weight of size [8, 1, 3, 3, 3], expected input to have 1 channels", False),
    ],
)
def test_what_cuda_and_monai_call_too_little_memory(text: str, is_memory: bool) -> None:
    assert out_of_memory(RuntimeError(text)) == is_memory
