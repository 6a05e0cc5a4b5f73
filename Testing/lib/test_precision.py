"""Mixed precision: what every device gets by itself."""

from __future__ import annotations

import pytest
import torch

from IncrementalSegLib.errors import IncrementalSegError
from IncrementalSegLib.training import loop
from IncrementalSegLib.training.config import TrainingConfig
from IncrementalSegLib.training.loop import Precision


def test_a_gpu_gets_float16_with_a_gradient_scaler(monkeypatch):
    monkeypatch.setattr(torch.cuda.amp.common, "amp_definitely_not_available", lambda: False)
    precision = Precision("auto", torch.device("cuda"))
    assert precision.dtype is torch.float16
    assert precision.scaler.is_enabled()


@pytest.mark.parametrize(("native", "dtype"), [(True, torch.bfloat16), (False, torch.float32)])
def test_a_cpu_gets_bfloat16_only_where_it_computes_it_natively(monkeypatch, native, dtype):
    monkeypatch.setattr(loop, "native_bfloat16", lambda: native)
    precision = Precision("auto", torch.device("cpu"))
    assert precision.dtype is dtype
    assert not precision.scaler.is_enabled()
    with precision.autocast():
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype is dtype


def test_a_step_that_broke_off_while_it_was_unscaled_can_be_done_again_at_the_same_scale():
    precision, weight = Precision("float16", torch.device("cpu")), torch.nn.Parameter(torch.ones(1))
    optimizer = torch.optim.AdamW([weight])

    def unscaled() -> None:
        precision.scaler.scale(weight.sum()).backward()
        precision.scaler.unscale_(optimizer)

    scale = precision.scaler.get_scale()
    unscaled()
    with pytest.raises(RuntimeError, match="already been called"):
        unscaled()
    precision.renew()
    unscaled()
    precision.scaler.step(optimizer)
    precision.scaler.update()
    assert weight.item() != 1.0 and precision.scaler.get_scale() == scale


def test_gradients_that_are_never_numbers_end_in_a_sentence():
    network, device = torch.nn.Linear(1, 1), torch.device("cpu")
    precision, config = Precision("float16", device), TrainingConfig(precision="float16")
    optimizer = loop._optimizer(network, config)

    def root(net, batch, done):
        return {"root": (net(batch) * 0.0).abs().sqrt().sum() * 0.0}  # its slope: 0 times infinity

    with pytest.raises(IncrementalSegError, match="--precision float32"):
        for step in range(40):
            loop._step(network, root, torch.ones(1, 1), optimizer, precision, config, step)
    assert step > 10
