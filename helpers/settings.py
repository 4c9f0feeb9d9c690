"""What decides a run, and a refusal in words of what cannot work, before the run begins."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from helpers import contract, models, rollout
from helpers.models import LanguageModel


@dataclass(frozen=True)
class Baseline:
    """What a reward is compared with."""

    label: str  # for people; names in code have no spaces
    alone: str = ""  # what a group of one does; "" if it works


BASELINES: dict[str, Baseline] = {
    "none": Baseline("none"),
    "constant": Baseline("constant"),
    "running_mean": Baseline("running mean"),  # one level for all prompts
    "group_mean": Baseline(
        "group mean with self", "compares a text with itself, and every advantage is 0"
    ),
    "leave_one_out": Baseline("leave-one-out", "leaves nobody to compare with"),
    "group_z_score": Baseline("group z-score", "has no standard deviation"),
    "learned_value": Baseline("learned V(s)"),
}
Reward = Callable[[list[str], list[str]], Any]


@dataclass(frozen=True)
class Config:
    """Everything that decides a run, but the model, the prompts and the reward."""

    steps: int = 100  # ≥ 0, in all, restarts included
    prompts_per_step: int = 8  # P ≥ 1; no prompt twice in a step while there are enough
    group_size: int = 16  # K ≥ 1, completions a prompt
    max_new_tokens: int = 32  # ≥ 1: a completion ends here if it has not ended by itself
    temperature: float = 1.0  # > 0: softmax(logits / temperature) is sampled and scored
    baseline: str = "leave_one_out"  # one of BASELINES
    constant: float = 0.0  # of the baseline "constant", reward units
    gae_lambda: float = 1.0  # λ in [0, 1] of "learned_value"; below 1 the errors of V are a bias
    kl_coef: float = 0.0  # β ≥ 0, reward units a nat
    lr: float = 4e-4  # > 0, of AdamW, without weight decay or schedule
    max_grad_norm: float = 1.0  # > 0, +inf too: a longer gradient is scaled down to it, a bias
    seed: int = 0  # ≥ 0, of prompts and tokens
    checkpoint_every: int = 20  # steps, ≥ 1
    keep_special_tokens: bool = False  # in the texts that the reward sees; the end is never there
    # The rest is about speed alone: it changes no number, up to rounding.
    tokens_per_micro_batch: int | None = None  # ≥ 1, with padding; None: see `scoring.budget_of`
    share_prompts: bool = True  # read a prompt once a pass, not once a completion
    skip_zero_advantages: bool = True  # their part of the gradient is exactly 0
    compact_below: float = 0.75  # in [0, 1]: ended rows leave if at most this share is written
    graph_decode: bool = True  # on CUDA, replay one captured decode step (`helpers.decoding`)
    onednn: bool | None = None  # on a CPU, products by oneDNN; None: where it is faster by a fifth

    def __post_init__(self) -> None:
        """Take an old name of a baseline for the new one."""
        if isinstance(self.baseline, str):
            object.__setattr__(self, "baseline", new_name(self.baseline))


def check(
    config: Any,
    lm: LanguageModel,
    prompts: Sequence[str],
    reward: Any,
    ref_policy: LanguageModel | None,
    *,
    processes: int = 1,
) -> None:
    """Refuse what `train.train` could not do, or would do otherwise than it was meant.

    Args:
        config: like a `settings.Config`.
        lm: the policy.
        prompts: of a run.
        reward: callable.
        ref_policy: π_ref, or None.
        processes: ≥ 1, that the prompts of a step are divided between.
    Raises:
        ValueError: the message names the setting, what it is, and what it could be.
    """
    contract.check(Config.__init__, (config,), vars(config), Config)
    check_baseline(config.baseline, config.group_size)
    if config.prompts_per_step % processes:
        raise ValueError(
            f"prompts_per_step ({config.prompts_per_step}) must be a multiple of the number of "
            f"processes ({processes}): groups stay whole."
        )
    if isinstance(prompts, str) or not len(prompts) or not all(isinstance(p, str) for p in prompts):
        raise ValueError(f"prompts must be a list of at least one string, not {prompts!r:.60}.")
    longest = max(len(lm.read(prompt)) for prompt in prompts)  # refuses what cannot be read
    rollout.check_limits(lm.context_length, longest, config.max_new_tokens, config.group_size)
    learned = [p for p in lm.model.parameters() if p.requires_grad]
    if not learned:
        raise ValueError("no weight of this model has requires_grad, so there is nothing to train.")
    if any(p.dtype in (torch.float16, torch.bfloat16) for p in learned):
        raise ValueError(
            f"the weights are {learned[0].dtype}, in which small steps round to none. Load them "
            "with dtype=torch.float32; on CUDA the products are bfloat16 anyway."
        )
    if not callable(reward):
        raise ValueError(f"reward must be a function (prompts, completions), not {reward!r:.60}.")
    if ref_policy is not None:
        _check_reference(lm, ref_policy)
    elif config.kl_coef:
        raise ValueError(f"kl_coef is {config.kl_coef}, but there is no ref_policy to stay near.")


def _check_reference(lm: LanguageModel, ref_policy: LanguageModel) -> None:
    if ref_policy.model is lm.model:
        raise ValueError(
            "ref_policy is the policy itself and would move with it. Load the model a second "
            "time, or pass copy.deepcopy(lm)."
        )
    ours, theirs = lm.tokenizer.get_vocab(), ref_policy.tokenizer.get_vocab()
    word = next((word for word, i in sorted(ours.items()) if theirs.get(word, -1) != i), None)
    if word is not None or len(ours) != len(theirs):
        raise ValueError(
            f"ref_policy has another vocabulary ({len(theirs)} tokens; the policy has {len(ours)})"
            f"{f', first at {word!r}' if word else ''}: a KL needs one set of tokens. Take a "
            "reference with the policy's tokenizer."
        )
    widths = [models.text_config(each.model).vocab_size for each in (lm, ref_policy)]
    if widths[0] != widths[1]:
        raise ValueError(
            f"the policy has {widths[0]} logits and ref_policy {widths[1]}: a KL needs one set of "
            "tokens. Take a reference of the same family and size of vocabulary."
        )


def new_name(name: str, table: Mapping[str, Baseline] = BASELINES) -> str:
    """The slug of a baseline; its label, which was its name before, is taken with a warning.

    Args:
        name: a slug of the table, or a label; anything else is returned as it is.
        table: slug → baseline.
    """
    for slug, baseline in table.items():
        if name == baseline.label != slug:
            warnings.warn(
                f"the baseline {name!r} is called {slug!r} now; the old name goes with the next "
                "release.",
                FutureWarning,
                stacklevel=4,
            )
            return slug
    return name


def check_baseline(name: str, group_size: int, table: Mapping[str, Baseline] = BASELINES) -> None:
    """Refuse a baseline that does not exist, and a group that is too small for it, in words.

    Args:
        name: a slug of the table.
        group_size: K ≥ 1.
        table: slug → baseline.
    Raises:
        ValueError: the message says what there is, or what a larger group would change.
    """
    if name not in table:
        raise ValueError(f"no baseline {name!r}; there are {list(table)}.")
    if group_size < 1 or (table[name].alone and group_size < 2):
        reason = table[name].alone or "is no group"
        raise ValueError(f"A group of {group_size} {reason}: take K ≥ 2, or another baseline.")


# ------------------------------------------------------------------------------- any reward


def call_reward(
    reward: Callable[[list[str], list[str]], Any],
    prompts: Sequence[str],
    completions: Sequence[str],
    *,
    step: int,
) -> Tensor:
    """Call the reader's function, and refuse what cannot be a reward.

    Args:
        reward: callable: two lists of B strings → B numbers: a list, a tuple, an array or a tensor.
        prompts: B strings; the function gets a copy.
        completions: B strings; likewise.
        step: ≥ 0, for messages.
    Returns:
        (B,) float64, on the CPU.
    Raises:
        ValueError: not one finite number for each completion.
    """
    count = len(completions)
    with torch.no_grad(), torch.autocast("cuda", enabled=False):  # a reward may be a model
        try:
            got = reward(list(prompts), list(completions))
        except StopIteration as error:  # in a generator it would end the run without a word
            raise ValueError(f"step {step}: the reward function raised StopIteration.") from error
    wanted = f"step {step}: the reward function must return one number for each of the {count} "
    try:
        rewards = torch.as_tensor(got, dtype=torch.float64, device="cpu").detach()
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise ValueError(f"{wanted}completions; it returned {got!r:.80} ({error}).") from error
    if rewards.shape != (count,):
        raise ValueError(f"{wanted}completions; it returned the shape {tuple(rewards.shape)}.")
    for row in (~rewards.isfinite()).nonzero()[:1, 0].tolist():
        raise ValueError(
            f"{wanted}completions, all finite; it returned {float(rewards[row])} for completion "
            f"{row}: prompt {prompts[row]!r:.60}, completion {completions[row]!r:.120}."
        )
    return rewards


contract.hold(globals())
