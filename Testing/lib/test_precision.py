"""Mixed precision: what every device gets by itself."""

from __future__ import annotations

import pytest
import torch

from IncrementalSegLib.training import loop
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
