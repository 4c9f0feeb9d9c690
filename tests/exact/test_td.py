"""Learning from texts: hand arithmetic, the exact tables as limits, and the chance in between."""

import copy

import pytest
import torch
from torch.testing import assert_close

from course.exact import oracle, tables, td, values
from course.worlds import word_world

# Two words, three steps: `a` goes on, `.` ends. States: 0 = nothing, 1 = `a`, 2 = `a a`.
PAYS = {".": 1.0, "a .": 3.0, "a a .": 2.0, "a a a": -2.0}
SMALL = word_world.TokenWorld(
    ("a", "."), ("p",), 3, lambda prompts, texts: [PAYS[x] for x in texts]
)
A, STOP = 0, 1
GAMMA = 0.5


@pytest.fixture
def tree():
    return td.token_tree(SMALL, "p")


@pytest.fixture
def record(tree):
    return td.read_texts(tree, [(A, STOP), (STOP,), (A, A, A), (A, A, STOP)])


def test_the_tree_by_hand(tree):
    assert tree.shape == (3, 2)
    assert tree.transitions == (
        ((0, A, 0.0, 1), (0, STOP, 1.0, None)),
        ((1, A, 0.0, 2), (1, STOP, 3.0, None)),
        ((2, A, -2.0, None), (2, STOP, 2.0, None)),
    )


def test_a_text_must_be_complete_and_not_go_on(tree):
    with pytest.raises(ValueError, match="after its end"):
        td.read_texts(tree, [(STOP, A)])
    with pytest.raises(ValueError, match="not complete"):
        td.read_texts(tree, [(A, A)])


def test_monte_carlo_by_hand(record):
    # returns from state 0: 0.5·3 = 1.5; 1; 0.25·(−2) = −0.5; 0.25·2 = 0.5; mean 2.5 / 4 = 0.625
    # from state 1: 3; 0.5·(−2) = −1; 0.5·2 = 1; mean 1. From state 2: −2; 2; mean 0
    found = td.monte_carlo(record, 3, gamma=GAMMA)
    assert_close(found, torch.tensor([[0.625, 1.0, 0.0]]).double())
    looks = td.monte_carlo(record, 3, gamma=GAMMA, at=[1, 2])
    assert_close(looks, torch.tensor([[1.5, 3, 0], [1.25, 3, 0]]).double())
    latest = td.monte_carlo(record, 3, gamma=GAMMA, power=0.0)  # step size 1: the last return
    assert_close(latest, torch.tensor([[0.5, 1.0, 2.0]]).double())


def test_temporal_difference_by_hand(record):
    # text 1: V0 += 1 (0 + 0.5·0 − 0) = 0;       V1 = 3
    # text 2: V0 += ½ (1 − 0) = 0.5
    # text 3: V0 += ⅓ (0.5·3 − 0.5) = 5/6;       V1 += ½ (0.5·0 − 3) = 1.5;    V2 = −2
    # text 4: V0 += ¼ (0.5·1.5 − 5/6) = 13/16;   V1 += ⅓ (0.5·(−2) − 1.5) = 2/3;  V2 = 0
    found = td.temporal_difference(record, 3, gamma=GAMMA)
    assert_close(found, torch.tensor([[13 / 16, 2 / 3, 0.0]]).double())


def learn(record, bootstrap, **settings):
    return td.learn_from_texts(record, bootstrap, (3, 2), gamma=GAMMA, **settings)[-1]


def test_sarsa_q_learning_and_expected_sarsa_by_hand(record):
    # before text 4 all three have Q(1, .) = 3, Q(0, .) = 1, Q(2, a) = −2, Q(2, .) = 0
    # SARSA       text 1: Q(0,a) = 0.5·0 = 0;  text 3: Q(0,a) += ½ (0.5·Q(1,a) − 0) = 0, Q(1,a) = 0
    #             text 4: Q(0,a) += ⅓ (0.5·0) = 0, Q(1,a) += ½ (0.5·Q(2,.)) = 0, Q(2,.) = 2
    assert_close(learn(record, td.next_word_value), table([[0, 1], [0, 3], [-2, 2]]))
    # Q-learning  text 3: Q(0,a) += ½ (0.5·3) = 0.75;  text 4: += ⅓ (0.5·3 − 0.75) = 1
    #             Q(1,a): text 3: 0.5·0 = 0; text 4: += ½ (0.5·max(−2, 0)) = 0
    assert_close(learn(record, td.best_value), table([[1, 1], [0, 3], [-2, 2]]))
    # uniform     text 3: Q(0,a) += ½ (0.5·1.5) = 0.375;  text 4: += ⅓ (0.75 − 0.375) = 0.5
    #             Q(1,a): text 3: 0; text 4: += ½ (0.5·(−1) − 0) = −0.25
    uniform = td.policy_mean(torch.full((3, 2), 0.5))
    assert_close(learn(record, uniform), table([[0.5, 1], [-0.25, 3], [-2, 2]]))
    assert_close(learn(record, td.greedy_mean(1.0)), learn(record, uniform))
    assert_close(learn(record, td.greedy_mean(0.0)), learn(record, td.best_value))


def table(rows):
    return torch.tensor(rows, dtype=torch.float64)


def test_rules_by_hand():
    row = [1.0, -2.0, 4.0]
    assert td.next_word_value(row, 1, 0) == -2.0
    assert td.best_value(row, 1, 0) == 4.0
    assert td.greedy_mean(0.3)(row, 1, 0) == pytest.approx(0.7 * 4 + 0.3 * 1)
    probs = torch.tensor([[0.0, 0.0, 1.0], [0.5, 0.25, 0.25]])
    assert td.policy_mean(probs)(row, 0, 1) == pytest.approx(0.5 - 0.5 + 1.0)


def test_sarsa_reads_the_word_that_was_written(tree):
    q = [[0.0, 0.0], [5.0, 7.0], [0.0, 0.0]]
    [text] = td.read_texts(tree, [(A, A, STOP)])
    td.update_q(q, [[0, 0] for _ in q], text, td.next_word_value, gamma=GAMMA, power=1.0)
    assert q == [[2.5, 0.0], [0.0, 7.0], [0.0, 2.0]]  # 0.5 · Q(1, a); 0.5 · Q(2, .) = 0


def test_finished_texts_bootstrap_from_nothing(tree):
    record = td.read_texts(tree, [(STOP,), (A, STOP)] * 3)
    found = learn(record, td.best_value, initial=10.0, power=0.0)
    assert found[0, STOP] == 1.0 and found[1, STOP] == 3.0
    assert found[2].tolist() == [10.0, 10.0], "not visited: stays what it was"
    assert found[0, A] == 0.5 * 10.0, "the maximum picks the entry that nobody tried"


def test_arguments_are_not_changed(record):
    before = copy.deepcopy(record)
    td.monte_carlo(record, 3)
    td.temporal_difference(record, 3)
    learn(record, td.best_value)
    assert record == before


def test_the_greedy_choice_has_its_share_of_the_uniform_draw():
    row, count = [1.0, 3.0, 3.0, 0.0], 4000
    for epsilon in (0.0, 0.2, 1.0):
        words = [td.greedy_word(row, epsilon, (k + 0.5) / count) for k in range(count)]
        share = torch.tensor(words).bincount(minlength=4) / count
        expected = torch.full((4,), epsilon / 4)
        expected[1] += 1 - epsilon  # the first of the two best
        assert_close(share, expected, rtol=0, atol=1e-3)


def test_texts_start_where_they_are_asked_to(tree):
    probs, starts = torch.tensor([[0.8, 0.2]] * 3), {}
    for anywhere in (False, True):
        generator = torch.Generator().manual_seed(0)
        record = td.write_texts(tree, probs, 200, generator=generator, anywhere=anywhere)
        starts[anywhere] = {text[0][0] for text in record}
    assert starts == {False: {0}, True: {0, 1, 2}}


def test_states_are_numbered_as_in_the_table_policy(world, other_world):
    for any_world in (world, other_world):
        prompt = any_world.prompts[0]
        table = tables.TablePolicy(any_world)
        with torch.no_grad():
            table.logits[0] = torch.arange(float(table.logits[0].numel())).view_as(table.logits[0])
        tree, every = td.token_tree(any_world, prompt), oracle.enumerate_completions(any_world)
        for row, length in zip(every.completion_ids.tolist(), every.lengths.tolist(), strict=True):
            [text] = td.read_texts(tree, [row[:length]])
            ids = torch.tensor([[any_world.prompt_id(prompt), *row[: length - 1]]])
            assert table(ids)[0, :, 0].tolist() == [s * tree.shape[1] for s, *_ in text]
            assert [step[1] for step in text] == row[:length]
            [reward] = any_world.reward([prompt], [any_world.decode(row[:length])])
            assert [step[2] for step in text] == [0.0] * (length - 1) + [reward]
            assert text[-1][3] is None


# ------------------------------------------------------------------------------------- chance


def texts_of(world, record):
    index = {text: i for i, text in enumerate(oracle.enumerate_completions(world).texts)}
    counts = torch.zeros(len(index))
    for text in record:
        words = world.decode([step[1] for step in text])
        assert words in index, f"{words!r} is no completion of this world"
        counts[index[words]] += 1
    return counts


def test_logs_follow_the_policy(world, table, generator):
    tree = td.token_tree(world, "pan")
    probs = table.logits[1].softmax(-1).detach()
    record = td.write_texts(tree, probs, 20_000, generator=generator)
    with torch.no_grad():
        joint = oracle.completion_logprobs(table, world, "pan").exp()
    assert oracle.chi_square_p_value(texts_of(world, record), joint) > 1e-4


def test_drafts_are_uniform_and_impossible_words_are_never_written(world, generator):
    tree = td.token_tree(world, "praise")
    probs = torch.tensor([0.0, 0.7, 0.0, 0.3 - 1e-9, 0.0], dtype=torch.float64).expand(85, 5)
    record = td.write_texts(tree, probs, 17_000, generator=generator, anywhere=True)
    starts = torch.zeros(85)
    for text in record:
        starts[text[0][0]] += 1
        assert {step[1] for step in text} <= {1, 3}
    assert oracle.chi_square_p_value(starts, torch.full((85,), 1 / 85)) > 1e-4
    with pytest.raises(ValueError, match=r"shape \(S, A\)"):
        td.write_texts(tree, probs[:5], 1, generator=generator)


def test_the_same_seed_gives_the_same_table(world):
    tree = td.token_tree(world, "praise")

    def run(seed):
        return td.learn_by_writing(
            tree,
            td.next_word_value,
            epsilon=0.3,
            at=[50, 200],
            generator=torch.Generator().manual_seed(seed),
        )

    assert torch.equal(run(1), run(1)) and not torch.equal(run(1), run(2))
    assert run(1).shape == (2, 85, 5) and not torch.equal(run(1)[0], run(1)[1])
    with pytest.raises(ValueError, match="epsilon"):
        td.learn_by_writing(tree, td.best_value, epsilon=1.5, at=[1], generator=torch.Generator())


# ------------------------------------------------------------------------------------- limits

G = 0.9


@pytest.mark.parametrize("seed", range(3))
def test_evaluation_ends_at_the_values_of_the_writer(world, table, seed):
    tree, probs = td.token_tree(world, "praise"), table.logits[0].softmax(-1).detach()
    with torch.no_grad():
        found = values.policy_values(table, world, "praise", gamma=G)
    generator = torch.Generator().manual_seed(seed)
    record = td.write_texts(tree, probs, 30_000, generator=generator, anywhere=True)
    for method in (td.monte_carlo, td.temporal_difference):
        value = method(record, 85, gamma=G)[-1]
        assert (value - torch.cat(found.value)).abs().max() < 0.25, method.__name__
        assert (value - torch.cat(found.value)).pow(2).mean() < 0.06**2, method.__name__
    q = td.learn_from_texts(record, td.next_word_value, (85, 5), gamma=G, power=0.8)[-1]
    assert (q - torch.cat(found.q_value)).pow(2).mean() < 0.1**2
    expected = td.policy_mean(probs)
    q = td.learn_from_texts(record, expected, (85, 5), gamma=G, power=0.7)[-1]
    assert (q - torch.cat(found.q_value)).pow(2).mean() < 0.02**2


@pytest.mark.parametrize("seed", range(3))
def test_control_ends_at_its_own_limit(world, seed):
    tree, epsilon = td.token_tree(world, "praise"), 0.6
    best = torch.cat(values.optimal_values(world, "praise", gamma=G).q_value)
    fixed = values.epsilon_greedy_values(world, "praise", epsilon=epsilon, gamma=G)
    fixed = torch.cat(fixed.q_value)
    for rule, limit, most in (
        (td.next_word_value, fixed, 0.1),
        (td.greedy_mean(epsilon), fixed, 0.03),
        (td.best_value, best, 0.03),
    ):
        q = td.learn_by_writing(
            tree,
            rule,
            epsilon=epsilon,
            at=[20_000],
            gamma=G,
            power=0.7,
            anywhere=True,
            generator=torch.Generator().manual_seed(seed),
        )[-1]
        assert (q - limit).pow(2).mean() < most**2
    assert (best - fixed).pow(2).mean() > 0.3**2, "the two limits must be apart"


def test_q_learning_is_exact_on_anybodys_log(world, generator):
    for prompt in world.prompts:
        tree = td.token_tree(world, prompt)
        record = td.write_texts(
            tree, torch.full((85, 5), 0.2), 20_000, generator=generator, anywhere=True
        )
        q = td.learn_from_texts(record, td.best_value, (85, 5), gamma=G, power=0.0)[-1]
        best = torch.cat(values.optimal_values(world, prompt, gamma=G).q_value)
        assert_close(q, best, rtol=0, atol=1e-12)
