"""The family of baselines: exact moments by other routes, and ascent that learns."""

import copy
import dataclasses

import pytest
import torch
from torch.testing import assert_close

from course.exact import ascent, baselines, gradients, oracle, tables, values
from course.worlds import word_world
from helpers import advantages


@pytest.fixture
def problem(table):
    return baselines.table_problem(table, "praise")


def variance_of(problem, judged):
    return gradients.of_terms(problem, problem.combine(judged)).variance


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_the_formula_for_tables_is_autograds(world, table, temperature):
    policy = lambda ids: table(ids) / temperature  # noqa: E731
    for prompt, row in (("praise", 0), ("pan", 1)):
        slow = gradients.gradient_problem(policy, [table.logits], world, prompt)
        fast = baselines.table_problem(table, prompt, temperature=temperature)
        own = slow.word_scores.view(425, 2, 425)
        assert_close(fast.word_scores, own[:, row], rtol=0, atol=1e-12)
        assert float(own[:, 1 - row].abs().max()) == 0.0
        assert_close(fast.probability, slow.probability)
        assert_close(fast.rewards, slow.rewards)
        assert not fast.probability.requires_grad


def test_values_are_the_swept_ones(world, table, problem):
    with torch.no_grad():
        swept = values.policy_values(table, world, "praise")
    v, q = baselines.exact_values(problem, 5)
    assert_close(v, torch.cat(swept.value), rtol=0, atol=1e-12)
    assert_close(q, torch.cat(swept.q_value), rtol=0, atol=1e-12)


def test_compression_keeps_lengths_and_angles(problem):
    """A model with 1,000 parameters: any matrix of word scores will do."""
    generator = torch.Generator().manual_seed(0)
    wide = torch.randn(425, 1000, generator=generator, dtype=torch.float64)
    full = dataclasses.replace(problem, word_scores=problem.word_scores @ wide)
    small = full.turned()
    assert small.word_scores.shape == (425, 425)
    gram = full.word_scores @ full.word_scores.T
    assert_close(small.word_scores @ small.word_scores.T, gram, rtol=0, atol=1e-9)
    for size in (1, 3):
        a, b = (
            gradients.of_terms(p, (p.rewards - 0.3)[:, None] * p.scores, count=size)
            for p in (small, full)
        )
        assert a.variance == pytest.approx(b.variance)
        assert a.variance_along == pytest.approx(b.variance_along)


def test_the_best_constant_is_the_bottom_of_the_parabola(problem):
    coin = gradients.GradientProblem(
        probability=torch.tensor([0.7, 0.3]).double(),
        rewards=torch.tensor([0.0, 1.0]).double(),
        word_scores=torch.tensor([[-0.3], [0.7]]).double(),
        moves=torch.tensor([[0], [1]]),
    )
    for name, p in (("table", problem), ("coin", coin)):

        def at(b, p=p):
            return gradients.of_terms(p, (p.rewards - b)[:, None] * p.scores).variance

        # the vertex of the parabola through three of its points
        left, middle, right = at(-1.0), at(0.0), at(1.0)
        vertex = (left - right) / (2 * (left + right - 2 * middle))
        assert gradients.best_constant(p) == pytest.approx(vertex, abs=1e-9), name
    # coin, by hand: (0.3 · 0.49) / (0.3 · 0.49 + 0.7 · 0.09) = 0.147 / 0.21 = 0.7
    assert gradients.best_constant(p) == pytest.approx(0.7)


def test_the_best_state_baseline_cannot_be_improved(world, problem):
    best = baselines.best_state_baseline(problem, 5)
    lowest = variance_of(problem, baselines.excess(problem, best))
    generator = torch.Generator().manual_seed(0)
    for _ in range(5):
        direction = torch.randn(85, generator=generator, dtype=torch.float64)
        sides = [
            variance_of(problem, baselines.excess(problem, best + h * direction))
            for h in (-0.1, 0.1)
        ]
        assert min(sides) > lowest
        assert sides[0] == pytest.approx(sides[1], rel=1e-9), "not the vertex"
    v, _ = baselines.exact_values(problem, 5)
    assert lowest < variance_of(problem, baselines.excess(problem, v))


def test_any_state_baseline_is_unbiased_and_excess_reads_the_right_state(problem):
    table_of_b = torch.arange(85.0).double()
    judged = baselines.excess(problem, table_of_b)
    every = oracle.enumerate_completions(word_world.WORD_WORLD)
    row = every.texts.index("very good .")  # states: 0; 1 + 1 = 2; 5 + 4·1 + 2 = 11
    assert (problem.rewards[row] - judged[row]).tolist() == [0.0, 2.0, 11.0, float(2)]
    assert judged[row, 3] == 0
    found = gradients.of_terms(problem, problem.combine(judged))
    assert found.bias < 1e-8
    with pytest.raises(ValueError, match=r"shape \(S,\)"):
        baselines.excess(problem, torch.zeros(84))


def test_an_independent_baseline_is_the_mean_of_the_parabola(problem):
    """b is −1 or +2 with equal chance: mean 0.5, variance 2.25."""
    parts = [
        gradients.of_terms(problem, (problem.rewards - b)[:, None] * problem.scores, count=4)
        for b in (-1.0, 2.0)
    ]
    found = baselines.with_independent(problem, mean=0.5, variance=2.25, count=4)
    assert found.variance == pytest.approx(sum(m.variance for m in parts) / 2)
    assert found.variance_along == pytest.approx(sum(m.variance_along for m in parts) / 2)
    assert found.bias < 1e-10


def test_two_prompts_are_one_problem_with_more_parameters(world, table):
    """Estimates of the two prompts as one: the mean of independent halves, by pairs of texts."""
    parts = [baselines.table_problem(table, prompt) for prompt in world.prompts]
    found = baselines.average(
        [baselines.moments(p, "expected_reward", num_actions=5, group_size=1) for p in parts]
    )
    gradient = sum(
        oracle.objective_gradient(table, [table.logits], world, c) for c in world.prompts
    )
    assert_close(found.truth, gradient / 2, rtol=0, atol=1e-12)
    drawn = [
        (p.rewards - p.probability @ p.rewards)[:, None] * p.scores for p in parts
    ]  # (341, 425) each; E‖(a, b)/2‖² = (E‖a‖² + E‖b‖²) / 4
    second = sum(float(p.probability @ t.pow(2).sum(-1)) for p, t in zip(parts, drawn, strict=True))
    expected = second / 4 - float(found.truth @ found.truth)
    assert found.variance == pytest.approx(expected)
    along = found.truth / found.truth.norm()
    chances = parts[0].probability[:, None] * parts[1].probability
    on_axis = (drawn[0] @ along[:425])[:, None] + (drawn[1] @ along[425:])
    expected = float((chances * on_axis**2 / 4).sum()) - float(found.truth @ along) ** 2
    assert found.variance_along == pytest.approx(expected)


def test_sampled_values_approach_the_exact_ones(problem):
    exact_v, _ = baselines.exact_values(problem, 5)
    gaps = []
    for count in (10, 1000, 100_000):
        v = baselines.sampled_values(
            problem, 5, count=count, generator=torch.Generator().manual_seed(0)
        )
        gaps.append(float((v - exact_v)[:21].abs().max()))
    assert gaps[0] > gaps[1] > gaps[2] and gaps[2] < 0.1


def test_the_family_is_as_the_chapter_says(problem):
    found = {
        name: baselines.moments(problem, name, num_actions=5, group_size=4)
        for name in baselines.FAMILY
    }
    size = float(problem.truth.norm())
    biased = {name for name, m in found.items() if m.bias > 1e-9 * size}
    assert biased == {"group_mean", "group_z_score"}
    v = {name: m.variance for name, m in found.items()}
    assert v["exact_advantage"] < v["exact_value"] < v["best_constant"] < v["expected_reward"]
    assert (
        v["expected_reward"]
        < v["prompt_running_mean"]
        < v["leave_one_out"]
        < v["none"]
        < v["constant"]
    )
    with pytest.raises(ValueError, match="no baseline"):
        baselines.moments(problem, "best", num_actions=5, group_size=4)


def test_a_shift_of_ten(table):
    plus = lambda c, x: [r + 10 for r in word_world.adjective_reward(c, x)]  # noqa: E731
    plain, high = (baselines.table_problem(table, "praise", reward=r) for r in (None, plus))
    ask = lambda p, name: baselines.moments(p, name, num_actions=5, group_size=4).variance  # noqa: E731
    assert ask(high, "none") > 80 * ask(plain, "none")
    assert ask(high, "expected_reward") / ask(high, "none") == pytest.approx(0.007, abs=5e-4)
    for name in ("leave_one_out", "expected_reward", "exact_value", "best_constant"):
        assert ask(high, name) == pytest.approx(ask(plain, name)), name


def climb(table, seed=0, **settings):
    climber = copy.deepcopy(table)
    return list(
        ascent.climb(
            climber,
            [climber.logits],
            table.world,
            ascent.Settings(**settings),
            generator=torch.Generator().manual_seed(seed),
        )
    )


@pytest.mark.parametrize("name", baselines.FAMILY)
def test_every_baseline_learns(table, name):
    for seed in range(2):
        records = climb(
            table,
            seed,
            baseline=name,
            group_size=8,
            steps=40,
            lr=1.0,
            prompts=("praise",),
            constant=-0.5,
        )
        assert [r["step"] for r in records] == list(range(41))
        assert records[-1]["objective"] > records[0]["objective"] + 0.3, (name, seed)


def test_ascent_reports_the_exact_objective_and_follows_the_gradient(world, table):
    start, after = climb(
        table, baseline="expected_reward", group_size=4000, steps=1, lr=0.1, temperature=0.7
    )
    policy = lambda ids: table(ids) / 0.7  # noqa: E731
    with torch.no_grad():
        exact_start = sum(oracle.objective(policy, world, c) for c in world.prompts) / 2
    assert start["objective"] == pytest.approx(float(exact_start))
    # a small step along a nearly exact gradient gains lr · ‖∇J‖²
    gradient = sum(
        oracle.objective_gradient(policy, [table.logits], world, c) / 2 for c in world.prompts
    )
    gain = after["objective"] - start["objective"]
    assert gain == pytest.approx(0.1 * float(gradient @ gradient), rel=0.15)


def test_runs_are_repeatable_and_leave_one_out_ignores_a_shift(table):
    def ask(seed, reward=None):
        options = {"group_size": 4, "steps": 20, "lr": 1.0, "prompts": ("pan",)}
        records = climb(table, seed, baseline="leave_one_out", reward=reward, **options)
        return [record["objective"] for record in records]

    plus = lambda c, x: [r + 10 for r in word_world.adjective_reward(c, x)]  # noqa: E731
    assert ask(3) == ask(3) != ask(4)
    assert ask(3, plus) == pytest.approx([j + 10 for j in ask(3)], abs=1e-9)


def test_memory_is_of_past_batches_only(problem):
    """The first batch meets no running mean; the second one the mean of the first."""
    member, rows = baselines.FAMILY["prompt_running_mean"], torch.tensor([3, 3])  # “good .” twice
    first = member.learn(problem, None, rows, 5)
    assert float(first) == pytest.approx(float(problem.rewards[rows].mean()))
    second = member.learn(problem, first, rows + 9, 5)
    expected = 0.9 * float(first) + 0.1 * float(problem.rewards[rows + 9].mean())
    assert float(second) == pytest.approx(expected)
    before = member.judged(problem, rows, baselines.Known(5))
    after = member.judged(problem, rows, baselines.Known(5, memory=first))
    assert torch.equal(before, problem.rewards[rows])
    assert torch.allclose(after, problem.rewards[rows] - first)


def test_a_batch_is_not_judged_by_what_it_teaches(table, monkeypatch):
    """In the loop: what a member learns from a batch is used from the next batch on."""
    seen = []
    member = baselines.FAMILY["prompt_running_mean"]

    def judge(problem, known):
        seen.append(known.memory)
        return problem.rewards

    watched = dataclasses.replace(member, judge=judge)
    monkeypatch.setitem(baselines.FAMILY, "prompt_running_mean", watched)
    climb(table, baseline="prompt_running_mean", group_size=2, steps=2, lr=0.0, prompts=("pan",))
    assert seen[0] is None and seen[1] is not None and len(seen) == 3


def test_a_baseline_climbs_with_a_network_too(world):
    """The closed form of a table and the general list of scores give the same step."""
    table = tables.TablePolicy(world, std=0.5, generator=torch.Generator().manual_seed(1))
    closed, general = copy.deepcopy(table), copy.deepcopy(table)
    settings = ascent.Settings(lr=1.0, steps=2, group_size=4, baseline="best_constant")
    ends = []
    for policy, weights in ((closed, closed.logits), (lambda ids: general(ids), general.logits)):
        chance = torch.Generator().manual_seed(0)
        records = ascent.climb(policy, [weights], world, settings, generator=chance)
        ends.append([record["objective"] for record in records])
    assert ends[0] == pytest.approx(ends[1], abs=1e-9)


def test_settings_that_cannot_work_are_refused_in_words(table):
    for name, words in (
        ("leave_one_out", "nobody to compare"),
        ("group_z_score", "deviation"),
        ("group_mean", "itself"),
        ("best", "no baseline"),
    ):
        with pytest.raises(ValueError, match=words):
            baselines.member(name, 1)
    baselines.member("none", 1)
    with pytest.raises(ValueError, match="nobody"):
        climb(table, baseline="leave_one_out", group_size=1, steps=1, lr=1.0)


@pytest.mark.parametrize("name", baselines.FAMILY)
def test_the_old_name_is_taken_with_a_word_of_warning(problem, name):
    label = baselines.FAMILY[name].label
    if label == name:
        return
    with pytest.warns(FutureWarning, match=f"is called '{name}' now"):
        old = baselines.moments(problem, label, num_actions=5, group_size=2)
    assert old.variance == baselines.moments(problem, name, num_actions=5, group_size=2).variance


def test_leave_one_out_is_a_u_statistic(problem):
    """Hoeffding (1948): Var = 2/(K(K−1)) [2(K−2) ζ₁ + ζ₂], kernel ½ (R_x − R_y)(s_x − s_y)."""
    p, r, s = problem.probability, problem.rewards, problem.scores
    mean = problem.truth
    # E_y of the kernel, and of its square, from Gram matrices
    first = 0.5 * (r[:, None] * s - r[:, None] * (p @ s) - (p @ r) * s + (p * r) @ s)
    zeta_1 = float(p @ first.pow(2).sum(-1) - mean @ mean)
    gram = s @ s.T
    distance = gram.diag()[:, None] + gram.diag() - 2 * gram
    zeta_2 = float(p @ (0.25 * (r[:, None] - r) ** 2 * distance) @ p - mean @ mean)
    for size in (2, 3, 8):
        found = gradients.of_groups(problem, advantages.leave_one_out, group_size=size)
        expected = 2 / (size * (size - 1)) * (2 * (size - 2) * zeta_1 + zeta_2)
        assert found.variance == pytest.approx(expected, rel=1e-9)


def test_a_table_without_an_end(world):
    other = word_world.TokenWorld(
        ("a", "b", "c"), ("p",), 4, lambda c, x: [float(t.split()[0] == "a") for t in x], ends=False
    )
    table = tables.TablePolicy(other, std=0.5, generator=torch.Generator().manual_seed(1))
    problem = baselines.table_problem(table, "p")
    assert problem.moves.shape == (81, 4)
    ask = lambda name: baselines.moments(problem, name, num_actions=3, group_size=1).variance  # noqa: E731
    # the first token decides everything: after it, V = R and nothing is left to judge
    assert ask("exact_value") == pytest.approx(ask("exact_advantage"))
    assert ask("exact_value") < 0.1 * ask("none")
