"""The oracle against brute force: loops over texts, products, finite differences."""

import dataclasses
import itertools
import math
import subprocess
import sys
import time

import pytest
import torch
from scipy import stats
from torch.testing import assert_close
from transformers import LlamaConfig, LlamaForCausalLM

from course.exact import oracle, tables
from course.worlds import tiny_models, word_world
from helpers import models


def brute_force(policy, world, prompt) -> dict[str, float]:
    """text → probability, one word at a time and without any of the oracle's code."""
    found: dict[str, float] = {}

    def write(words: tuple[int, ...], probability: float) -> None:
        if len(words) == world.max_length or (words and words[-1] in world.eos_ids):
            found[" ".join(world.words[w] for w in words)] = probability
            return
        row = policy(torch.tensor([[len(world.words) + world.prompts.index(prompt), *words]]))
        weights = [math.exp(z) for z in row[0, -1].tolist()]
        for word, weight in enumerate(weights):
            write((*words, word), probability * weight / sum(weights))

    with torch.no_grad():
        write((), 1.0)
    return found


def policies(world):
    table = tables.TablePolicy(world, std=1.0, generator=torch.Generator().manual_seed(3))
    return [table, models.as_policy(tiny_models.word_transformer(world, seed=3))]


def test_the_word_world_has_341_completions(world):
    every = oracle.enumerate_completions(world)
    assert len(every.texts) == len(set(every.texts)) == 341
    assert torch.bincount(every.lengths).tolist() == [0, 1, 4, 16, 64 + 256]
    assert (~every.finished).sum() == 256
    by_product = {" ".join(words) for words in itertools.product(world.words[:4], repeat=4)} | {
        " ".join([*words, "."])
        for length in range(4)
        for words in itertools.product(world.words[:4], repeat=length)
    }
    assert set(every.texts) == by_product
    assert [
        world.decode(r[:n]) for r, n in zip(every.completion_ids, every.lengths, strict=True)
    ] == list(every.texts)


@pytest.mark.parametrize("which", [0, 1], ids=["table", "transformer"])
def test_probabilities_and_objective_agree_with_brute_force(world, which):
    policy = policies(world)[which]
    for prompt in world.prompts:
        truth = brute_force(policy, world, prompt)
        texts = oracle.enumerate_completions(world).texts
        expected = torch.tensor([truth[text] for text in texts], dtype=torch.float64)
        probs = oracle.completion_logprobs(policy, world, prompt).exp().detach()
        assert_close(probs, expected, rtol=0, atol=1e-12)
        assert abs(float(probs.sum()) - 1) < 1e-10
        mean = sum(p * word_world.adjective_reward([prompt], [t])[0] for t, p in truth.items())
        assert abs(oracle.objective(policy, world, prompt).detach().item() - mean) < 1e-10
        surprise = -sum(p * math.log(p) for p in truth.values())
        assert abs(float(oracle.entropy(policy, world, prompt).detach()) - surprise) < 1e-10


def test_other_worlds_agree_with_brute_force(other_world):
    for policy in policies(other_world):
        truth = brute_force(policy, other_world, "p")
        texts = oracle.enumerate_completions(other_world).texts
        assert set(texts) == set(truth) and len(texts) == len(truth)
        probs = oracle.completion_logprobs(policy, other_world, "p").exp()
        expected = torch.tensor([truth[text] for text in texts], dtype=torch.float64)
        assert_close(probs, expected, rtol=0, atol=1e-12)


def test_kl_agrees_with_brute_force_in_both_directions(world):
    p, q = policies(world)
    a, b = brute_force(p, world, "pan"), brute_force(q, world, "pan")
    forward = sum(a[t] * math.log(a[t] / b[t]) for t in a)
    backward = sum(b[t] * math.log(b[t] / a[t]) for t in a)
    assert abs(float(oracle.kl_divergence(p, q, world, "pan").detach()) - forward) < 1e-10
    assert abs(float(oracle.kl_divergence(q, p, world, "pan").detach()) - backward) < 1e-10
    assert abs(forward - backward) > 0.01


def test_gradient_agrees_with_finite_differences(world):
    model = tiny_models.word_transformer(world, seed=5)
    policy, weights = models.as_policy(model), list(model.parameters())
    gradient = oracle.objective_gradient(policy, weights, world, "praise")
    assert gradient.shape == (sum(w.numel() for w in weights),)
    generator = torch.Generator().manual_seed(0)
    for _ in range(3):
        direction = torch.randn(len(gradient), generator=generator, dtype=torch.float64)
        values = []
        for step in (1e-5, -1e-5):
            theta = torch.nn.utils.parameters_to_vector(weights).detach() + step * direction
            torch.nn.utils.vector_to_parameters(theta, weights)
            with torch.no_grad():
                values.append(float(oracle.objective(policy, world, "praise")))
            torch.nn.utils.vector_to_parameters(theta - step * direction, weights)
        slope = (values[0] - values[1]) / 2e-5
        assert abs(slope - float(gradient @ direction)) < 1e-6 * max(1, abs(slope))


def test_gradient_agrees_with_the_sum_over_completions(world, table):
    """∇J = Σ_x R ∇p(x), each ∇p(x) from its own scalar; for a table, by its closed form."""
    gradient = oracle.objective_gradient(table, [table.logits], world, "pan")
    truth = brute_force(table, world, "pan")
    # dJ/dlogit[s, a] = p(s) π(a|s) (Q(s, a) − V(s)), by summing over the texts through s and a.
    first = table(torch.tensor([[6]]))[0, -1].softmax(-1).tolist()
    rewards = {t: word_world.adjective_reward(["pan"], [t])[0] for t in truth}
    value = sum(p * rewards[t] for t, p in truth.items())
    for a, word in enumerate(world.words):
        through = sum(p * rewards[t] for t, p in truth.items() if t.split()[0] == word)
        expected = through - first[a] * value
        assert abs(float(gradient.view(2, 85, 5)[1, 0, a]) - expected) < 1e-10
    assert float(gradient.view(2, 85, 5)[0].abs().max()) == 0.0  # the other prompt's rows


def test_gradient_points_uphill(world, table):
    before = oracle.objective(table, world, "praise").item()
    step = oracle.objective_gradient(table, [table.logits], world, "praise").view_as(table.logits)
    with torch.no_grad():
        table.logits += step
    assert oracle.objective(table, world, "praise").item() > before + 0.01


def test_a_reward_of_the_reader(world, table):
    length = lambda prompts, texts: [float(len(t.split())) for t in texts]  # noqa: E731
    uniform = tables.TablePolicy(world)
    # 1 + 4/5 + (4/5)² + (4/5)³ words
    assert abs(oracle.objective(uniform, world, "pan", reward=length).item() - 2.952) < 1e-12


def test_uniform_policy_by_hand(world):
    uniform = tables.TablePolicy(world)
    probs = oracle.completion_logprobs(uniform, world, "praise").exp()
    every = oracle.enumerate_completions(world)
    assert_close(probs[every.texts.index("good .")].item(), 1 / 25)
    assert_close(probs[~every.finished].sum().item(), (4 / 5) ** 4)
    assert_close(oracle.entropy(uniform, world, "praise").item(), 2.952 * math.log(5))


def test_logits_of_another_width_are_refused(world):
    with pytest.raises(ValueError, match="as_policy"):
        oracle.completion_logprobs(lambda ids: torch.zeros(*ids.shape, 7), world, "praise")


def test_chi_square_knows_a_right_and_a_wrong_sampler(world, table, generator):
    probs = oracle.completion_logprobs(table, world, "praise").exp().detach()
    draw = lambda p: torch.bincount(  # noqa: E731
        torch.multinomial(p, 5000, replacement=True, generator=generator), minlength=341
    )
    assert oracle.chi_square_p_value(draw(probs), probs) > 1e-3
    assert oracle.chi_square_p_value(draw(probs**1.2), probs) < 1e-6
    possible = torch.tensor([0.5, 0.5, 0.0])
    assert oracle.chi_square_p_value(torch.tensor([9, 9, 1]), possible) == 0.0
    assert oracle.chi_square_p_value(torch.tensor([9, 9, 0]), possible) == 1.0
    with pytest.raises(ValueError, match="too few"):
        oracle.chi_square_p_value(torch.tensor([1, 1, 0]), possible)


@pytest.mark.parametrize("wrong", [[1.0], 3.0, [math.nan] * 341])
def test_rewards_of_the_wrong_shape_or_not_finite_are_refused(world, table, wrong):
    with pytest.raises(ValueError, match="finite"):
        oracle.objective(table, world, "pan", reward=lambda prompts, texts: wrong)


def seconds(run, repeats: int) -> float:
    """Best process time of several runs: what the code costs when nothing else runs."""
    times = []
    for _ in range(repeats):
        started = time.process_time()
        run()
        times.append(time.process_time() - started)
    return min(times)


def test_objective_and_gradient_of_a_transformer_are_fast(world):
    model = tiny_models.word_transformer(world, seed=0)
    policy, weights = models.as_policy(model), list(model.parameters())
    run = lambda: oracle.objective_gradient(policy, weights, world, "praise")  # noqa: E731
    run()
    best = seconds(run, 10)
    print(f"J and ∇J, 341 completions, 2-layer transformer, 1 thread: {1e3 * best:.1f} ms")
    assert best < 0.05


def test_it_serves_32768_sequences():
    words = tuple("abcdefgh")
    flat = lambda prompts, texts: [float(text.count("a")) for text in texts]  # noqa: E731
    large = word_world.TokenWorld(words, ("p",), 5, flat, ends=False)
    assert len(oracle.enumerate_completions(large).texts) == 32_768  # cached from here on
    model = tiny_models.word_transformer(large, seed=0)
    policy, weights = models.as_policy(model), list(model.parameters())
    best = seconds(lambda: oracle.objective_gradient(policy, weights, large, "p"), 2)
    print(f"J and ∇J, 32,768 completions, 2-layer transformer, 1 thread: {best:.2f} s")
    assert best < 1


@pytest.mark.parametrize("many", [10**9, 50])
@pytest.mark.parametrize("kind", ["word world", "no end", "one word left", "wide", "llama"])
def test_each_prefix_once_is_the_same_tree(kind, many, world, monkeypatch):
    flat = lambda prompts, texts: [float(text.count("a")) for text in texts]  # noqa: E731
    other = {
        "word world": world,
        "no end": word_world.TokenWorld(("a", "b", "c"), ("p",), 4, flat, ends=False),
        "one word left": word_world.TokenWorld(("a", "."), ("p", "q"), 5, flat),
        "wide": word_world.TokenWorld((*"abcdefgh", "."), ("p",), 3, flat),
        "llama": word_world.TokenWorld((*"abcd", "."), ("p",), 4, flat),
    }[kind]
    model = tiny_models.word_transformer(other, seed=1)
    if kind == "llama":
        sizes = {"vocab_size": 5, "hidden_size": 8, "intermediate_size": 8, "head_dim": 4}
        sizes |= {"num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1}
        model = LlamaForCausalLM(LlamaConfig(**sizes)).double()
        model.model.embed_tokens = torch.nn.Embedding(6, 8, dtype=torch.float64)
    found = []
    for large in (10**9, 1):
        monkeypatch.setattr(oracle, "LARGE", large)
        monkeypatch.setattr(oracle, "MANY", many)
        monkeypatch.setattr(oracle, "PIECE", 7)
        called = []
        hook = model.register_forward_hook(lambda *_, c=called: c.append(1))
        levels = oracle.state_logprobs(models.as_policy(model), other, other.prompts[0])
        hook.remove()
        weights = list(model.parameters())
        gradient = oracle.objective_gradient(
            models.as_policy(model), weights, other, other.prompts[0]
        )
        found.append((levels, gradient, len(called)))
    (plain, gradient, once), (tree, other_gradient, more) = found
    assert once == 1 and more >= other.max_length, "one call, and one or more for each length"
    for one, two in zip(plain, tree, strict=True):
        assert_close(one, two, rtol=0, atol=1e-12)
    assert gradient.norm() > 1e-3
    assert_close(gradient, other_gradient, rtol=0, atol=1e-10)


def test_a_million_texts_in_bounded_memory_and_time(monkeypatch):
    """A process of its own, whose memory is its own; 6 words that go on and 7 places."""
    code = """
import resource, time, torch
from course.exact import oracle
from course.worlds import tiny_models, word_world
from helpers import models
flat = lambda prompts, texts: [float(text.count("a")) for text in texts]
words = word_world.TokenWorld((*"abcdefghij", "."), ("p",), 6, flat)
model = tiny_models.word_transformer(words, seed=0, dtype=torch.float32)
before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
total = float(oracle.completion_logprobs(models.as_policy(model), words, "p").double().exp().sum())
oracle.objective_gradient(models.as_policy(model), list(model.parameters()), words, "p")
spent = time.process_time() - started
more = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
print(len(oracle.enumerate_completions(words).texts), total, spent, more / 1024)
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True
    )
    count, total, spent, mebibytes = map(float, done.stdout.split())
    print(f"J and ∇J, {count:,.0f} texts: {spent:.1f} CPU s, {mebibytes:.0f} MiB more")
    assert count == 1_111_111 and abs(total - 1) < 1e-4
    assert spent < 10 and mebibytes < 1500


def test_along_reads_the_way_down_a_text(world, table):
    with torch.no_grad():
        levels = oracle.state_logprobs(table, world, "pan")
        joint = oracle.completion_logprobs(table, world, "pan")
    for text in (".", "bad .", "not very bad .", "very good not bad"):
        total = sum(oracle.along(levels, world.encode(text)))
        assert_close(total, joint[oracle.enumerate_completions(world).texts.index(text)])
    assert oracle.along(levels, []) == []
    # "very good" (ids 1, 2) is row 1·4 + 2 = 6 of its level, "good very" row 2·4 + 1 = 9
    assert oracle.rank([1, 2], 4) == 6 and oracle.rank([2, 1], 4) == 9 and oracle.rank([], 4) == 0


def two_words(limit=2):
    """0 = a, 1 = b, 2 = the end; the prompt is 3."""
    flat = lambda prompts, texts: [float(len(text)) for text in texts]  # noqa: E731
    return word_world.TokenWorld(("a", "b", "."), ("p",), limit, flat)


def test_every_text_of_a_small_world_by_hand():
    every = oracle.enumerate_completions(two_words())
    assert every.texts == (".", "a .", "b .", "a a", "a b", "b a", "b b")
    assert every.completion_ids.tolist() == [[2, 0], [0, 2], [1, 2], [0, 0], [0, 1], [1, 0], [1, 1]]
    assert every.lengths.tolist() == [1, 2, 2, 2, 2, 2, 2]
    assert every.finished.tolist() == [True] * 3 + [False] * 4
    assert oracle.enumerate_completions(two_words(3)).completion_ids[0].tolist() == [2, 0, 0]
    with pytest.raises(dataclasses.FrozenInstanceError):
        every.texts = ()
    same = two_words()
    assert oracle.enumerate_completions(same) is oracle.enumerate_completions(same)


def test_moves_are_numbered_along_the_tree_by_hand():
    small = two_words()
    moves = oracle.word_moves(small)  # states: root 0, "a" 1, "b" 2; 3 words in each
    assert moves.tolist() == [[2, -1], [0, 5], [0 + 1, 8], [0, 3], [0, 4], [1, 6], [1, 7]]
    assert oracle.word_moves(small) is moves
    levels = [torch.tensor([[10.0, 11, 12]]), torch.tensor([[20.0, 21, 22], [30, 31, 32]])]
    read = oracle.read_moves(levels, moves)
    assert read.tolist() == [[12, 0], [10, 22], [11, 32], [10, 20], [10, 21], [11, 30], [11, 31]]
    deep = oracle.word_moves(two_words(4))  # "b b a b" goes through the states 0, 2, 6, 13
    texts = oracle.enumerate_completions(two_words(4)).texts
    assert deep[texts.index("b b a b")].tolist() == [1, 2 * 3 + 1, 6 * 3 + 0, 13 * 3 + 1]
    assert deep[texts.index("b b .")].tolist() == [1, 2 * 3 + 1, 6 * 3 + 2, -1]
    assert [float(x) for x in oracle.along(levels, [1, 2])] == [11, 32]
    assert [float(x) for x in oracle.along(levels[:1], [1])] == [11]


def test_a_weight_that_does_nothing_has_no_gradient(world, table):
    idle = torch.ones(3, dtype=torch.float64, requires_grad=True)
    found = oracle.objective_gradient(table, [table.logits, idle], world, "pan")
    assert found[-3:].tolist() == [0, 0, 0] and found.norm() > 0


def test_rewards_come_back_in_double(world):
    count = len(oracle.enumerate_completions(world).texts)
    paid = lambda prompts, texts: torch.arange(count)  # noqa: E731
    assert oracle.rewards(world, "pan", reward=paid).dtype == torch.float64
    holes = lambda prompts, texts: [math.nan] + [1.0] * (count - 1)  # noqa: E731
    with pytest.raises(ValueError, match="nan or inf"):
        oracle.rewards(world, "pan", reward=holes)


def test_pearsons_test_by_the_library():
    counts = torch.tensor([12, 7, 9, 12])
    wanted = float(stats.chisquare([12, 7, 9, 12]).pvalue)
    for scale in (1.0, 8.0):  # what is tested need not sum to 1
        equal = torch.full((4,), 0.25 * scale)
        assert oracle.chi_square_p_value(counts, equal) == pytest.approx(wanted, abs=1e-12)
    # 5 is not fewer than 5; 4.5 is, so that the last two are one outcome
    assert oracle.chi_square_p_value(torch.tensor([6, 4]), torch.ones(2)) == pytest.approx(
        float(stats.chisquare([6, 4]).pvalue)
    )
    pooled = oracle.chi_square_p_value(torch.tensor([9, 2, 7]), torch.tensor([0.5, 0.25, 0.25]))
    assert pooled == pytest.approx(float(stats.chisquare([9, 9]).pvalue))
