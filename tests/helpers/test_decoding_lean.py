"""The lean step: known architectures without the library's layers, number for number the same."""

import copy

import pytest
import torch
from torch.testing import assert_close
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from helpers import decoding, models, probe, rollout

SIZES = {
    "vocab_size": 40,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 96,
    "head_dim": 12,
    "bos_token_id": None,
    "eos_token_id": None,
}
SCALED = {"rope_parameters": {"rope_type": "linear", "factor": 3.0, "rope_theta": 500.0}}
MADE = {
    "gpt2": lambda: GPT2LMHeadModel(
        GPT2Config(
            vocab_size=40,
            n_embd=32,
            n_layer=3,
            n_head=4,
            n_positions=96,
            scale_attn_by_inverse_layer_idx=True,
            bos_token_id=None,
            eos_token_id=None,
        )
    ),
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**SIZES, attention_bias=True, mlp_bias=True)),
    "llama, scaled positions": lambda: LlamaForCausalLM(LlamaConfig(**SIZES, **SCALED)),
    "mistral": lambda: MistralForCausalLM(MistralConfig(**SIZES, sliding_window=None)),
    "qwen2": lambda: Qwen2ForCausalLM(
        Qwen2Config(**{k: v for k, v in SIZES.items() if k != "head_dim"})
    ),
    "qwen3": lambda: Qwen3ForCausalLM(Qwen3Config(**SIZES, tie_word_embeddings=True)),
}


def sharp(kind):
    """A model whose words are far from equally probable, so that a slip moves many of them."""
    torch.manual_seed(0)
    model = MADE[kind]().eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim > 1:
                weight.mul_(4)
            elif "bias" in name:
                weight.normal_(std=0.3)
    return model


def asked(width, groups=3):
    """Prompts of different lengths, padded on the left."""
    ids = torch.randint(40, (groups, width), generator=torch.Generator().manual_seed(1))
    return ids, torch.arange(width) >= torch.tensor([[0], [2], [width - 1]])


def written(model, width, way, limit=24, group_size=4, **settings):
    uniforms = rollout.draw_uniforms((3 * group_size, limit), torch.Generator().manual_seed(2))
    texts = way(model, *asked(width), group_size, limit)
    chosen = rollout.SamplingSettings((1, 2, 3), limit, group_size=group_size, **settings)
    with torch.no_grad():
        ids, *numbers = rollout._decode(texts, chosen, uniforms, 0.75)
    ended = torch.isin(ids, torch.tensor([1, 2, 3])).cumsum(1)
    inside = (ended == 0) | ((ended == 1) & torch.isin(ids, torch.tensor([1, 2, 3])))
    return ids.masked_fill(~inside, 0), *(n.masked_fill(~inside, 0) for n in numbers), inside


@pytest.mark.parametrize("width", [3, 20])
@pytest.mark.parametrize("kind", MADE)
def test_it_writes_what_the_library_writes(kind, width):
    model = sharp(kind)
    assert probe.reading(model).lean and decoding.leanable(model)
    assert decoding.LEAST_SHARED in range(4, 20), "both ways are tried"
    *plain, inside = written(model, width, decoding.cached)
    *lean, _ = written(model, width, decoding.lean)
    assert inside.sum(1).min() < 6 and inside.sum(1).max() > 15, "rows leave the batch"
    assert torch.equal(plain[0], lean[0])
    assert_close(plain[1:], lean[1:], rtol=0, atol=2e-5)
    batch = rollout.sample(
        model,
        *asked(width),
        eos_ids=(1, 2, 3),
        max_new_tokens=24,
        group_size=4,
        uniforms=rollout.draw_uniforms((12, 24), torch.Generator().manual_seed(2)),
    )
    assert torch.equal(batch.completion_ids, lean[0][:, : batch.completion_ids.shape[1]])
    with torch.no_grad():
        scores = rollout.completion_logprobs(model, batch)
    assert_close(scores, batch.old_logprobs, rtol=0, atol=2e-5)


def test_a_group_of_one_and_one_prompt_alone():
    model = sharp("llama")
    for width in (3, 20):
        *plain, _ = written(model, width, decoding.cached, group_size=1)
        *lean, _ = written(model, width, decoding.lean, group_size=1)
        assert torch.equal(plain[0], lean[0])
    ids = torch.tensor([[5, 6, 7]])
    with torch.no_grad():
        one, other = (
            way(model, ids, torch.ones_like(ids, dtype=torch.bool), 2, 3)
            for way in (decoding.cached, decoding.lean)
        )
        assert_close(next(one), next(other))
        step = None, torch.tensor([3, 4])
        assert_close(one.send(step), other.send(step))


def test_who_is_listened_to_is_called_by_the_library():
    model = sharp("gpt2")
    assert decoding.leanable(model)
    block = model.transformer.h[1]
    for each in (model, model.transformer, block, block.attn):
        hook = each.register_forward_hook(lambda *_: None)
        assert not decoding.leanable(model)
        hook.remove()
        hook = each.register_forward_pre_hook(lambda *_: None)
        assert not decoding.leanable(model)
        hook.remove()
    block.attn.forward = block.attn.forward
    assert not decoding.leanable(model)
    del block.attn.forward
    heard = []
    block.mlp.register_forward_hook(lambda *_: heard.append(1))
    assert decoding.leanable(model), "the small parts are called, with their hooks"
    written(model, 3, decoding.lean)
    assert len(heard) > 20


def test_only_float32_on_a_cpu_and_no_class_of_the_readers(monkeypatch):
    model = sharp("gpt2")
    assert not decoding.leanable(copy.deepcopy(model).double())
    assert not decoding.leanable(copy.deepcopy(model).bfloat16())

    class Mine(GPT2LMHeadModel):
        pass

    assert not decoding.leanable(Mine(model.config))
    monkeypatch.delitem(decoding.LEAN, "GPT2LMHeadModel")
    assert not decoding.leanable(model)


def without_positions(model, tokens, positions, attend):
    return decoding._gpt2_token(model, tokens, torch.zeros_like(positions), attend)


def without_the_last_block(model, tokens, positions, attend):
    blocks = model.transformer.h
    try:
        model.transformer.h = blocks[:-1]
        return decoding._gpt2_token(model, tokens, positions, attend)
    finally:
        model.transformer.h = blocks


@pytest.mark.parametrize("wrong", [without_positions, without_the_last_block])
def test_the_probe_takes_no_step_that_is_another_model(wrong, monkeypatch):
    monkeypatch.setitem(decoding.LEAN, "GPT2LMHeadModel", wrong)
    way = probe.reading(sharp("gpt2"))
    assert way.cached and way.shared and not way.lean


def test_rows_may_leave_in_any_order():
    model = sharp("qwen3")
    tokens = torch.randint(40, (12, 6), generator=torch.Generator().manual_seed(3))
    keeps = {1: [0, 2, 3, 5, 7, 10], 3: [1, 4, 5], 4: [2]}
    for share in (False, True):
        with torch.no_grad():
            plain = decoding.cached(model, *asked(5), 4, 6)
            lean = decoding.lean(model, *asked(5), 4, 6, share=share)
            assert torch.equal(next(plain), next(lean))
            rows, keep = torch.arange(12), None
            for t in range(6):
                step = keep, tokens[rows, t]
                assert_close(plain.send(step), lean.send(step))
                keep = torch.tensor(keeps[t]) if t in keeps else None
                rows = rows if keep is None else rows[keep]


@pytest.mark.parametrize("settings", [{}, {"temperature": 0.7, "top_k": 9}])
def test_drawing_piece_by_piece_is_the_same_to_the_last_bit(settings, monkeypatch):
    chance = torch.Generator().manual_seed(0)
    logits, uniforms = torch.randn(37, 500, generator=chance), torch.rand(37, generator=chance)
    chosen = rollout.SamplingSettings((), 1, **settings)
    whole = rollout.draw(logits, uniforms, chosen)
    for piece in (1, 500, 2000, 499):
        monkeypatch.setattr(rollout, "PIECE", piece)
        for one, other in zip(whole, rollout.draw(logits, uniforms, chosen), strict=True):
            assert one.dtype == other.dtype and torch.equal(one, other)


def test_an_adapter_writes_leanly_too():
    peft = pytest.importorskip("peft")
    adapter = peft.LoraConfig(target_modules=["c_attn"], fan_in_fan_out=True)
    adapted = peft.get_peft_model(sharp("gpt2"), adapter).eval()
    with torch.no_grad():
        for name, weight in adapted.named_parameters():
            if "lora_B" in name:
                weight.normal_()
    assert decoding.leanable(adapted) and models.unwrap(adapted) is not adapted
    *plain, _ = written(adapted, 3, decoding.cached)
    *lean, _ = written(adapted, 3, decoding.lean)
    assert torch.equal(plain[0], lean[0])
