"""Threads follow the work, and products the machine; the reader's word goes before ours."""

import copy
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from helpers import cpu, models, settings, train
from tests.helpers import killable_runs

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def as_a_reader(monkeypatch):
    """No variable of the tests' own, and what is changed is changed back."""
    for name in cpu.VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(cpu, "_chosen_here", 1)
    monkeypatch.setattr(cpu, "cores", lambda: 2)
    yield monkeypatch
    torch.set_num_threads(1)


def loop():
    return train.Loop(
        killable_runs.fresh(), killable_runs.PROMPTS, killable_runs.reward, killable_runs.CONFIG
    )


def test_a_small_model_gets_one_thread_and_a_large_one_all(as_a_reader):
    loop()
    assert torch.get_num_threads() == 1
    as_a_reader.setattr(cpu, "LARGE", 10_000)
    loop()
    assert torch.get_num_threads() == 2
    as_a_reader.setattr(cpu, "LARGE", 10**9)
    loop()
    assert torch.get_num_threads() == 1, "a small one again"


def test_what_the_reader_has_chosen_stays(as_a_reader):
    as_a_reader.setattr(cpu, "LARGE", 10_000)
    torch.set_num_threads(3)
    loop()
    assert torch.get_num_threads() == 3
    torch.set_num_threads(1)
    as_a_reader.setenv("OMP_NUM_THREADS", "1")
    loop()
    assert torch.get_num_threads() == 1


def test_a_container_with_one_core_has_one(monkeypatch):
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: "150000 100000\n")
    assert cpu.cores() == 1
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: "max 100000\n")
    assert cpu.cores() == len(os.sched_getaffinity(0))


WAYS = {  # however a kernel was started, the first cell imports one of these
    "helpers": "import helpers, torch",
    "torch first": "import torch, helpers",
    "course": "import course.exact, torch",
    "a chapter": "from course.ch05_reinforce import widgets; import torch",
}


@pytest.mark.parametrize("way", WAYS)
def test_in_any_process_that_imports_the_course(way):
    line = [sys.executable, "-c", WAYS[way] + "; print(torch.get_num_threads())"]
    plain = {k: v for k, v in os.environ.items() if k not in cpu.VARIABLES}
    for more, count in (({}, "1"), ({"OMP_NUM_THREADS": "2"}, "2")):
        done = subprocess.run(line, cwd=ROOT, env=plain | more, capture_output=True, text=True)
        assert done.stdout.strip() == count, done


def test_threads_that_wait_sleep():
    code = "import helpers, os; print(os.environ['OMP_WAIT_POLICY'])"
    for more, policy in (({}, "PASSIVE"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE")):
        plain = {k: v for k, v in os.environ.items() if k != "OMP_WAIT_POLICY"}
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, env=plain | more, capture_output=True, text=True
        )
        assert done.stdout.strip() == policy, done


# ------------------------------------------------------------------------------- matrix products


@pytest.fixture
def counted(monkeypatch):
    """How often oneDNN was asked."""
    asked, multiply = [], cpu._multiply
    monkeypatch.setattr(cpu, "_multiply", lambda *args: asked.append(1) or multiply(*args))
    return asked


class Two(nn.Module):
    """The two kinds of linear layers that models have."""

    def __init__(self, bias):
        super().__init__()
        self.first, self.second = nn.Linear(128, 256, bias=bias), Conv1D(128, 256)

    def forward(self, x):
        return self.second(self.first(x).tanh())


def gradients(model, x, fast):
    x = x.clone().requires_grad_()
    with cpu.products(fast), cpu.chosen_products():
        y = model(x)
    wanted = [x, *model.parameters()]
    return [y.detach(), *torch.autograd.grad(y.square().mean(), wanted)]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(160, 128), (4, 40, 128)])
def test_onednn_multiplies_as_torch_does(bias, shape, counted):
    torch.manual_seed(0)
    model, x = Two(bias), torch.randn(shape)
    plain = gradients(model, x, fast=False)
    assert not counted
    fast = gradients(model, x, fast=True)
    assert len(counted) == 6, "two forward, and two backward for each"
    exact = gradients(copy.deepcopy(model).double(), x.double(), fast=True)
    assert len(counted) == 6, "never in float64"
    for one, other, true in zip(plain, fast, exact, strict=True):
        assert one.shape == other.shape
        assert (one - other).norm() <= 1e-6 * one.norm()
        assert (other - true).norm() <= 1e-6 * true.norm()


def test_small_products_autocast_and_frozen_weights(counted):
    torch.manual_seed(0)
    model = Two(True)
    gradients(model, torch.randn(40, 128), fast=True)
    with torch.autocast("cpu", torch.bfloat16):
        assert gradients(model, torch.randn(160, 128), fast=True)[0].dtype == torch.bfloat16
    assert not counted
    model.requires_grad_(False)
    x = torch.randn(160, 128, requires_grad=True)
    with cpu.products(True), cpu.chosen_products():
        model(x).sum().backward()
    assert len(counted) == 4 and x.grad.abs().sum() > 0


def test_outside_all_is_as_it_was(counted):
    model, x = Two(True), torch.randn(160, 128)
    with cpu.products(True):
        before = copy.deepcopy(model.state_dict())
        assert torch.equal(model(x), copy.deepcopy(model)(x))
    torch.func.grad(lambda w: torch.func.functional_call(model, w, x).sum())(before)
    assert not counted


def test_where_it_is_absent_torch_multiplies_as_ever(counted, monkeypatch):
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    gradients(Two(True), torch.randn(160, 128), fast=True)
    assert not counted


def wide_loop(**changes):
    """Large enough for large products, and quick: 2 layers of width 128."""
    lm = models.load()
    config = copy.deepcopy(lm.model.config)
    config.n_embd = 128
    torch.manual_seed(0)
    wide = type(lm.model)(config).eval()
    lm = models.LanguageModel(wide, lm.tokenizer, lm.eos_ids, lm.context_length)
    config = settings.Config(steps=2, prompts_per_step=4, max_new_tokens=12, **changes)
    pay = lambda prompts, completions: [float(len(text)) for text in completions]  # noqa: E731
    return train.Loop(lm, killable_runs.PROMPTS, pay, config)


def test_the_loop_learns_the_same(counted):
    seen = []
    for fast in (False, True):
        loop = wide_loop(onednn=fast)
        records = [loop.step()]
        assert bool(counted) == fast
        gradient = torch.cat([p.grad.flatten().clone() for p in loop.lm.model.parameters()])
        seen.append((records[0], gradient))
    (plain, one), (fast, other) = seen
    assert plain.completions == fast.completions
    assert plain.grad_norm == pytest.approx(fast.grad_norm, rel=1e-6)
    assert 0 < (one - other).norm() <= 1e-6 * one.norm()


def test_activations_that_are_computed_again(counted):
    norms = []
    for fast in (False, True):
        loop = wide_loop(onednn=fast)
        loop.lm.model.gradient_checkpointing_enable()
        norms.append(loop.step().grad_norm)
    assert norms[0] == pytest.approx(norms[1], rel=1e-5)
    with cpu.products(True):
        _, batch, _ = loop.write(torch.Generator().manual_seed(0))
        before = len(counted)
        loop.credit(batch, torch.linspace(-1, 1, len(batch.lengths)))
    assert 0 < before == len(counted), "it would be computed again in another way"


@pytest.mark.parametrize(("slow", "chosen"), [("linear", True), ("_multiply", False)])
def test_the_faster_one_is_chosen(slow, chosen, monkeypatch):
    model = wide_loop(onednn=False).lm.model

    def late(x, weight, bias=None):
        time.sleep(0.02)
        return x @ weight.t()

    monkeypatch.setattr(cpu, slow, late)
    assert cpu.onednn_is_faster(model, 1024) == chosen
    assert wide_loop().by_onednn == chosen
    assert wide_loop(onednn=not chosen).by_onednn == (not chosen)


@pytest.mark.parametrize("why", ["small", "float64", "absent", "as fast"])
def test_oneDNN_is_not_chosen_where_it_cannot_pay(why, monkeypatch):  # noqa: N802
    model, rows = wide_loop(onednn=False).lm.model, 1024
    late = lambda x, weight, bias=None: time.sleep(0.005)  # noqa: E731
    monkeypatch.setattr(cpu, "linear", late)
    monkeypatch.setattr(cpu, "_multiply", late if why == "as fast" else lambda *_: None)
    if why == "small":
        rows = 8
    if why == "float64":
        model = copy.deepcopy(model).double()
    if why == "absent":
        monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert not cpu.onednn_is_faster(model, rows)
    monkeypatch.undo()
