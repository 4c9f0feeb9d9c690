"""Micro-batches hold every row once."""

import pytest
import torch

from helpers import (
    microbatches,
)


def test_micro_batches_hold_every_row_once_within_their_budget():
    lengths = torch.tensor([3, 9, 1, 9, 4, 2, 30])
    pieces = microbatches.split(lengths, budget=20, prompt_tokens=1)
    assert sorted(torch.cat(pieces).tolist()) == list(range(7))
    for piece in pieces:
        assert len(piece) == 1 or len(piece) * (int(lengths[piece].max()) + 1) <= 20
    assert [piece.tolist() for piece in pieces] == [[2, 5, 0, 4], [1, 3], [6]]  # 4·5, 2·10, 31
    with pytest.raises(ValueError, match="at least 1 token"):
        microbatches.split(lengths, budget=0)
