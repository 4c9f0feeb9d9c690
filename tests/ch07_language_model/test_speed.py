"""The work that each speed-up saves is counted, and none changes a text or a gradient."""

import torch

from course.ch07_language_model import speed
from course.worlds import tiny_models, word_world
from helpers.settings import Config

WORLD = word_world.WORD_WORLD


def test_each_speed_up_saves_the_positions_that_it_should():
    def load():
        return tiny_models.word_language_model(WORLD, tiny_models.word_transformer(WORLD, seed=7))

    config = Config(prompts_per_step=2, group_size=2, max_new_tokens=4)
    judged = torch.tensor([1.0, -1.0, 0.0, 0.0], dtype=torch.float64)
    found = speed.ladder(load, WORLD.prompts, WORLD.reward, config, judged)
    assert list(found)[0] == "cache" and len(found) == 5
    one = found["cache"]
    lengths = [len(text.split()) for text in one.texts]  # the full stop is the EOS
    # A prompt is one token, read once a group; then all four rows read a token three times.
    assert one.positions == (2 * 1 + 4 * 3, 4 * (1 + 3))  # scored: the last token is not read
    assert found["+ prompts shared"].positions[1] == 2 * 1 + 4 * 3
    assert found["+ silent rows skipped"].positions[1] == 1 * 1 + 2 * 3  # one group is silent
    assert max(lengths) == 4 > min(lengths), "somebody leaves early"
    totals = [sum(each.positions) for each in found.values()]
    assert totals == sorted(totals, reverse=True) and totals[1] < totals[0]
    for each in found.values():
        assert each.texts == one.texts
        assert torch.allclose(each.gradient, one.gradient, atol=1e-12)
