"""The loop on other models and settings than the shipped ones: what works, and what is refused."""

import copy
import dataclasses

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from tokenizers.processors import TemplateProcessing
from torch.testing import assert_close
from transformers import AutoModelForCausalLM as Auto
from transformers import GPT2Config, MistralConfig, PreTrainedTokenizerFast

from course.worlds.reviews import sentiment_reward
from helpers import (
    advantages,
    checkpoints,
    decoding,
    models,
    rollout,
    scoring,
    settings,
    train,
    value_head,
)
from helpers.settings import Config
from tests.helpers import example_loops

CONFIG = Config(prompts_per_step=2, group_size=4, max_new_tokens=6, steps=2)


def with_tokenizer_of(reviews, config):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Auto.from_config(config).eval()
    return models.LanguageModel(model, reviews.tokenizer, reviews.eos_ids, 64)


def run(lm, config=CONFIG, prompts=("the film", "i"), **kwargs):
    return list(train.train(lm, prompts, sentiment_reward, config, **kwargs))


def test_sliding_windows_are_sampled_scored_and_trained(reviews):
    config = MistralConfig(
        vocab_size=len(reviews.tokenizer),
        hidden_size=32,
        intermediate_size=48,
        sliding_window=4,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        initializer_range=0.3,
        max_position_embeddings=64,
        bos_token_id=None,
        eos_token_id=None,
    )
    lm = with_tokenizer_of(reviews, config)
    assert not decoding.has_plain_cache(lm.model) and not decoding.supported(lm.model)
    loop = train.Loop(lm, example_loops.PROMPTS, sentiment_reward, CONFIG, copy.deepcopy(lm))
    for record in (loop.step(), loop.step()):
        assert record.mismatch < 1e-4 and record.grad_norm > 0
        assert abs(record.kl) < 1e-4 or record.step


def test_eager_attention_is_not_replayed(reviews):
    config = GPT2Config(vocab_size=len(reviews.tokenizer), n_embd=16, n_layer=1, n_head=2)
    lm = with_tokenizer_of(reviews, config)
    assert decoding.supported(lm.model)
    lm.model.set_attn_implementation("eager")
    assert not decoding.supported(lm.model)


@pytest.mark.parametrize("frozen", ["transformer.h.0", "transformer.w", "transformer.h"])
def test_frozen_layers_stay_and_the_others_learn(frozen):
    lm = models.load(models.REVIEWS_MODEL)
    before = {name: p.detach().clone() for name, p in lm.model.named_parameters()}
    for name, parameter in lm.model.named_parameters():
        parameter.requires_grad_(not name.startswith(frozen))
    if frozen == "transformer.h":  # everything below the last layer norm
        lm.model.transformer.wte.weight.requires_grad_(False)
        lm.model.transformer.wpe.weight.requires_grad_(False)
    run(lm)
    for name, parameter in lm.model.named_parameters():
        if not parameter.requires_grad:
            assert torch.equal(parameter, before[name]), name
    assert not torch.equal(lm.model.transformer.ln_f.weight, before["transformer.ln_f.weight"])


def test_what_is_about_speed_alone_may_change_on_resume(tmp_path):
    lm, through = models.load(models.REVIEWS_MODEL), models.load(models.REVIEWS_MODEL)
    run(lm, CONFIG, folder=tmp_path)
    more = {"prompts_per_step": 2, "group_size": 4, "max_new_tokens": 6, "steps": 4}
    faster = Config(**more, tokens_per_micro_batch=7, share_prompts=False)
    rest = run(lm, faster, folder=tmp_path)
    wanted = run(through, Config(**more))[2:]
    assert [r.completions for r in rest] == [r.completions for r in wanted]
    with pytest.raises(ValueError, match="lr: 0.0004 there, 0.1 here"):
        run(lm, Config(**more, lr=0.1), folder=tmp_path)


def test_weights_that_are_stored_under_other_names_are_kept_under_their_own_too(
    tmp_path, monkeypatch
):
    lm, through = models.load(models.REVIEWS_MODEL), models.load(models.REVIEWS_MODEL)
    saved = models.save

    def renamed(lm, folder):
        saved(lm, folder)
        (folder / "model.safetensors").rename(folder / "adapter_model.safetensors")

    monkeypatch.setattr(models, "save", renamed)
    run(lm, folder=tmp_path)
    rest = run(
        models.load(models.REVIEWS_MODEL), dataclasses.replace(CONFIG, steps=4), folder=tmp_path
    )
    wanted = run(through, dataclasses.replace(CONFIG, steps=4))[2:]
    assert [r.completions for r in rest] == [r.completions for r in wanted]
    assert [r.grad_norm for r in rest] == [r.grad_norm for r in wanted]


def test_checkpoints_are_sorted_by_number(tmp_path):
    for step in (999_999, 1_000_000, 20):
        (tmp_path / f"step-{step:06d}").mkdir()
    names = [path.name for path in checkpoints._whole_names(tmp_path)]
    assert names == ["step-000020", "step-999999", "step-1000000"]


# --- tokenizers ---


def tokenizer(template: str | None, **special) -> PreTrainedTokenizerFast:
    words = Tokenizer(WordLevel({"<s>": 0, "</s>": 1, "a": 2, "b": 3, "<unk>": 4}, "<unk>"))
    words.pre_tokenizer = WhitespaceSplit()
    if template:
        words.post_processor = TemplateProcessing(
            single=template, special_tokens=[("<s>", 0), ("</s>", 1)]
        )
    return PreTrainedTokenizerFast(tokenizer_object=words, **special)


@pytest.mark.parametrize(
    ("template", "text", "wanted"),
    [
        (None, "a b", [2, 3]),
        ("<s> $A </s>", "a b", [0, 2, 3]),  # the EOS that it adds would end the prompt
        (None, "a </s>", [2, 1]),  # the EOS that the reader wrote stays
        ("<s> $A", "<s> a", [0, 2]),  # a chat template has written BOS already
    ],
)
def test_a_prompt_is_read_as_it_was_written(reviews, template, text, wanted):
    both = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    lm = models.LanguageModel(reviews.model, tokenizer(template, **both), (1,), 64)
    assert lm.encode([text])[0].tolist() == [wanted]


def test_one_token_for_beginning_end_and_unknown(reviews):
    one = dict.fromkeys(("bos_token", "eos_token", "unk_token"), "</s>")
    lm = models.LanguageModel(reviews.model, tokenizer(None, **one), (1,), 64)
    assert lm.encode(["</s> a"])[0].tolist() == [[1, 2]]


# --- precision ---


def test_half_precision_weights_and_nothing_to_learn_are_refused():
    lm = models.load(models.REVIEWS_MODEL, dtype=torch.bfloat16)
    with pytest.raises(ValueError, match="bfloat16.*small steps round to none"):
        run(lm)
    lm = models.load(models.REVIEWS_MODEL)
    lm.model.requires_grad_(False)
    with pytest.raises(ValueError, match="nothing to train"):
        run(lm)


def test_a_value_is_not_fitted_in_bfloat16(reviews):
    batch = example_loops.sampled(reviews)
    mask = batch.completion_mask
    paid = scoring.token_rewards(torch.randn(len(mask)), torch.zeros(mask.shape), mask)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        judged, sums = value_head.compare(reviews.model, batch, paid, None, lam=1.0)
        again, _ = value_head.compare(reviews.model, batch, paid, sums, lam=1.0)
    assert sums.dtype == judged.dtype == again.dtype == torch.float64


def test_a_reward_is_called_without_gradients():
    def reward(prompts, completions):
        return (
            torch.ones(len(prompts), requires_grad=True) * 2
            if torch.is_grad_enabled()
            else [3.0 for _ in prompts]
        )

    assert settings.call_reward(reward, ["a"], ["b"], step=0).tolist() == [3.0]


def test_the_reference_is_read_without_dropout():
    lm, ref = models.load(models.REVIEWS_MODEL), models.load(models.REVIEWS_MODEL)
    ref.model.train()
    for module in ref.model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.5
    assert abs(run(lm, ref_policy=ref)[0].kl) < 1e-5


def test_a_reference_with_more_logits_is_refused(reviews):
    config = GPT2Config(vocab_size=len(reviews.tokenizer) + 8, n_embd=16, n_layer=1, n_head=2)
    wider = with_tokenizer_of(reviews, config)
    with pytest.raises(ValueError, match="logits"):
        run(reviews, ref_policy=wider)


# --- small ones ---


def test_equal_groups_are_exactly_zero_and_others_are_left_alone():
    groups = torch.tensor([[0.1, 0.1, 0.1], [0.1, 0.1, 0.1 + 1e-5], [0.0, 0.0, 0.0]])
    judged = advantages.zero_where_equal(advantages.leave_one_out(groups), groups)
    assert (judged[[0, 2]] == 0).all() and (judged[1] != 0).all()
    assert_close(judged[1], advantages.leave_one_out(groups)[1])


def test_who_scores_is_who_sampled(reviews):
    loop = train.Loop(copy.deepcopy(reviews), example_loops.PROMPTS, sentiment_reward, CONFIG)
    batch = example_loops.sampled(reviews)
    gaps = loop.credit(rollout.RolloutBatch(**vars(batch)), torch.ones(32))
    assert 0 < gaps.max() < 1e-5
    shifted = {**vars(batch), "old_logprobs": batch.old_logprobs - 0.25 * batch.completion_mask}
    assert_close(
        loop.credit(rollout.RolloutBatch(**shifted), torch.ones(32)),
        torch.full((32,), 0.25),
        rtol=0,
        atol=1e-4,
    )
    assert (loop.credit(batch, torch.zeros(32)) == 0).all()
