"""Micro-batches hold every row once."""

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
