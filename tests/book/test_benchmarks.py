"""The parts of the benchmarks that need no other library: sizes, lengths, counting."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import meters, peers, scaling, workloads
from benchmarks.workloads import WORKLOADS
from helpers import decoding

TINY = workloads.Workload("tiny", 5, 4, shortest=2, ends=True, lessons=0)


def test_the_workloads_are_as_stated():
    model = workloads.new_model()
    assert 0.79e6 < sum(p.numel() for p in model.parameters()) < 0.83e6
    assert workloads.PROMPTS * workloads.GROUP_SIZE == 256
    tokenizer, (a, b) = workloads.tokenizer(), WORKLOADS.values()
    assert (a.prompt_tokens, a.max_new_tokens) == (6, 16)
    assert (b.prompt_tokens, b.shortest, b.max_new_tokens) == (64, 8, 48)
    for work in (a, b):
        asked = workloads.prompts(work, 40)
        assert len(set(asked)) == 40
        assert all(len(ids) == work.prompt_tokens for ids in tokenizer(asked).input_ids)
        ids, counts = workloads.lesson(work, torch.Generator().manual_seed(0), rows=4000)
        ended = ids[:, work.prompt_tokens :] == workloads.EOS
        lengths = counts.sum(1)
        assert lengths.min() == work.shortest and lengths.max() == work.max_new_tokens
        if work.ends:
            assert torch.equal(ended.int().argmax(1) + 1, lengths) and (ended.sum(1) == 1).all()
        else:
            assert not ended.any()


def test_rewards_leave_no_row_out_and_half_of_the_groups():
    completions = [f"{i:03d}" for i in range(256)]
    paid = torch.tensor(workloads.reward(completions, completions))
    assert paid.unique().numel() == 256 and paid.min() >= 0 and paid.max() < 1
    halved = torch.tensor(workloads.half_equal(completions, completions)).view(32, 8)
    assert int((halved.std(1) == 0).sum()) == 16


@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize("cached", [0, 7])
def test_the_count_of_operations_is_torchs(grad, cached):
    model = workloads.new_model()
    model.set_attn_implementation("eager")  # whose products torch counts one by one
    ids = torch.randint(3, 44, (3, 12), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        past = model(ids[:, :cached], use_cache=True).past_key_values if cached else None
    meter = meters.FlopMeter(model)
    with torch.set_grad_enabled(grad), FlopCounterMode(display=False) as counter:
        output = model(
            input_ids=ids[:, cached:], past_key_values=past, use_cache=True, logits_to_keep=2
        )
        if grad:
            output.logits.sum().backward()
    by_kind = counter.get_flop_counts()["Global"]  # attention's products are batched ones
    counted = sum(n for kind, n in by_kind.items() if str(kind) in ("aten.mm", "aten.addmm"))
    assert meter.flops == pytest.approx(counted, rel=1e-9) and counted > 0


def test_the_meter_does_not_keep_the_loop_from_its_lean_step():
    model = workloads.new_model().eval()
    meters.FlopMeter(model)
    assert decoding.leanable(model)


def test_rates_of_products_are_those_of_both_libraries():
    rates = meters.product_rates(workloads.new_model(), 64, trials=2)
    assert set(rates) <= {"MKL", "oneDNN"} and all(1e8 < rate < 1e14 for rate in rates.values())


def test_the_peak_and_the_memory_are_plausible():
    assert 1e8 < meters.gemm_peak(side=64, repeats=50, trials=2) < 1e14
    assert 50 < meters.peak_memory() < 1e5


def test_the_plain_loop_and_ours_write_the_same_lengths(tmp_path, monkeypatch):
    monkeypatch.setattr(workloads.tempfile, "gettempdir", lambda: str(tmp_path))
    asked = workloads.prompts(TINY, 64)
    activation = workloads.ACTIVATION
    plain = peers.PlainLoop(TINY, asked, workloads.reward, activation=activation)
    loop = workloads.our_loop(TINY, asked)
    before = [p.clone() for p in plain.model.parameters()]
    assert all(map(torch.equal, before, loop.lm.model.parameters()))
    record = loop.step()
    assert record.silent == 0 and plain.step() / 256 == pytest.approx(record.length, abs=0.2)
    assert not all(map(torch.equal, before, plain.model.parameters()))


def test_a_point_of_the_scaling_table():
    assert (
        scaling.BASE["words"]
        == len(workloads.VOCABULARY)
        == scaling.VARIED["vocabulary"][0]["words"]
    )
    found = scaling.point({"prompt_tokens": 4, "width": 16, "layers": 1}, "ours", 1)
    assert found["write"] > 0 and found["credit"] > 0
    assert found["ms"] > found["write"] + found["credit"] - 1e-6
    assert scaling.exponent([1, 10, 100], [2, 40, 800]) == pytest.approx(1.30103, abs=1e-5)
    sizes = [scaling.size_of("million parameters", p) for p in scaling.VARIED["million parameters"]]
    assert sizes == pytest.approx([0.11, 0.81, 8.9], rel=0.05)


def test_an_untrained_model_that_must_not_end_does_not():
    work = workloads.Workload("endless", 5, 40, shortest=40, ends=False, lessons=0)
    loop = workloads.our_loop(work, workloads.prompts(work, 64))
    assert loop.step().length == 40
