"""Bad input to every public function is refused in words: one valid call each, spoiled in turn.

The functions are found by looking, so that a new one cannot be forgotten. What is bad is decided
here, from the valid call and from the names of arguments, and not by what the docstrings say.
"""

import copy
import functools
import importlib
import inspect
import math
import pickle
import pkgutil
import re
import types
import typing
from pathlib import Path

import hypothesis
import pytest
import torch
from hypothesis import strategies as st
from torch import Tensor

import course.exact
import course.worlds
import helpers
from course.exact import ascent, baselines, gradients, off_policy, oracle, tables, td, values
from course.worlds import grammar, imitation, rewards, tiny_models, word_world
from helpers import (
    advantages,
    checkpoints,
    contract,
    decoding,
    losses,
    models,
    probe,
    processes,
    rollout,
    runlog,
    scoring,
    settings,
    train,
)

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = (helpers, course.exact, course.worlds)
FREE = {  # functions that may take anything, and why
    "helpers.contract": "the checks themselves; they are tested below",
    "helpers.processes.Processes.share": "any sequence: only its length counts",
    "helpers.runlog.provenance": "any details, by name",
    "helpers.train.Loop.most_mismatch": "a setting",
}


def public_functions():
    """(dotted name, callable, parameters): functions, constructors and methods of all modules."""
    for package in PACKAGES:
        for found in pkgutil.iter_modules(package.__path__, package.__name__ + "."):
            module = importlib.import_module(found.name)
            for name, thing in vars(module).items():
                if name.startswith("_") or getattr(thing, "__module__", "") != module.__name__:
                    continue
                if inspect.isclass(thing):
                    for key, method in vars(thing).items():
                        public = not key.startswith("_") or key in ("__init__", "__call__")
                        function = getattr(method, "__func__", method)
                        if public and callable(function):
                            yield f"{module.__name__}.{name}.{key}", function
                elif hasattr(thing, "__qualname__"):
                    yield f"{module.__name__}.{name}", thing


def parameters_of(function):
    hints = typing.get_type_hints(inspect.unwrap(function), localns=_Anything())
    kinds = inspect.Parameter
    return {
        p.name: (hints.get(p.name, typing.Any), p)
        for p in inspect.signature(function).parameters.values()
        if p.name not in ("self", "cls") and p.kind not in (kinds.VAR_KEYWORD, kinds.VAR_POSITIONAL)
    }


class _Anything(dict):
    def __missing__(self, key):
        return typing.Any


def is_free(name):
    return any(name == each or name.startswith(each + ".") for each in FREE)


ALL = dict(public_functions())
FUNCTIONS = {
    name: function
    for name, function in ALL.items()
    if parameters_of(function) and not is_free(name)
}


# ------------------------------------------------------------------- a valid call of each function

F = torch.float64
MASK = torch.tensor([[True, True, False], [True, True, True]])


def rows_of(*shape, low=-1.0):
    """Numbers that are all different, of a shape."""
    return low + torch.arange(math.prod(shape), dtype=F).view(shape) / math.prod(shape)


@functools.cache
def shared():
    """What is expensive to make, and is not changed by a valid call; copies where it is."""
    world = word_world.TokenWorld(("a", "b", "c", "."), ("p", "q"), 3, flat)
    chance = torch.Generator().manual_seed(0)
    table = tables.TablePolicy(world, std=0.5, generator=chance)
    lm = tiny_models.word_language_model(
        world, tiny_models.word_transformer(world, seed=0, width=8, layers=1)
    )
    batch = rollout.sample(
        lm.model,
        *lm.encode(["p", "q"]),
        eos_ids=(),
        max_new_tokens=3,
        group_size=2,
        generator=chance,
    )
    cache = decoding.new_cache(lm.model)
    models.forward(lm.model, torch.tensor([[4, 0]]), torch.ones(1, 2).bool(), past_key_values=cache)
    tree = td.token_tree(world, "p")
    made = {"world": world, "table": table, "lm": lm, "batch": batch, "cache": cache, "tree": tree}
    made |= {"problem": baselines.table_problem(table, "p"), "reviews": models.load()}
    made |= {"levels": values.transition_rewards(world, "p")}
    made |= {"record": td.write_texts(tree, UNIFORM, 4, generator=chance)}
    made |= {"off": off_policy.off_policy(table, tables.TablePolicy(world), world, "p")}
    made |= {"grammar": grammar.Grammar("S", {"S": [(1, "a", 1.0), (2, "b S", 0.0)]})}
    made |= {"config": settings.Config(steps=1, prompts_per_step=2, group_size=2, max_new_tokens=3)}
    return types.SimpleNamespace(**made)


def flat(prompts, completions):
    return [float(len(text)) for text in completions]


UNIFORM = torch.full((13, 4), 0.25, dtype=F)  # 13 states, 4 words
REVIEW = "the film was good ."


def usual_tensors():
    """Tensors and lists under their names."""
    return {
        "reward": flat,
        "generator": torch.Generator().manual_seed(0),
        "prompts": ["p", "q"],
        "completions": ["a .", "b ."],
        "texts": ["a b .", "c ."],
        "words": ("a", "b", "c"),
        "rewards": rows_of(4, 3),
        "token_rewards": rows_of(2, 3),
        "completion_mask": MASK,
        "mask": MASK,
        "token_ids": torch.tensor([[4, 0], [5, 1]]),
        "token_logprobs": rows_of(2, 3),
        "logits": rows_of(2, 3, 5),
        "rows": torch.tensor([0, 3, 1]),
        "terms": rows_of(40, 52),
        "ratios": rows_of(7, low=0.5),
        "returns": rows_of(7),
        "log_ratios": rows_of(2, 3),
        "probability": torch.full((7,), 1 / 7, dtype=F),
        "probabilities": UNIFORM,
        "q_table": rows_of(13, 4),
        "states": rows_of(2, 3, 5),
        "device": torch.device("cpu"),
        "row": [0.5, 0.25, 1.0],
        "bootstrap": td.best_value,
        "at": [1, 3],
    }


def usual_numbers():
    """Numbers and strings under their names."""
    return {
        "prompt": "p",
        "ref_policy": None,
        "memory": None,
        "folder": None,
        "record_path": None,
        "num_actions": 4,
        "num_states": 13,
        "group_size": 2,
        "count": 3,
        "budget": 16,
        "batch_size": 1,
        "seed": 0,
        "steps": 3,
        "word": 1,
        "state": 0,
        "epsilon": 0.25,
        "gamma": 0.75,
        "power": 0.5,
        "lam": 0.5,
        "temperature": 0.75,
        "truth": 0.5,
        "mean": 0.5,
        "variance": 0.5,
        "name": "group_mean",
        "prefix": "b",
        "text": "b a",
    }


def usual():
    """What most functions take under these names."""
    s = shared()
    policies = dict.fromkeys(("policy", "sampler", "other", "target", "behavior"), s.table)
    objects = {
        "world": s.world,
        "table": s.table,
        "parameters": [s.table.logits],
        "problem": s.problem,
        "tree": s.tree,
        "record": s.record,
        "model": s.lm.model,
        "lm": s.lm,
        "batch": s.batch,
    }
    return policies | objects | usual_tensors() | usual_numbers()


def made(folder):
    """Objects that the examples of single functions are made of."""
    s = shared()
    review = {"lm": copy.deepcopy(s.reviews), "texts": [REVIEW, "i loved the plot ."]}
    numbers = {"mean": rows_of(5), "truth": rows_of(5) + 1}
    levels = {"rewards": s.levels}
    texts = {"prompts": ["37+45=", "1+2="], "completions": ["082", "03"]}
    ids = torch.tensor([[4], [5]])
    asked = {"prompt_ids": ids, "prompt_mask": torch.ones(2, 1).bool()}
    groups = {"rows": torch.tensor([0, 1, 3])}
    written = {name: rows_of(4, 3) for name in ("old_logprobs", "entropies")}
    state = checkpoints.State.fresh(s.lm.model, lr=0.1, seed=0)
    sampling = rollout.SamplingSettings((3,), 3, group_size=2)
    pair = {"there": {"a": "b"}, "here": {"a": "c"}}
    mine = {"mine": {"a": torch.ones(3)}, "device": torch.device("cpu")}
    path = Path(folder) / "run.csv"
    one = dict.fromkeys([f.name for f in runlog.dataclasses.fields(runlog.Record)], 0.5)
    one |= {"step": 0, "prompts": ["p"], "completions": ["a"], "rewards": [0.5]}
    saved = Path(folder) / "run"
    config = {"config": s.config}
    normal = rows_of(5, 6)
    return types.SimpleNamespace(
        folder=folder,
        asked=asked,
        config=config,
        groups=groups,
        ids=ids,
        levels=levels,
        mine=mine,
        normal=normal,
        numbers=numbers,
        one=one,
        pair=pair,
        path=path,
        review=review,
        s=s,
        sampling=sampling,
        saved=saved,
        state=state,
        texts=texts,
        written=written,
    )


def examples_advantages_to_lock(m):
    return {
        "advantages.compare": {"groups": rows_of(4, 3), "level": 0.5},
        "advantages.running_mean": {"past": torch.tensor(0.5), "new": rows_of(4)},
        "advantages.zero_where_equal": {"advantages": rows_of(4, 3)},
        "advantages.rewards_to_go": {},
        "advantages.gae": {"values": rows_of(2, 3)},
        "State.fresh": {"lr": 0.1},
        "State.__init__": {
            "optimizer": m.state.optimizer,
            "chance": m.state.chance,
            "memory": {"mean": torch.ones(())},
        },
        "checkpoints.save": {"state": m.state, "folder": m.saved, **m.config, "run": {"a": "b"}},
        "checkpoints.resume": {"state": m.state, "folder": m.saved, **m.config, "run": {"a": "b"}},
        "checkpoints.clear": {"folder": m.saved},
        "cpu.settle": {"parameters": 0},
        "cpu.products": {"by_onednn": False},
        "cpu.onednn_is_faster": {"rows": 3},
        "Decoder.__init__": {"capture": False},
        "decoding.cached": {**m.asked, "limit": 3},
        "decoding.lean": {**m.asked, "model": m.s.reviews.model, "limit": 3, "share": True},
        "rollout.whole": {**m.asked, "limit": 3},
        "Decoder.decode": {
            **m.asked,
            "settings": m.sampling,
            "uniforms": rows_of(4, 3, low=0.0),
            "draw": rollout.draw,
        },
        "decoding.new_cache": {"room": 3},
        "decoding.cached_tensors": {"cache": m.s.cache},
        "decoding.cache_of": {"tensors": decoding.cached_tensors(m.s.cache)},
        "decoding.fixed_cache": {"length": 3},
        "identity.of_run": {},
        "identity.of_weights": {"weights": [("a", torch.ones(2))]},
        "identity.of_function": {"function": flat},
        "identity.differences": m.pair,
        "Lock.__init__": {"folder": Path(m.folder) / "lock"},
    }


def examples_kl_to_processes(m):
    return {
        "kl.kl_divergence": {
            "sampler_logprobs": rows_of(2, 5).log_softmax(-1),
            "other_logprobs": (2 * rows_of(2, 5)).log_softmax(-1),
        },
        "logprobs.token_logprobs": {"token_ids": torch.tensor([[0, 1, 2], [3, 4, 0]])},
        "logprobs.next_token_logprobs": {"token_ids": torch.tensor([[0, 1, 2], [3, 4, 0]])},
        "logprobs.completion_lengths": {
            "completion_ids": torch.tensor([[0, 1, 2], [3, 4, 0]]),
            "eos_ids": (2,),
        },
        "logprobs.mask_from_lengths": {"lengths": torch.tensor([1, 3]), "width": 3},
        "logprobs.sampling_logits": {"top_k": 2, "top_p": 0.5},
        "losses.reinforce_loss": {"advantages": rows_of(2)},
        "LanguageModel.read": {},
        "LanguageModel.decode": {
            "completion_ids": torch.tensor([[0, 1, 2], [3, 0, 0]]),
            "lengths": torch.tensor([3, 1]),
        },
        "LanguageModel.__init__": {
            "tokenizer": m.s.lm.tokenizer,
            "eos_ids": (3,),
            "context_length": 6,
        },
        "Reading.__init__": {"padded": True, "cached": True, "shared": True},
        "rollout.read": {"states": False},
        "models.load": {"name_or_path": models.REVIEWS_MODEL, "eos_token": None, "device": "cpu"},
        "models.save": {"folder": Path(m.folder) / "model"},
        "models.forward": {"mask": torch.ones(2, 2).bool()},
        "Processes.__init__": {"accelerator": None},
        "Processes.gather": {"mine": torch.ones(3)},
        "Processes.add": {"mine": torch.ones(3)},
        "Processes.columns": m.mine,
    }


def examples_processes_to_runlog(m):
    return {
        "Processes.check_same": {"mine": {"a": "b"}},
        "RolloutBatch.__init__": dict(vars(m.s.batch)),
        "SamplingSettings.__init__": {
            "eos_ids": (2,),
            "max_new_tokens": 3,
            "top_k": 2,
            "top_p": 0.5,
        },
        "rollout.sample": {**m.asked, "settings": m.sampling, "uniforms": None, "decoder": None},
        "rollout.draw_uniforms": {"shape": (2, 3)},
        "rollout.check_limits": {"context": 9, "prompt_tokens": 3, "max_new_tokens": 3},
        "rollout.draw": {
            "logits": rows_of(2, 5),
            "uniforms": rows_of(2, low=0.0),
            "settings": m.sampling,
        },
        "rollout.pack": {
            **m.asked,
            **m.written,
            "token_ids": torch.tensor([[0, 1, 2]] * 4),
            "eos_ids": (3,),
        },
        "rollout.completion_logprobs": {"top_k": 2, "top_p": 0.5},
        "rollout.read_columns": {
            "token_ids": torch.tensor([[4, 0, 1], [5, 1, 2]]),
            "mask": torch.ones(2, 3).bool(),
            "count": 2,
            "states": False,
        },
        "Record.__init__": m.one,
        "runlog.record": {"records": [runlog.Record(**m.one)], "path": m.path},
        "runlog.load": {"path": m.path},
        "runlog.save": {"path": m.path, "columns": ["a", "b"], "rows": [[1.0, 2.0]], "about": {}},
    }


def examples_scoring_to_known(m):
    return {
        "scoring.split": {"lengths": torch.tensor([1, 3, 2])},
        "scoring.select": m.groups,
        "SharedPrompts.__init__": m.groups,
        "SharedPrompts.logits": {"piece": m.s.batch, "rows": torch.arange(4)},
        "scoring.score": m.groups,
        "scoring.can_share": {"prompt_mask": torch.ones(4, 1).bool()},
        "scoring.against_reference": {"policy": m.s.lm.model, "ref_policy": m.s.lm.model},
        "scoring.token_rewards": {"rewards": rows_of(2), "penalties": rows_of(2, 3)},
        "Baseline.__init__": {"label": "a"},
        "Config.__init__": {"steps": 3},
        "settings.check": m.config,
        "settings.new_name": {"table": settings.BASELINES},
        "settings.check_baseline": {"table": settings.BASELINES},
        "settings.call_reward": {"step": 0},
        "train.train": m.config,
        "Loop.__init__": m.config,
        "Loop.judge": {"asked": ["p"] * 4, "completions": ["a ."] * 4},
        "Loop.compare": {"token_rewards": rows_of(4, 3)},
        "Loop.credit": {"judged": rows_of(4)},
        "value_head.predict": {"memory": m.normal},
        "value_head.compare": {"token_rewards": rows_of(4, 3)},
        "value_head.normal_equations": {"returns": rows_of(2, 3)},
        "value_head.learn": {"memory": m.normal, "of_batch": m.normal + 1},
        "ascent.moments_of_loss": {"loss_function": reinforce},
        "ascent.Settings.__init__": {"lr": 0.1, "prompts": ("p",), "baseline": "none"},
        "ascent.climb": {"settings": ascent.Settings(lr=0.1, steps=1, group_size=2)},
        "ascent.bandit": {"rewards": {"a": 1.0}},
        "baselines.excess": {"values": rows_of(13)},
        "Known.__init__": {"constant": 0.5, "memory": rows_of(13)},
    }


def examples_member_to_oracle(m):
    return {
        "Member.judged": {"known": baselines.Known(4)},
        "Member.__init__": {"label": "a", "judge": None, "learn": None},
        "baselines.moments": {"learned": rows_of(13)},
        "baselines.average": {
            "parts": [gradients.GradientMoments(**m.numbers, variance=0.5, variance_along=0.5)]
        },
        "GradientMoments.__init__": {**m.numbers, "variance_along": 0.5},
        "GradientProblem.at_states": {"values": rows_of(13)},
        "GradientProblem.at_moves": {"values": rows_of(13, 4)},
        "GradientProblem.combine": {"weights": rows_of(40, 3)},
        "GradientProblem.__init__": {
            name: getattr(m.s.problem, name)
            for name in ("probability", "rewards", "word_scores", "moves")
        },
        "gradients.of_terms": {"probability": m.s.problem.probability},
        "gradients.of_groups": {"compare": advantages.leave_one_out},
        "gradients.share_out": {"kinds": 2},
        "importance.log_ratios": {
            "target_logprobs": rows_of(2, 3),
            "behavior_logprobs": rows_of(2, 3),
        },
        "importance.per_decision_returns": {"prefix_ratios": rows_of(2, 3, low=0.5)},
        "OffPolicy.__init__": dict(vars(m.s.off)),
        "off_policy.off_policy": m.levels,
        "off_policy.of_mean": {"terms": rows_of(7)},
        "off_policy.of_self_normalised": {"step": 0.5},
        "off_policy.of_each_kind": {"problem": m.s.off},
        "Completions.__init__": dict(vars(oracle.enumerate_completions(m.s.world))),
        "oracle.along": {"levels": m.s.levels, "path": [0, 1, 3]},
        "oracle.rank": {"path": [0, 1], "num_continuing": 3},
        "oracle.read_moves": {"levels": m.s.levels, "moves": m.s.problem.moves},
    }


def examples_oracle_to_imitation(m):
    return {
        "oracle.chi_square_p_value": {
            "counts": torch.tensor([30, 40]),
            "probabilities": torch.tensor([0.5, 0.5]),
        },
        "TablePolicy.__init__": {"std": 0.5},
        "TokenTree.__init__": {"transitions": m.s.tree.transitions},
        "td.token_tree": m.levels,
        "td.read_texts": {"texts": [[0, 1, 3], [3]]},
        "td.update_q": {
            "q_table": rows_of(13, 4).tolist(),
            "visits": [[0] * 4 for _ in range(13)],
            "text": m.s.record[0],
        },
        "td.learn_from_texts": {"shape": (13, 4), "initial": 0.5},
        "td.learn_by_writing": {"initial": 0.5},
        "td.greedy_word": {"u": 0.5},
        "Values.__init__": {"value": [x[:, 0] for x in m.s.levels], "q_value": m.s.levels},
        "values.stopping_rewards": m.levels,
        "values.shape_rewards": {**m.levels, "potential": [x[:, 0] for x in m.s.levels]},
        "values.policy_values": m.levels,
        "values.optimal_values": m.levels,
        "values.epsilon_greedy_values": m.levels,
        "Grammar.__init__": {"start": "S", "weights": {"S": [(1.0, "a", 1.0)]}},
        "StepRecord.__init__": {"nats": 1.0, "reviews": 2, "tokens": 3, "gradient_norm": 0.5},
        "imitation.draw": {"context_length": 96},
        "imitation.encode": m.review,
        "imitation.score": {**m.review, "prompt_words": 2},
    }


def examples_imitation_to_tokenworld(m):
    return {
        "imitation.step": {
            **m.review,
            "optimizer": torch.optim.SGD(m.review["lm"].model.parameters(), lr=0.1),
            "micro_batch": 2,
        },
        "imitation.new_optimizer": m.review,
        "imitation.train": {**m.review, "batch": 2},
        "imitation.surprise": {**m.review, "chunk": 2},
        "imitation.exact_conditionals": m.review,
        "imitation.kl_along": {
            **m.review,
            "truth": imitation.exact_conditionals(m.s.reviews, m.review["texts"]),
        },
        "imitation.measure": m.review,
        "reviews.reviews_grammar": {"praise": 0.5},
        "reviews.completion_grammar": {},
        "rewards.target_length_reward": {"target": 3},
        "rewards.addition_answer": {"prompt": "37+45="},
        "rewards.addition_reward": m.texts,
        "rewards.lenient_addition_reward": m.texts,
        "RewardModel.__init__": {"weights": rows_of(3), "bias": 0.5},
        "rewards.fit_reward_model": {"labels": [0.0, 1.0], "ridge": 0.5},
        "rewards.one_word": {"word": "a"},
        "tiny_models.word_transformer": {"width": 8, "layers": 1, "std": 0.5},
        "tiny_models.new_reviews_model": {"vocab_size": 5},
        "TokenWorld.decode": {"token_ids": [0, 1, 3]},
        "TokenWorld.encode": {"text": "a b ."},
        "TokenWorld.__init__": {"prompts": ("p", "q"), "max_length": 3, "ends": True},
    }


def special(folder):
    """What single functions take: by the end of their dotted names."""
    m = made(folder)
    return (
        examples_advantages_to_lock(m)
        | examples_kl_to_processes(m)
        | examples_processes_to_runlog(m)
        | examples_scoring_to_known(m)
        | examples_member_to_oracle(m)
        | examples_oracle_to_imitation(m)
        | examples_imitation_to_tokenworld(m)
    )


def reinforce(token_logprobs, rewards, completion_mask):
    return losses.reinforce_loss(token_logprobs, rewards, completion_mask)


def itself(owner):
    """An object whose methods are called."""
    s = shared()
    return {
        "LanguageModel": lambda: s.lm,
        "Decoder": lambda: decoding.Decoder(s.lm.model, capture=False),
        "Reading": lambda: probe.reading(s.lm.model),
        "Processes": lambda: processes.Processes(None),
        "SamplingSettings": lambda: rollout.SamplingSettings((3,), 3, group_size=2),
        "SharedPrompts": lambda: scoring.SharedPrompts(
            s.lm.model, s.batch, torch.arange(4), group_size=2
        ),
        "Loop": lambda: train.Loop(copy.deepcopy(s.lm), ["p", "q"], flat, s.config),
        "Member": lambda: baselines.FAMILY["group_mean"],
        "GradientProblem": lambda: s.problem,
        "TablePolicy": lambda: s.table,
        "Grammar": lambda: s.grammar,
        "RewardModel": lambda: rewards.RewardModel(("a", "b"), torch.ones(2).double(), 0.5),
        "TokenWorld": lambda: s.world,
        "State": lambda: checkpoints.State,
    }[owner]()


def example(name, folder):
    """The function, bound if it is a method, and a valid argument for each of its parameters."""
    *_, module, last = name.split(".")
    owner = None
    if module[0].isupper() or module[:1] == "_":
        owner = module
    place = importlib.import_module(
        name[: -len(f".{owner}.{last}")] if owner else name[: -len(last) - 1]
    )
    if owner is None:
        function = getattr(place, last)
    elif last == "__init__":
        function = getattr(place, owner)
    else:
        function = getattr(itself(owner), last)
    key = f"{owner}.{last}" if owner else f"{module}.{last}"
    full = ".".join(name.split(".")[-3:])
    found = special(folder)
    mine = usual() | found.get(full, found.get(key, {}))
    given = {}
    for each, (_, parameter) in parameters_of(FUNCTIONS[name]).items():
        if each in mine:
            given[each] = mine[each]
        elif parameter.default is not inspect.Parameter.empty:
            given[each] = parameter.default
        else:
            raise KeyError(f"{name}: give an example of {each}")
    return function, given


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("contract")


def run(function, given):
    result = function(**given)
    if isinstance(result, types.GeneratorType):
        return next(result) if inspect.getgeneratorlocals(result).keys() & {"limit"} else [*result]
    return result


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_valid_call_is_taken(name, folder):
    function, given = example(name, folder)
    if name == "helpers.runlog.load":
        run(
            runlog.record,
            {
                "records": [runlog.Record(**example("helpers.runlog.Record.__init__", folder)[1])],
                "path": given["path"],
            },
        )
    run(function, given)


# --------------------------------------------------------------------------- and what spoils it

OBJECT = object()
UNIT = ("gamma", "lam", "epsilon", "praise", "u", "compact_below", "gae_lambda", "top_p")
POSITIVE = ("temperature", "epsilon", "ridge", "step", "lr", "max_grad_norm", "top_p")
COUNTS = [
    "group_size",
    "count",
    "budget",
    "batch_size",
    "num_states",
    "num_actions",
    "kinds",
    "max_new_tokens",
    "top_k",
    "context",
    "context_length",
    "room",
    "length",
    "micro_batch",
    "chunk",
    "batch",
    "target",
    "width",
    "layers",
    "heads",
    "vocab_size",
    "max_length",
    "digits",
    "num_continuing",
    "prompts_per_step",
    "checkpoint_every",
    "tokens_per_micro_batch",
    "processes",
]
NATURAL = ["steps", "seed", "step", "saved_step", "prompt_words", "prompt_tokens", "word"]
UNIT_NOT = {"helpers.advantages.group_z_score": "epsilon"}
# What is legitimate after all: (function, argument, what was done to it)
LEGITIMATE = {
    ("helpers.models.forward", "token_ids", "dimension 1 shorter"),  # the rest is in the cache
    ("helpers.runlog.Record.__init__", "kl", "nan"),  # without a reference
    ("course.exact.oracle.chi_square_p_value", "counts", "float"),
    ("course.exact.oracle.along", "levels", "nan"),  # where no text can be
    ("course.exact.baselines.Known.__init__", "memory", "one dimension less"),  # a mean
    ("helpers.checkpoints.State.fresh", "lr", "zero"),
    ("course.exact.ascent.Settings.__init__", "lr", "zero"),
    ("helpers.processes.Processes.gather", "mine", "complex"),
    ("helpers.models.forward", "mask", "dimension 1 longer"),
    ("helpers.processes.Processes.gather", "mine", "bool"),
    ("helpers.rollout.pack", "old_logprobs", "nan"),  # after an end
    ("helpers.rollout.at_least_float32", "logits", "nan"),  # it looks at nothing
    ("helpers.rollout.at_least_float32", "logits", "+inf"),
    ("course.exact.gradients.GradientProblem.__init__", "word_scores", "dimension 1 longer"),
    ("course.exact.gradients.GradientProblem.__init__", "word_scores", "dimension 1 shorter"),
}


ANY_DIMENSIONS = {  # of one tensor alone: then one more or fewer is as good
    "helpers.advantages": ("rewards", "groups", "new"),
    "helpers.logprobs": ("logits",),
    "helpers.rollout.at_least_float32": ("logits",),
    "helpers.rollout.SamplingSettings.logits": ("logits",),
    "helpers.processes.Processes": ("mine",),
}


def is_legitimate(function, name, what):
    free = any(function.startswith(k) and name in names for k, names in ANY_DIMENSIONS.items())
    return (function, name, what) in LEGITIMATE or (free and "dimension" in what)


def is_optional(hint):
    return hint is typing.Any or type(None) in typing.get_args(hint)


def with_entry(x, position, value):
    x = x.detach().clone().contiguous()
    x.view(-1)[position % x.numel()] = value
    return x


def spoiled_tensors(name, x, given, position):
    """(what was done, the value): tensors that cannot be meant."""
    yield "a list", x.tolist() if x.ndim != 1 else [x.tolist()]
    yield "complex", x.to(torch.complex64)
    if x.dtype == torch.bool:
        yield "not bool", x.int()
        yield "not bool", x.double()
    else:
        yield "bool", x > 0
    if x.is_floating_point():
        masks = [m for m in given.values() if isinstance(m, Tensor) and m.dtype == torch.bool]
        inside = next((m for m in masks if m.shape == x.shape), torch.ones_like(x)).reshape(-1)
        seen = inside.nonzero()[position % int(inside.count_nonzero()), 0].item()
        yield "nan", with_entry(x, seen, math.nan)
        yield "+inf", with_entry(x, seen, math.inf)
    elif x.dtype != torch.bool:
        yield "float", x.double()
    sizes = [
        (n, other.shape) for n, other in given.items() if isinstance(other, Tensor) and n != name
    ]
    known = {size for _, shape in sizes for size in shape} | {13, 40, 52, 4}
    yield "one dimension more", x.unsqueeze(0)
    if x.ndim:
        yield "one dimension less", x[0]
    for dim, size in enumerate(x.shape):
        if size in known and len(sizes) + 1 > 1:
            yield f"dimension {dim} longer", torch.cat([x, x.narrow(dim, 0, 1)], dim)
            yield f"dimension {dim} shorter", x.narrow(dim, 0, size - 1)


def spoiled_numbers(name, x, function):
    kind = type(x)
    yield "a string", "3"
    yield "a list", [x]
    if kind is int:
        yield "half", x + 0.5
        yield "a float", float(x)
        yield "bool", True
        yield "huge", 10**30
        if name in COUNTS:
            yield "zero", 0
        if name in COUNTS or name in NATURAL:
            yield "negative", -1
    else:
        yield "nan", math.nan
        yield "bool", True
        if name != "max_grad_norm":
            yield "inf", math.inf
        if name in UNIT and UNIT_NOT.get(function) != name:
            yield "above 1", 1.5
            yield "negative", -0.25
        if name in POSITIVE and (name != "epsilon" or function in UNIT_NOT):
            yield "zero", 0.0
            yield "negative", -1.0


def spoiled(function, name, hint, value, given, position):
    """(what was done, value) of everything that this argument cannot be."""
    if value is None or hint is typing.Any and not callable(value):
        return
    yield "an object", OBJECT
    if not is_optional(hint):
        yield "none", None
    if isinstance(value, Tensor):
        yield from spoiled_tensors(name, value, given, position)
    elif isinstance(value, bool):
        yield from (("a string", "yes"), ("a number", 3))
    elif isinstance(value, int | float):
        yield from spoiled_numbers(name, value, function)
    elif isinstance(value, str):
        yield from (("a number", 3), ("a list", [value]), ("bytes", value.encode()))
    elif isinstance(value, list | tuple | dict):
        yield from (("a number", 3), ("a string", "ab"), ("full of objects", [OBJECT]))
        if (
            name in ("prompts", "completions", "labels")
            and len([x for x in given.values() if isinstance(x, list)]) > 1
        ):
            yield "one fewer", value[:-1]
        if value and isinstance(value[0] if not isinstance(value, dict) else 0, float):
            yield "nan", [math.nan, *value[1:]]
        if value and isinstance(value, list) and isinstance(value[0], Tensor):
            yield "nan", [with_entry(value[0], position, math.nan), *value[1:]]
            yield "one level fewer", value[:-1]
    else:
        yield from (("a number", 3), ("a list", [OBJECT]))
        if str not in typing.get_args(hint):
            yield "a string", "ab"


def verdict(function, name, given, error):
    """Whether a bad call was refused clearly: by the project's code, naming the argument."""
    if error is None:
        return "accepted"
    frame = error.__traceback__
    while frame.tb_next is not None:
        frame = frame.tb_next
    here = Path(frame.tb_frame.f_code.co_filename).is_relative_to(ROOT)
    own = here and not Path(frame.tb_frame.f_code.co_filename).is_relative_to(ROOT / "tests")
    says = name in str(error) or f"{given[name]!r:.20}" in str(error)
    return "clear" if own and says and isinstance(error, TypeError | ValueError) else "raw"


def tried(function, given):
    try:
        run(function, given)
    except Exception as error:  # noqa: BLE001  (whatever it is, it is judged)
        return error
    return None


RAW = {("helpers.decoding.cache_of", "tensors", "one level fewer")}  # half a cache

TALLY: dict[str, list[str]] = {"clear": [], "raw": [], "accepted": []}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_bad_input_is_refused_in_words(name, folder):
    hints = parameters_of(FUNCTIONS[name])
    _, usual_given = example(name, folder)

    @hypothesis.settings(max_examples=3, derandomize=True, database=None)
    @hypothesis.given(st.integers(0, 10**6))
    def spoil(position):
        for each, value in usual_given.items():
            for what, bad in spoiled(name, each, hints[each][0], value, usual_given, position):
                if is_legitimate(name, each, what):
                    continue
                arguments = usual_given | {each: bad}
                outcome = verdict(name, each, arguments, error := tried(made, arguments))
                TALLY[outcome].append(f"{name}: {each} {what}: {error!r:.160}")

    made, _ = example(name, folder)
    before = {key: len(found) for key, found in TALLY.items()}
    spoil()
    known = tuple(f"{name}: {each} {what}" for name, each, what in RAW)
    raw = [found for found in TALLY["raw"][before["raw"] :] if not found.startswith(known)]
    wrong = raw + TALLY["accepted"][before["accepted"] :]
    assert not wrong, "\n".join(sorted(set(wrong)))


def test_almost_all_was_refused_clearly_and_nothing_accepted():
    count = sum(map(len, TALLY.values()))
    assert not TALLY["accepted"] and len(TALLY["clear"]) >= 0.99 * count


# ------------------------------------------------------------------------------ the checks alone


def held(source):
    """A module of a test's own, with its functions held to their docstrings."""
    module = types.ModuleType("held_for_a_test")
    exec(compile(source, "<test>", "exec"), vars(module))
    return module


SOURCE = '''
from torch import Tensor
from helpers import contract

def inner(x: Tensor, weights: Tensor | None = None) -> float:
    """Sum.

    Args:
        x: (B, T) float, T ≥ 2.
        weights: (T,) float in [0, 1]; None: all 1.
    """
    return float(x.sum())

def outer(x: Tensor) -> float:
    """Calls `inner` with what it would refuse from outside.

    Args:
        x: (B,) float.
    """
    return inner(x)

def with_callback(callback) -> float:
    """Calls what it is given.

    Args:
        callback: callable.
    """
    return callback()

contract.hold(globals())
'''


@pytest.fixture
def module():
    made = held(SOURCE)
    yield made
    contract.HELD.discard("held_for_a_test")


def test_the_message_names_function_argument_what_was_given_and_what_is_needed(module):
    with pytest.raises(ValueError) as caught:
        module.inner(torch.ones(2, 3), torch.ones(2))
    for words in ("inner", "weights", "(T,)", "shape (2,)", "T = 3 of x"):
        assert words in str(caught.value)
    with pytest.raises(TypeError, match="x must be of type Tensor, not None"):
        module.inner(None)


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (torch.ones(2, 1), "T ≥ 2"),
        (torch.ones(3), "shape"),
        (torch.ones(2, 3).long(), "float"),
        (torch.ones(2, 3, device="meta"), None),  # entries are not looked at, sizes are
        (torch.full((2, 3), math.nan), "finite"),
        (torch.full((2, 3), -math.inf), "finite"),
    ],
)
def test_each_part_of_a_statement_counts(module, spoil, why):
    if why is None:
        with pytest.raises(ValueError, match="one device"):
            module.inner(spoil, torch.ones(3))
        return
    with pytest.raises(ValueError, match=why):
        module.inner(spoil)


def test_inner_calls_are_trusted_and_a_callback_is_checked_again(module):
    assert module.outer(torch.ones(3)) == 3
    with pytest.raises(ValueError, match="shape"):
        module.inner(torch.ones(3))
    with pytest.raises(ValueError, match="inner: x"):
        module.with_callback(lambda: module.inner(torch.ones(3)))


def test_a_reward_within_the_loop_is_checked_and_the_loop_is_not(monkeypatch):
    seen = []
    check = contract.check
    monkeypatch.setattr(contract, "check", lambda f, *rest: (seen.append(f), check(f, *rest)))

    def reward(prompts, completions):
        return word_world.plus_ten(prompts, completions)

    def wrong(prompts, completions):
        return word_world.plus_ten(prompts[:1], completions)

    s = shared()
    loop = train.Loop(copy.deepcopy(s.lm), ["p", "q"], reward, s.config)
    seen.clear()
    loop.step()
    assert [f.__qualname__ for f in seen] == ["Loop.step", "plus_ten"]
    loop.reward = wrong
    with pytest.raises(ValueError, match="plus_ten: texts must have as many entries"):
        loop.step()


def test_what_python_knows_of_a_function_stays():
    signature = inspect.signature(advantages.gae)
    assert list(signature.parameters)[-1] == "lam" and "λ" in advantages.gae.__doc__
    assert pickle.loads(pickle.dumps(advantages.gae)) is advantages.gae
    with pytest.raises(TypeError, match="missing"):
        advantages.gae(torch.ones(2, 3), torch.ones(2, 3))
    with pytest.raises(TypeError, match="unexpected keyword"):
        advantages.leave_one_out(rewards=torch.ones(2), no=1)
    assert inspect.isgeneratorfunction(inspect.unwrap(scoring.score))


def test_arguments_are_not_changed_and_no_sum_is_taken_of_what_may_be_anything():
    token_logprobs = torch.tensor([[-1.0, -2.0, math.nan]], requires_grad=True)
    loss = losses.reinforce_loss(token_logprobs, torch.ones(1), MASK[:1])
    loss.backward()
    assert token_logprobs.grad.tolist() == [[-1.0, -1.0, 0.0]]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_public_function_is_held_and_says_what_it_takes(name):
    function = FUNCTIONS[name]
    assert inspect.unwrap(function) is not function, "contract.hold(globals()) is missing"
    owner = None
    if name.endswith("__init__"):
        place, owner = name.rsplit(".", 2)[:2]
        owner = getattr(importlib.import_module(place), owner)
    said = contract.statements(inspect.unwrap(function), owner)
    for each in parameters_of(function):
        hint, statement = said[each]
        assert hint is not typing.Any or statement, f"{each} has neither a type nor a statement"
        tensor = hint is Tensor or hint == Tensor | None or hint == Tensor | float
        assert (
            not tensor
            or "any kind" in statement
            or contract.KINDS.keys() & set(re.findall("float|int|bool|number", statement))
        ), f"{each}: of which kind? {statement}"


@pytest.mark.parametrize("piece", ["_type", "_size", "_within"])
def test_a_check_that_is_left_out_would_be_noticed(monkeypatch, piece):
    monkeypatch.setattr(contract, piece, lambda *_: "")
    bad = {
        "_type": lambda: advantages.gae(1, 2, 3),
        "_size": lambda: losses.reinforce_loss(torch.ones(2, 3), torch.ones(2), MASK[:, :2]),
        "_within": lambda: advantages.leave_one_out(torch.tensor([1.0, math.nan])),
    }[piece]
    assert "It takes" not in str(tried(bad, {}))
    monkeypatch.undo()
    assert "It takes" in str(tried(bad, {}))
