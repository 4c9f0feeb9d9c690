"""Micro-batches hold every row once."""

import types

import pytest
import torch

from helpers import decoding, models, rollout, scoring


def test_micro_batches_hold_every_row_once_within_their_budget():
    lengths = torch.tensor([3, 9, 1, 9, 4, 2, 30])
    pieces = scoring.split(lengths, budget=20, prompt_tokens=1)
    assert sorted(torch.cat(pieces).tolist()) == list(range(7))
    for piece in pieces:
        assert len(piece) == 1 or len(piece) * (int(lengths[piece].max()) + 1) <= 20
    assert [piece.tolist() for piece in pieces] == [[2, 5, 0, 4], [1, 3], [6]]  # 4·5, 2·10, 31
    with pytest.raises(ValueError, match="budget must be ≥ 1"):
        scoring.split(lengths, budget=0)


def test_prompts_of_which_no_row_is_scored_are_not_read(reviews):
    batch = rollout.sample(
        reviews.model,
        *reviews.encode(["the film", "i", "the cast was"]),
        rollout.SamplingSettings(reviews.eos_ids, 6, group_size=2),
        generator=torch.Generator().manual_seed(0),
    )
    rows, every = torch.tensor([5, 0]), torch.arange(6)
    with torch.no_grad():
        some = scoring.SharedPrompts(reviews.model, batch, rows, group_size=2)
        whole = scoring.SharedPrompts(reviews.model, batch, every, group_size=2)
        part = scoring.select(batch, rows)
        torch.testing.assert_close(some.logits(part, rows), whole.logits(part, rows))
    assert some.groups.tolist() == [0, 2] and len(some.mask) == 2


def test_a_cache_with_room_is_one_that_grows(reviews):
    ids, mask = reviews.encode(["the film was", "i"])
    seen = []
    for room in (None, 6):
        cache = decoding.new_cache(reviews.model, room=room)
        kinds = {"past_key_values": cache, "use_cache": True}
        with torch.no_grad():
            models.forward(reviews.model, ids, mask, **kinds)
            cache.batch_repeat_interleave(2)
            cache.batch_select_indices(torch.tensor([3, 0, 1]))
            rows = mask.repeat_interleave(2, dim=0)[[3, 0, 1]]
            rows = torch.cat([rows, rows.new_ones(3, 1)], dim=1)
            seen.append(models.forward(reviews.model, ids[:1, :1].expand(3, 1), rows, **kinds))
        assert cache.get_seq_length() == ids.shape[1] + 1
    assert torch.equal(seen[0].logits, seen[1].logits)


class Sized(torch.nn.Module):
    """What a budget depends on."""

    def __init__(self, device, words):
        super().__init__()
        sizes = {"vocab_size": words, "hidden_size": 768, "num_hidden_layers": 12}
        self.device, self.config = torch.device(device), types.SimpleNamespace(**sizes)


@pytest.mark.parametrize(("words", "tokens"), [(62, 1024), (8192, 1024), (50257, 166), (10**6, 64)])
def test_many_words_make_small_micro_batches(words, tokens):
    assert scoring.budget_of(Sized("cpu", words)) == tokens


@pytest.mark.parametrize(
    ("gib", "words", "tokens"), [(800, 62, 2**16), (16, 50257, 2229), (4, 200_000, 1024)]
)
def test_a_gpu_gets_as_many_tokens_as_it_has_room_for(gib, words, tokens, monkeypatch):
    about = types.SimpleNamespace(total_memory=gib * 2**30)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: about)
    assert scoring.budget_of(Sized("cuda", words)) == tokens


def test_micro_batches_by_hand():
    def pieces(lengths, **settings):
        return [p.tolist() for p in scoring.split(torch.tensor(lengths), **settings)]

    assert pieces([2, 2, 2], budget=4) == [[0, 1], [2]]
    assert pieces([2, 2, 2], budget=3) == [[0], [1], [2]]
    assert pieces([3, 1, 2], budget=6) == [[1, 2], [0]]
    assert pieces([3, 1, 2], budget=9) == [[1, 2, 0]]
    assert pieces([9, 1], budget=4) == [[1], [0]], "one row may exceed it alone"
    assert pieces([3, 1, 2], budget=12, prompt_tokens=4) == [[1, 2], [0]]
    assert pieces([1, 1, 1], budget=5, prompt_tokens=1) == [[0, 1], [2]]
    assert pieces([1] * 40, budget=100) == [list(range(40))], "equal ones in their order"


@pytest.fixture(scope="module")
def written(reviews):
    return rollout.sample(
        reviews.model,
        *reviews.encode(["the film", "i loved the plot"]),
        eos_ids=reviews.eos_ids,
        max_new_tokens=9,
        group_size=3,
        generator=torch.Generator().manual_seed(0),
    )


def test_select_cuts_to_the_longest(written):
    rows = torch.tensor([int(written.lengths.argmin()), 0])
    part = scoring.select(written, rows)
    width = int(written.lengths[rows].max())
    for name in ("completion_ids", "completion_mask", "old_logprobs", "entropies"):
        assert torch.equal(getattr(part, name), getattr(written, name)[rows][:, :width]), name
    assert torch.equal(part.prompt_ids, written.prompt_ids[rows])


def scored(model, batch, rows, **settings):
    settings = {"group_size": 3, "budget": 12} | settings
    return list(scoring.score(model, batch, torch.tensor(rows), **settings))


def test_prompts_are_shared_unless_told_otherwise(reviews, written, monkeypatch):
    made, shared = [], scoring.SharedPrompts
    monkeypatch.setattr(scoring, "SharedPrompts", lambda *a, **k: made.append(1) or shared(*a, **k))
    with torch.no_grad():
        by_default = scored(reviews.model, written, range(6))
        assert len(made) == 1
        alone = scored(reviews.model, written, range(6), share_prompts=False)
        assert len(made) == 1
        scoring.against_reference(
            reviews.model, reviews.model, written, group_size=3, share_prompts=False
        )
        assert len(made) == 1
        scoring.against_reference(reviews.model, reviews.model, written, group_size=3)
        assert len(made) == 3
    lengths, prompts = written.lengths, written.prompt_ids.shape[1]
    assert [len(p[0]) for p in by_default] == [len(p) for p in scoring.split(lengths, budget=12)]
    longer = scoring.split(lengths, budget=12, prompt_tokens=prompts)
    assert [len(p[0]) for p in alone] == [len(p) for p in longer] != [len(p[0]) for p in by_default]


@pytest.mark.parametrize("rows", [[0], [4], [1, 2]])
@pytest.mark.parametrize("limit", [1, 9])
def test_a_few_rows_have_their_own_numbers(reviews, written, rows, limit):
    cut = {
        name: t[:, :limit] if t.ndim == 2 and t.shape[1] == written.completion_ids.shape[1] else t
        for name, t in vars(written).items()
    }
    batch = rollout.RolloutBatch(**cut | {"lengths": written.lengths.clamp(max=limit)})
    with torch.no_grad():
        for some, part, logits, found in scored(reviews.model, batch, rows):
            width = int(batch.lengths[some].max())
            assert logits.shape[:2] == found.shape == (len(some), width)
            assert torch.allclose(found, batch.old_logprobs[some][:, :width], atol=1e-5)
            assert torch.equal(part.completion_ids, batch.completion_ids[some][:, :width])
        warm = scored(reviews.model, batch, rows, temperature=2.0)
        assert not torch.allclose(warm[0][3], found if len(rows) == 1 else warm[0][3] + 1)


def test_the_reference_is_asked_without_a_graph_at_temperature_one(reviews, written):
    found = scoring.against_reference(reviews.model, reviews.model, written, group_size=3)
    assert not any(t.requires_grad for t in found)
    assert torch.allclose(found[0], written.old_logprobs, atol=1e-5)
    assert found[1].abs().max() < 1e-6


def test_prompts_can_be_shared_with_gradients_on(reviews):
    mask = torch.ones(2, 3, dtype=torch.bool)
    assert torch.is_grad_enabled() and scoring.can_share(reviews.model, mask)


class Layer(torch.nn.Module):
    """One that is told to compute its activations again."""

    def __init__(self, rate):
        super().__init__()
        self.gradient_checkpointing, self.dropout, self.name_of_dropout = True, rate, "none"
        self.eval()


@pytest.mark.parametrize(("rate", "refused"), [(0.0, False), (0.5, True), (1.0, True), (1, False)])
def test_a_layer_that_drops_out_by_itself_is_refused(rate, refused):
    model = torch.nn.Sequential(Layer(0.0), Layer(rate))
    if refused:
        words = "needs training mode, in which Layer drops out"
        with pytest.raises(ValueError, match=words), scoring._recomputing(model):
            pass
        return
    with scoring._recomputing(model):
        assert all(layer.training for layer in model)
    assert not any(layer.training for layer in model)
    with torch.no_grad(), scoring._recomputing(model):
        assert not any(layer.training for layer in model)


def test_a_model_that_does_not_say_its_sizes(monkeypatch):
    about = types.SimpleNamespace(total_memory=800 * 2**30)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: about)
    for device, tokens in (("cpu", 1024), ("cuda", 2047)):  # 200 GiB / (20 + 100 · 1024²)
        model = Sized(device, 0)
        model.config = types.SimpleNamespace()
        assert scoring.budget_of(model) == tokens
