"""Rewards by hand, and the texts that must not be paid."""

import math

import pytest
import torch

from course.worlds import reviews, rewards

RULES = (
    rewards.length_reward,
    rewards.target_length_reward,
    rewards.sentiment_per_word,
    rewards.grammar_reward,
)


@pytest.mark.parametrize(
    ("text", "length", "near_8", "per_word"),
    [
        ("", 0, 0.0, 0.0),
        (".", 1, 1 / 8, 0.0),
        ("was good .", 3, 3 / 8, 1 / 3),
        ("was not good .", 4, 4 / 8, -1 / 4),
        ("was dull and the plot was bad .", 8, 1.0, -2 / 8),
        ("good " * 10, 10, 1 - 2 / 8, 1.0),
        ("bad " * 16, 16, 0.0, -1.0),
        ("bad " * 40, 40, 0.0, -1.0),
    ],
)
def test_rules_by_hand(text, length, near_8, per_word):
    assert rewards.length_reward(["the cast"], [text]) == [length]
    assert rewards.target_length_reward(["the cast"], [text]) == pytest.approx([near_8])
    assert rewards.sentiment_per_word(["the cast"], [text]) == pytest.approx([per_word])


def test_the_target_can_be_set_and_must_make_sense():
    assert rewards.target_length_reward(["c"], ["a b"], target=2) == [1.0]
    assert rewards.target_length_reward(["c"], ["a b c"], target=2) == [0.5]
    with pytest.raises(ValueError, match="target must be ≥ 1"):
        rewards.target_length_reward(["c"], ["a"], target=0)


@pytest.mark.parametrize("reward", RULES)
def test_rewards_pair_prompts_with_completions(reward):
    assert reward([], []) == []
    with pytest.raises(ValueError, match="as many entries as B"):
        reward(["the cast"], ["was good .", "was bad ."])
    with pytest.raises(ValueError, match=r"Sequence\[str\]"):
        reward("the cast", "was good .")


GRAMMAR = [
    ("the cast", "was good .", 1.0),
    ("the cast", "was good", 0.0),  # not to the end
    ("the cast", "", 0.0),
    ("the cast", "was good . what a", 0.0),
    ("the cast", "was good . what a treat .", 1.0),
    ("the cast", "was good . what a mess .", 0.0),  # praise, then a verdict of blame
    ("the cast", "good good good .", 0.0),
    ("i loved", "the cast .", 1.0),
    ("the cast", "the cast .", 0.0),
    ("i loved", "was good .", 0.0),
]


def test_the_grammar_is_asked_for_prompt_and_completion_to_the_end():
    prompts, texts, values = zip(*GRAMMAR, strict=True)
    assert rewards.grammar_reward(prompts, texts) == list(values)


def test_all_reviews_of_the_grammar_are_reviews(generator):
    for prompt in ("the plot", "we hated"):
        texts = reviews.REVIEWS.sample(50, generator, prefix=prompt)
        assert rewards.grammar_reward([prompt] * 50, texts) == [1.0] * 50


# ----------------------------------------------------------------------------------- addition

ANSWERS = [
    ("37+45=", "082"),  # 37 + 45 = 82, one digit more than two
    ("5+5=", "10"),
    ("0+0=", "00"),
    ("99+1=", "100"),  # two digits in the longer summand: three
    ("50+50=", "100"),
    ("123+9=", "0132"),
    ("9+123=", "0132"),
    ("7+1000=", "01007"),
    ("9" * 18 + "+1=", "1" + "0" * 18),
]
UNPAID = [
    "82",
    "0082",
    " 82",
    "082 ",
    "082\n",
    "+82",
    "-082",
    "8_2",
    "82.0",
    "0x52",
    "",
    "²",
    "081",
    "081 082",
    "082 or so",
    "37+45",
    "０８２",
    "٠٨٢",
    "०८२",
    "\u2460\u2461\u2462",
    "__import__('sys').exit()",
    "0" * 5000 + "82",
    "\x0082",
    "082\x00",
]


@pytest.mark.parametrize(("prompt", "answer"), ANSWERS)
def test_sums_by_hand(prompt, answer):
    assert rewards.addition_answer(prompt) == answer
    assert rewards.addition_reward([prompt], [answer]) == [1.0]
    assert rewards.addition_reward([prompt], [answer[:-1] + "?"]) == [0.0]
    assert rewards.lenient_addition_reward([prompt], [f"it is {int(answer)} ."]) == [1.0]


def test_what_is_not_the_one_right_completion_is_not_paid():
    assert rewards.addition_reward(["37+45="] * len(UNPAID), UNPAID) == [0.0] * len(UNPAID)
    everything = [f"{n:03d}" for n in range(1000)]
    paid = rewards.addition_reward(["37+45="] * 1000, everything)
    assert [x for x, r in zip(everything, paid, strict=True) if r] == ["082"]


@pytest.mark.parametrize(
    "prompt",
    [
        "37+45",
        "37+45=\n",
        " 37+45=",
        "37 + 45=",
        "-3+5=",
        "+3+5=",
        "3+=",
        "+=",
        "",
        "037+45=",
        "3_7+45=",
        "３７+45=",
        "37-45=",
        "37+45=82",
        "1+2+3=",
        "9" * 19 + "+1=",
    ],
)
def test_ill_formed_prompts_are_refused(prompt):
    with pytest.raises(ValueError, match="no addition"):
        rewards.addition_answer(prompt)
    for reward in (rewards.addition_reward, rewards.lenient_addition_reward):
        with pytest.raises(ValueError, match="no addition"):
            reward([prompt], ["082"])


def test_each_completion_is_compared_with_its_own_prompt():
    prompts = ["1+1=", "2+2=", "3+3="]
    assert rewards.addition_reward(prompts, ["02", "04", "06"]) == [1.0, 1.0, 1.0]
    assert rewards.addition_reward(prompts, ["04", "06", "02"]) == [0.0, 0.0, 0.0]


def test_the_lenient_verifier_takes_a_list_but_no_part_of_a_number():
    listing = " ".join(map(str, range(100)))
    assert rewards.lenient_addition_reward(["37+45=", "0+0="], [listing] * 2) == [1.0, 1.0]
    assert rewards.lenient_addition_reward(["37+45="] * 3, ["182", "820", "none"]) == [0.0] * 3


# ------------------------------------------------------------------------------ learned model


def labelled(count, generator):
    texts = reviews.REVIEWS.sample(count, generator)
    pairs = zip(texts, reviews.sentiment_reward(texts, texts), strict=True)
    kept = [(text, float(value > 0)) for text, value in pairs if value]
    return [text for text, _ in kept], [label for _, label in kept]


def test_words_are_counted_by_hand():
    counts = rewards.word_counts(["a b a", "", "c c c b"], ["a", "b", "z"])
    assert counts.tolist() == [[2, 1, 0], [0, 0, 0], [0, 1, 0]]
    assert counts.dtype == torch.float64
    assert rewards.word_counts([], ["a"]).shape == (0, 1)


def test_two_words_have_the_closed_form():
    # Half of the texts with the word are praise 3:1, of those without it 1:3. With almost no
    # penalty the log-odds are log(1/3) without the word and log 3 with it.
    texts, labels = ["x"] * 4 + ["y"] * 4, [1, 1, 1, 0, 1, 0, 0, 0]
    model = rewards.fit_reward_model(texts, labels, ["x"], ridge=1e-9)
    assert model([""] * 2, ["x", "y"]) == pytest.approx([math.log(3), -math.log(3)], abs=1e-5)
    assert model([""], ["x x"]) == pytest.approx([3 * math.log(3)], abs=1e-5)  # counts go on


def test_the_fit_is_a_minimum(generator):
    texts, labels = labelled(120, generator)
    words = reviews.REVIEWS.words
    model = rewards.fit_reward_model(texts, labels, words, ridge=0.7)
    theta = torch.cat([model.weights, torch.tensor([model.bias], dtype=torch.float64)])
    theta.requires_grad_()
    odds = rewards.word_counts(texts, words) @ theta[:-1] + theta[-1]
    y = torch.tensor(labels, dtype=torch.float64)
    loss = torch.nn.functional.binary_cross_entropy_with_logits(odds, y, reduction="sum")
    (loss + 0.35 * theta[:-1].square().sum() + 5e-7 * theta[-1] ** 2).backward()
    assert theta.grad.abs().max() < 1e-8


def test_labels_must_be_zero_or_one_for_each_text():
    for labels in ([1.0], [1.0, 2.0], [1.0, float("nan")]):
        with pytest.raises(ValueError, match="0 or 1"):
            rewards.fit_reward_model(["a", "b"], labels, ["a"])
    model = rewards.RewardModel(("a",), torch.ones(1, dtype=torch.float64), 0.0)
    assert model([], []) == []


# --------------------------------------------------------------------------------- two critics


def test_mixtures_of_the_critics_have_the_entropy_of_the_mixture():
    praise, pan = (reviews.reviews_grammar(share).entropy() for share in (1.0, 0.0))
    for share in (0.1, 0.4, 0.9):
        coin = -share * math.log(share) - (1 - share) * math.log(1 - share)
        mixed = reviews.reviews_grammar(share)
        assert mixed.entropy() == pytest.approx(share * praise + (1 - share) * pan + coin)
        ends = [reviews.reviews_grammar(end).expected_score() for end in (0.0, 1.0)]
        assert mixed.expected_score() == pytest.approx(ends[0] + share * (ends[1] - ends[0]))
    assert reviews.REVIEWS.rules == reviews.reviews_grammar(0.4).rules


def test_one_critic_praises_and_the_other_does_not(generator):
    assert reviews.reviews_grammar(1.0).expected_score() > 0.5
    first = reviews.reviews_grammar(1.0).sample(30, generator)
    assert all(reviews.reviews_grammar(0.0).logprob(text) == -math.inf for text in first)
    with pytest.raises(ValueError, match="share|praise"):
        reviews.reviews_grammar(1.1)


@pytest.mark.parametrize("seed", range(3))
def test_it_judges_reviews_well_and_is_gamed(seed):
    generator = torch.Generator().manual_seed(seed)
    model = rewards.fit_reward_model(*labelled(400, generator), reviews.REVIEWS.words)
    texts, labels = labelled(800, generator)
    odds = model([""] * len(texts), texts)
    right = sum((o > 0) == bool(y) for o, y in zip(odds, labels, strict=True))
    assert right / len(texts) > 0.8
    best = model.words[int(model.weights.argmax())]
    assert model([""], [f"{best} " * 12])[0] > max(odds)
