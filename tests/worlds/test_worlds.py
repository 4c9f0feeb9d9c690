"""The worlds' rewards and vocabularies, by hand."""

import pytest
import torch

from course.worlds import reviews, word_world

PRAISE_SCORES = [
    (".", 0),
    ("good .", 1),
    ("bad .", -1),
    ("not good .", -1),
    ("not bad .", 1),
    ("very good .", 2),
    ("very bad .", -2),
    ("not very good .", -2),
    ("very not good .", -2),
    ("not not good .", 1),
    ("very very good .", 2),  # 4, clipped
    ("good good .", 2),
    ("good bad .", 0),
    ("not good bad .", -2),  # `not` is used up by `good`
    ("very good bad .", 1),  # 2 − 1
    ("good not .", 1),  # a modifier with nothing to modify
    ("very not very .", 0),
    ("good", -1),  # cut
    ("good good good good", -1),  # cut, whatever it says
    ("", -1),
]


@pytest.mark.parametrize(("text", "score"), PRAISE_SCORES)
def test_adjective_reward_by_hand(text, score):
    assert word_world.adjective_reward(["praise"], [text]) == [score]
    cut = not text.endswith(".")
    assert word_world.adjective_reward(["pan"], [text]) == [score if cut else -score]


def test_rewards_need_one_prompt_for_each_completion():
    for reward in (word_world.adjective_reward, reviews.sentiment_reward):
        with pytest.raises(ValueError, match="as many entries as B"):
            reward(["praise"], ["good .", "bad ."])
        with pytest.raises(ValueError, match=r"Sequence\[str\]"):
            reward("praise", "good .")


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ("was wonderful .", 1),
        ("was not wonderful .", -1),
        ("was not dull .", 1),
        ("was very dull . what a mess .", -2),
        ("i loved the cast but we hated the plot .", 0),
        ("wonderful " * 5, 5),
        ("", 0),
        ("not not good", -1),  # only the word right before counts
    ],
)
def test_sentiment_reward_by_hand(text, score):
    assert reviews.sentiment_reward(["the cast"], [text]) == [score]


def test_the_word_world_is_the_one_of_the_course(world):
    assert world.words == ("not", "very", "good", "bad", ".")
    assert world.prompts == ("praise", "pan") and world.max_length == 4
    assert (world.num_actions, world.vocab_size, world.eos_ids) == (5, 7, (4,))
    assert [world.prompt_id(p) for p in world.prompts] == [5, 6]
    assert world.decode(world.encode("not very good .")) == "not very good ."


def test_unknown_words_and_prompts_are_named(world):
    with pytest.raises(ValueError, match="great"):
        world.encode("very great .")
    with pytest.raises(ValueError, match="blame"):
        world.prompt_id("blame")


def test_reviews_have_about_sixty_words_and_prompts_that_start_them(generator):
    assert 50 <= len(reviews.REVIEWS.words) <= 70
    for prompt in reviews.REVIEW_PROMPTS:
        text = reviews.REVIEWS.sample(1, generator, prefix=prompt)[0]
        assert reviews.REVIEWS.derivations(f"{prompt} {text}")


def test_two_routes_to_the_sentiment_of_a_review(generator):
    texts = reviews.REVIEWS.sample(500, generator)
    by_rules = [reviews.REVIEWS.derivations(text)[0][1] for text in texts]
    assert reviews.sentiment_reward(texts, texts) == by_rules
    assert len(set(by_rules)) > 4
    mean = torch.tensor(by_rules).mean()
    error = torch.tensor(by_rules).std() / 500**0.5
    assert abs(mean - reviews.REVIEWS.expected_score()) < 4 * error
