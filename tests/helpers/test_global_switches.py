"""Global switches of torch that a reader has left on change no number of a run."""

import contextlib

import pytest
import torch

from tests.helpers import killable_runs


@contextlib.contextmanager
def switched(switch, on, off):
    switch(on)
    try:
        yield
    finally:
        switch(off)


SWITCHES = {
    "default dtype float64": lambda: switched(
        torch.set_default_dtype, torch.float64, torch.float32
    ),
    "default dtype bfloat16": lambda: switched(
        torch.set_default_dtype, torch.bfloat16, torch.float32
    ),
    "no gradients": torch.no_grad,
    "no gradients, globally": lambda: switched(torch.set_grad_enabled, False, True),
    "inference": torch.inference_mode,
    "deterministic algorithms": lambda: switched(torch.use_deterministic_algorithms, True, False),
    "anomaly detection": lambda: switched(torch.autograd.set_detect_anomaly, True, False),
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    "denormals flushed": lambda: switched(torch.set_flush_denormal, True, False),
}


def numbers():
    return killable_runs.numbers(killable_runs.start(steps=2, baseline="learned_value"))


@pytest.mark.parametrize("switch", SWITCHES)
@pytest.mark.filterwarnings("ignore:Anomaly Detection")
def test_the_numbers_are_those_without_it(switch):
    wanted = numbers()
    with SWITCHES[switch]():
        assert numbers() == wanted


def test_the_readers_own_chance_is_left_alone():
    """All chance of a run is its seed's, and a run draws none of the reader's."""
    torch.manual_seed(1)
    wanted = numbers()
    after = torch.rand(3)
    torch.manual_seed(1)
    assert torch.equal(after, torch.rand(3))
    torch.manual_seed(2)
    assert numbers() == wanted
