"""A teacher, its student, a batch and the objective between them, all small."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from IncrementalSegLib.events import Reporter
from IncrementalSegLib.models.networks import NetworkSpec, build_network, freeze_statistics
from IncrementalSegLib.models.widen import widen
from IncrementalSegLib.prototypes import Prototypes, RunningPrototypes, collect
from IncrementalSegLib.training.guidance import Guidance
from IncrementalSegLib.training.objectives import IncrementalObjective
from IncrementalSegLib.training.patches import Batch
from IncrementalSegLib.training.strategies import Strategy

SPEC = NetworkSpec(
    "UNet", {"spatial_dims": 3, "channels": [4, 8, 16], "strides": [2, 2], "num_res_units": 0, "norm": "batch"}, 4
)
OLD, CLASSES = 3, 5
THRESHOLDS = torch.full((OLD,), 0.6)


def teacher(spec: NetworkSpec = SPEC, classes: int = OLD) -> nn.Sequential:
    """An old model with an opinion: weights and statistics away from their initial values."""
    torch.manual_seed(1)
    network = build_network(spec, classes)
    for name, tensor in (state := network.state_dict()).items():
        if name.endswith("running_var"):
            tensor.copy_(0.5 + torch.rand(tensor.shape))
        elif name.endswith("running_mean") or name == "head.bias":
            tensor.copy_(torch.randn(tensor.shape))
        elif name == "head.weight":
            tensor.copy_(torch.randn(tensor.shape) * 2)
    network.load_state_dict(state)
    return network.eval()


def student_of(old: nn.Module, spec: NetworkSpec = SPEC, classes: int = CLASSES) -> nn.Module:
    """The student as a step starts: widened, training, statistics frozen."""
    torch.manual_seed(2)
    network = widen(lambda n: build_network(spec, n), old.state_dict(), OLD, classes).train()
    freeze_statistics(network)
    return network


def batch_of(*, annotate: bool = True) -> Batch:
    """Two patches in which the new organs (channels 3 and 4) were annotated, and nothing else."""
    generator = torch.Generator().manual_seed(3)
    image = torch.randn(2, 1, 16, 16, 16, generator=generator)
    target = torch.zeros(2, 16, 16, 16, dtype=torch.long)
    if annotate:
        target[0, :4, :4, :4], target[1, 8:12, 8:, 8:] = 3, 4
    annotated = torch.tensor([[True, False, False, True, True]]).repeat(2, 1)
    return Batch(image + 0.1 * torch.randn(image.shape, generator=generator), image, target, annotated)


def objective_of(strategy: Strategy, old: nn.Module) -> IncrementalObjective:
    guidance = Guidance(strategy, RunningPrototypes(prototypes_of(old))) if strategy.guided else None
    return IncrementalObjective(old, strategy, OLD, CLASSES, THRESHOLDS, guidance)


def prototypes_of(old: nn.Module) -> Prototypes:
    """What the teacher's features are like in the classes it sees."""
    image = batch_of().image[0, 0]
    labels = old(image[None, None]).argmax(1)[0].numpy()
    return collect([old], [(image, labels)], OLD, image.shape, torch.device("cpu"), Reporter())[0]


def gradient_norm(network: nn.Module, loss: Tensor) -> float:
    found = torch.autograd.grad(loss, [p for p in network.parameters() if p.requires_grad], allow_unused=True)
    return math.sqrt(sum(float(g.square().sum()) for g in found if g is not None))
