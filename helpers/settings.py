"""Settings that cannot work are refused before a run begins, in words."""

import math
from collections.abc import Sequence
from typing import Any

import torch

from helpers import baselines, rollout
from helpers.models import LanguageModel

BASELINES = (
    "none", "constant", "running mean", *baselines.GROUP_COMPARISONS, "learned V(s)",
)  # fmt: skip
LEAST = {
    "steps": 0, "prompts_per_step": 1, "group_size": 1, "max_new_tokens": 1,
    "checkpoint_every": 1, "tokens_per_micro_batch": 1, "seed": 0,
}  # fmt: skip


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
        config: a `train.Config`.
        lm: the policy.
        prompts: of a run.
        reward: must be callable.
        ref_policy: π_ref, or None.
        processes: that the prompts of a step are divided between.
    Raises:
        ValueError: the message names the setting, what it is, and what it could be.
    """
    _check_numbers(config)
    if config.baseline not in BASELINES:
        raise ValueError(f"no baseline {config.baseline!r}; there are {list(BASELINES)}.")
    baselines.check(config.baseline, config.group_size)
    if config.prompts_per_step % processes:
        raise ValueError(
            f"prompts_per_step ({config.prompts_per_step}) must be a multiple of the number of "
            f"processes ({processes}): groups stay whole."
        )
    if isinstance(prompts, str) or not len(prompts) or not all(isinstance(p, str) for p in prompts):
        raise ValueError(f"prompts must be a list of at least one string, not {prompts!r:.60}.")
    longest = lm.encode(list(prompts))[0].shape[1]  # refuses prompts that cannot be read
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


def _check_numbers(config: Any) -> None:
    for name, least in LEAST.items():
        value = getattr(config, name)
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise ValueError(f"{name} must be a whole number of at least {least}, not {value!r}.")
    finite, above = math.isfinite, "a number above 0"
    for name, wanted, fits in (
        ("temperature", above, lambda x: x > 0 and finite(x)),
        ("lr", above, lambda x: x > 0 and finite(x)),
        ("max_grad_norm", f"{above}, or math.inf", lambda x: x > 0),
        ("constant", "a finite number", finite),
        ("kl_coef", "a finite number, at least 0", lambda x: x >= 0 and finite(x)),
        ("gae_lambda", "a number from 0 to 1", lambda x: 0 <= x <= 1),
    ):
        value = getattr(config, name)
        if isinstance(value, bool) or not isinstance(value, int | float) or not fits(value):
            raise ValueError(f"{name} must be {wanted}, not {value!r}.")


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
    widths = [each.model.config.vocab_size for each in (lm, ref_policy)]
    if widths[0] != widths[1]:
        raise ValueError(
            f"the policy has {widths[0]} logits and ref_policy {widths[1]}: a KL needs one set of "
            "tokens. Take a reference of the same family and size of vocabulary."
        )
