"""Sampling against the exact joint, and sampling-time scores against a second pass."""

import dataclasses

import pytest
import torch
import transformers
from torch.testing import assert_close

from course.exact import oracle
from course.worlds import tiny_models
from helpers import logprobs, models, rollout

SETTINGS = [
    {},
    {"temperature": 0.7},
    {"top_k": 3},
    {"top_p": 0.8},
    {"temperature": 1.3, "top_k": 4, "top_p": 0.9},
]


def sample_words(world, model, prompt, count, seed=0, **settings):
    ids = torch.full((1, 1), world.prompt_id(prompt))
    return rollout.sample(
        model,
        ids,
        torch.ones_like(ids, dtype=torch.bool),
        rollout.SamplingSettings(world.eos_ids, world.max_length, group_size=count, **settings),
        generator=torch.Generator().manual_seed(seed),
    )


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_it_draws_from_exactly_the_joint_of_its_settings(world, settings):
    model = tiny_models.word_transformer(world, seed=7)
    batch = sample_words(world, model, "praise", 6000, **settings)
    every = oracle.enumerate_completions(world)
    index = {text: i for i, text in enumerate(every.texts)}
    rows = zip(batch.completion_ids.tolist(), batch.lengths.tolist(), strict=True)
    texts = [world.decode(row[:n]) for row, n in rows]
    assert set(texts) <= set(index), "a text that this world does not have"
    drawn = torch.tensor([index[text] for text in texts])
    policy = models.as_policy(model)
    with torch.no_grad():
        logp = oracle.completion_logprobs(
            lambda ids: logprobs.sampling_logits(policy(ids), **settings), world, "praise"
        )
    counts = torch.bincount(drawn, minlength=341)
    assert oracle.chi_square_p_value(counts, logp.exp()) > 1e-4
    # The noted log-probabilities are those of the distribution that was drawn from.
    assert_close(batch.old_logprobs.sum(-1), logp[drawn], rtol=0, atol=1e-9)
    assert torch.equal(batch.finished, every.finished[drawn])


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_sampling_time_scores_equal_a_teacher_forced_pass(reviews, settings):
    prompts = ["the film", "i", "the cast was not very", "the ending felt dull but"]
    batch = rollout.sample(
        reviews.model,
        *reviews.encode(prompts),
        rollout.SamplingSettings(reviews.eos_ids, 20, group_size=8, **settings),
        generator=torch.Generator().manual_seed(1),
    )
    again = rollout.completion_logprobs(reviews.model, batch, **settings)
    assert batch.old_logprobs.dtype == torch.float32
    assert_close(batch.old_logprobs, again.detach(), rtol=0, atol=1e-5)
    if settings:
        plain = rollout.completion_logprobs(reviews.model, batch).detach()
        assert (plain - batch.old_logprobs).abs().max() > 0.05


def test_eos_is_scored_and_what_follows_is_padding(reviews):
    batch = rollout.sample(
        reviews.model,
        *reviews.encode(["the film", "the cast"]),
        rollout.SamplingSettings(reviews.eos_ids, 40, group_size=8),
        generator=torch.Generator().manual_seed(2),
    )
    eos = reviews.eos_ids[0]
    assert batch.finished.all() and batch.lengths.unique().numel() > 2
    for ids, mask, n, logp in zip(
        batch.completion_ids, batch.completion_mask, batch.lengths, batch.old_logprobs, strict=True
    ):
        assert ids[n - 1] == eos and (ids[: n - 1] != eos).all()
        assert mask.tolist() == [t < n for t in range(len(mask))]
        assert logp[n - 1] < 0 and (logp[n:] == 0).all() and (ids[n:] == 0).all()
    assert batch.completion_ids.shape[1] == batch.lengths.max()


def test_the_end_is_learned_from_its_own_gradient(reviews):
    """Masking EOS out would leave this gradient at zero."""
    ids, mask = reviews.encode(["the film was good ."])
    batch = rollout.RolloutBatch(
        ids,
        mask,
        torch.tensor([[reviews.eos_ids[0]]]),
        torch.tensor([[True]]),
        torch.tensor([1]),
        torch.tensor([True]),
        torch.zeros(1, 1),
        torch.zeros(1, 1),
    )
    score = rollout.completion_logprobs(reviews.model, batch).sum()
    grads = torch.autograd.grad(score, list(reviews.model.parameters()), allow_unused=True)
    assert max(float(g.abs().max()) for g in grads if g is not None) > 1e-3


def test_truncation_is_reported(reviews):
    batch = rollout.sample(
        reviews.model,
        *reviews.encode(["the film"]),
        rollout.SamplingSettings(reviews.eos_ids, 2, group_size=16),
        generator=torch.Generator().manual_seed(0),
    )
    assert not batch.finished.any() and (batch.lengths == 2).all() and batch.completion_mask.all()


def test_several_ends_and_an_end_at_once(reviews):
    vocab = reviews.tokenizer.get_vocab()
    both = (vocab["was"], vocab["felt"], vocab["seemed"], vocab["looked"])
    batch = rollout.sample(
        reviews.model,
        *reviews.encode(["the film"]),
        rollout.SamplingSettings(both, 9, group_size=32),
        generator=torch.Generator().manual_seed(0),
    )
    assert (
        batch.finished.all() and (batch.lengths == 1).all() and batch.completion_ids.shape[1] == 1
    )


def test_one_generator_is_the_only_source_of_chance(reviews):
    def draw(seed):
        return rollout.sample(
            reviews.model,
            *reviews.encode(["the film"]),
            rollout.SamplingSettings(reviews.eos_ids, 9, group_size=8),
            generator=torch.Generator().manual_seed(seed),
        ).completion_ids

    state = torch.random.get_rng_state()
    assert torch.equal(draw(3), draw(3)) and not torch.equal(draw(3), draw(4))
    assert torch.equal(torch.random.get_rng_state(), state)


def test_groups_are_neighbours_and_prompts_are_unchanged(reviews):
    ids, mask = reviews.encode(["the film was", "i"])
    given = ids.clone()
    batch = rollout.sample(
        reviews.model,
        ids,
        mask,
        rollout.SamplingSettings(reviews.eos_ids, 3, group_size=3),
        generator=torch.Generator().manual_seed(0),
    )
    assert torch.equal(ids, given)
    assert torch.equal(batch.prompt_ids, ids[[0, 0, 0, 1, 1, 1]])
    assert torch.equal(batch.prompt_mask, mask[[0, 0, 0, 1, 1, 1]])


def test_sampling_and_scoring_leave_the_models_mode_and_gradients_alone(reviews):
    reviews.model.train()
    try:
        batch = rollout.sample(
            reviews.model,
            *reviews.encode(["the film"]),
            rollout.SamplingSettings(reviews.eos_ids, 3),
            generator=torch.Generator().manual_seed(0),
        )
        assert reviews.model.training and not batch.old_logprobs.requires_grad
    finally:
        reviews.model.eval()
    assert rollout.completion_logprobs(reviews.model, batch).requires_grad


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"max_new_tokens": 95}, "context of 96.*lower max_new_tokens to 93"),
        ({"max_new_tokens": 0}, "max_new_tokens must be ≥ 1"),
        ({"group_size": 0}, "group_size must be ≥ 1"),
        ({"temperature": 0.0}, "temperature must be > 0"),
    ],
)
def test_settings_that_cannot_work(reviews, change, message):
    settings = {"max_new_tokens": 4, "group_size": 1, "temperature": 1.0} | change
    with pytest.raises(ValueError, match=message):
        rollout.sample(
            reviews.model,
            *reviews.encode(["the film"]),
            rollout.SamplingSettings(reviews.eos_ids, **settings),
            generator=torch.Generator(),
        )


def test_a_batch_names_its_parts_as_the_house_does():
    names = [field.name for field in dataclasses.fields(rollout.RolloutBatch)]
    assert names == [
        "prompt_ids",
        "prompt_mask",
        "completion_ids",
        "completion_mask",
        "lengths",
        "finished",
        "old_logprobs",
        "entropies",
    ]


def test_left_padding_changes_nothing_for_a_word_transformer(world):
    model = tiny_models.word_transformer(world, seed=1)
    ids = torch.tensor([[0, 0, 5, 1], [5, 0, 2, 3]])
    mask = torch.tensor([[False, False, True, True], [True, True, True, True]])
    with torch.no_grad():
        padded = models.forward(model, ids, mask).logits[0, 2:]
        alone = model(input_ids=ids[:1, 2:]).logits[0]
    assert_close(padded, alone, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("ids", "mask", "eos", "message"),
    [
        (torch.ones(1, 2).long(), torch.tensor([[True, False]]), (2,), "padding on the left"),
        (torch.ones(1, 0).long(), torch.ones(1, 0).bool(), (2,), "P ≥ 1"),
        (torch.ones(1, 2).long(), torch.ones(1, 2), (2,), "must be bool"),
        (torch.ones(1, 2).long(), torch.ones(1, 3).bool(), (2,), r"shape \(G, P\)"),
        (torch.ones(1, 2).long(), torch.ones(1, 2).bool(), 2, r"tuple\[int, \.\.\.\]"),
    ],
)
def test_prompts_in_the_wrong_form_are_refused(reviews, ids, mask, eos, message):
    with pytest.raises(ValueError, match=message):
        rollout.sample(
            reviews.model, ids, mask, rollout.SamplingSettings(eos, 4), generator=torch.Generator()
        )


@pytest.mark.filterwarnings("ignore:.*read whole for each new token")
def test_a_model_without_a_key_value_cache_is_read_whole_and_sampled_rightly():
    config = transformers.MambaConfig(
        vocab_size=11, hidden_size=16, num_hidden_layers=1, state_size=4
    )
    model = transformers.MambaForCausalLM(config)
    ids = torch.tensor([[1, 3, 4], [0, 5, 1]])
    mask = torch.tensor([[True, True, True], [False, True, True]])
    chosen = rollout.SamplingSettings((2,), 6, group_size=3)
    generator = torch.Generator().manual_seed(0)
    batch = rollout.sample(model, ids, mask, chosen, generator=generator)
    assert len(set(batch.lengths.tolist())) > 1
    for row in range(6):
        prompt, length = ids[row // 3][mask[row // 3]], int(batch.lengths[row])
        text = batch.completion_ids[row, :length]
        with torch.no_grad():
            logits = model(torch.cat([prompt, text])[None]).logits[0, len(prompt) - 1 : -1]
        alone = logits.log_softmax(-1).gather(-1, text[:, None])[:, 0]
        assert torch.allclose(alone, batch.old_logprobs[row, :length], atol=1e-5)
    again = rollout.completion_logprobs(model, batch)
    assert torch.allclose(again, batch.old_logprobs, atol=1e-5)
