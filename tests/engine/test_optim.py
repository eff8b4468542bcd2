"""Training in bfloat16 on a CPU, and in float32 where the CPU does not have it."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch
from mmengine.registry import OPTIM_WRAPPERS
from torch import nn

from mmvanilla.engine import optim
from mmvanilla.engine.optim import BFloat16OptimWrapper, computes_in_bfloat16


def make(model: nn.Module, **kwargs) -> BFloat16OptimWrapper:
    wrapper = dict(type="BFloat16OptimWrapper", optimizer=torch.optim.SGD(model.parameters(), 0.1))
    return OPTIM_WRAPPERS.build({**wrapper, **kwargs})


@pytest.mark.parametrize("has_it", [True, False])
def test_computes_in_bfloat16_where_the_device_does(monkeypatch, recwarn, has_it):
    monkeypatch.setattr(optim, "computes_in_bfloat16", lambda device: has_it)
    model = nn.Linear(3, 4)
    wrapper = make(model)
    for _ in range(2):
        with wrapper.optim_context(model):
            output = model(torch.ones(2, 3))
        assert output.dtype == (torch.bfloat16 if has_it else torch.float32)
        before = model.weight.detach().clone()
        wrapper.update_params(output.float().square().mean())
        assert model.weight.dtype == torch.float32 and not torch.equal(model.weight, before)
    assert model(torch.ones(2, 3)).dtype == torch.float32
    said = {str(warning.message) for warning in recwarn}
    assert said == (set() if has_it else {"no bfloat16 on this cpu: it trains in float32"})


def test_processes_wait_for_each_other_only_where_accumulating_ends(monkeypatch):
    monkeypatch.setattr(optim, "computes_in_bfloat16", lambda device: True)
    model, held = nn.Linear(3, 4), []
    model.no_sync = lambda: held.append(True) or nullcontext()  # as DistributedDataParallel has it
    wrapper = make(model, accumulative_counts=2)
    wrapper.initialize_count_status(model, 0, 4)
    for _ in range(2):
        with wrapper.optim_context(model):
            loss = model(torch.ones(2, 3)).float().square().mean()
        wrapper.update_params(loss)
    assert held == [True]


def test_torch_says_what_the_device_has(monkeypatch):
    checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    for found in ((True, False), (False, True), (False, False)):
        for check, value in zip(checks, found, strict=True):
            monkeypatch.setattr(torch.cpu, check, lambda value=value: value, raising=False)
        assert computes_in_bfloat16("cpu") == any(found)
    for check in checks:  # an older torch
        monkeypatch.delattr(torch.cpu, check)
    assert not computes_in_bfloat16("cpu") and not computes_in_bfloat16("meta")
