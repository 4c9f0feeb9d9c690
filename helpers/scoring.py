"""Scoring a batch piece by piece, with prompts read once: same gradient, less work and memory.

Two tricks, both only about speed. Completions of similar length are scored together, so that
little padding is computed. And a prompt is read once, not once a completion and
micro-batch: its keys and values are cut loose from their graph, every micro-batch adds its
gradient to them, and at the end one backward pass takes the sums through the prompts.

A frozen reference policy is scored here too. J = E[R] − β KL(π ‖ π_ref) is the expectation of one
reward, R − β Σ_t log(π/π_ref), under the policy itself. Its gradient needs no other estimator: the
logarithms are noted down as numbers, like R, because the gradient that they carry themselves is
zero on average (chapter 05, EGLP).
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from helpers import contract, cpu, decoding, kl, logprobs, models, probe, rollout
from helpers.rollout import RolloutBatch

MOST_LOGITS = 2**23  # of a micro-batch on a CPU: 32 MiB


def split(lengths: Tensor, *, budget: int, prompt_tokens: int = 0) -> list[Tensor]:
    """Rows sorted by length and cut where a padded micro-batch would exceed the budget.

    Args:
        lengths: (n,) integer ≥ 1, tokens of each completion.
        budget: most tokens ≥ 1, padding counted, in a micro-batch; one row may exceed it alone.
        prompt_tokens: ≥ 0, read with every row; 0 where prompts are shared.
    Returns:
        Index tensors into `lengths`, every row once, shorter rows first.
    Raises:
        ValueError: the budget is below 1.
    """
    order = torch.argsort(lengths, stable=True).cpu()
    widths = (lengths.cpu()[order] + prompt_tokens).tolist()
    pieces, start = [], 0
    for end, width in enumerate(widths):  # rows[start:end + 1] would be `width` wide
        if end > start and (end + 1 - start) * width > budget:
            pieces.append(order[start:end])
            start = end
    pieces.append(order[start:])
    return [piece.to(lengths.device) for piece in pieces if len(piece)]


def budget_of(model: nn.Module) -> int:
    """Tokens of a micro-batch, padding counted, so that its activations and logits fit.

    On a CPU few are as fast as many, and stay in its caches; a GPU starves on few.

    Args:
        model: a Hugging Face model.
    """
    config = models.text_config(model)
    vocabulary = getattr(config, "vocab_size", None) or 1
    device: Any = model.device
    if device.type != "cuda":
        return min(1024, max(64, MOST_LOGITS // vocabulary))
    width, layers = (getattr(config, n, 1024) for n in ("hidden_size", "num_hidden_layers"))
    memory = torch.cuda.get_device_properties(device).total_memory // 4
    return min(2**16, max(1024, memory // (20 * vocabulary + 100 * width * layers)))


def select(batch: RolloutBatch, rows: Tensor) -> RolloutBatch:
    """Some rows of a batch, cut to the longest of them.

    Args:
        batch: sampled.
        rows: (n,) int64 in [0, B), not empty.
    """
    width = int(batch.lengths[rows].max())
    picked = {name: tensor[rows] for name, tensor in vars(batch).items()}
    for name in ("completion_ids", "completion_mask", "old_logprobs", "entropies"):
        picked[name] = picked[name][:, :width]
    return RolloutBatch(**picked)


class SharedPrompts:
    """Prompts read once, from which many micro-batches of completions are scored.

    Use `logits` and backward on each micro-batch, in any order, then `backward` once.
    """

    def __init__(
        self, model: nn.Module, batch: RolloutBatch, rows: Tensor, *, group_size: int
    ) -> None:
        """Read the prompts; the graph is kept if gradients are on.

        Args:
            model: the policy that scores.
            batch: rows of one prompt are neighbours, `group_size` each.
            rows: (n,) int64 in [0, B), not empty: which will be scored; other prompts are not read.
            group_size: completions a prompt, ≥ 1.
        Raises:
            ValueError: the model's cache holds more than keys and values.
        """
        self.model, self.group_size = model, group_size
        self.groups = torch.unique(rows // group_size)  # (P',) sorted
        asked = self.groups * group_size  # a row of each group
        self.mask = batch.prompt_mask[asked]  # (P', P)
        cache = decoding.new_cache(model)
        output = models.forward(
            model,
            batch.prompt_ids[asked],
            self.mask,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        self._read = [output.logits[:, -1], *decoding.cached_tensors(cache)]
        self._loose = [t.detach().requires_grad_(t.requires_grad) for t in self._read]

    def logits(self, piece: RolloutBatch, rows: Tensor) -> Tensor:
        """Logits that predict each token of some completions.

        Args:
            piece: `select(batch, rows)`.
            rows: (B,) int64 ≥ 0, their rows in the whole batch.
        Returns:
            (n, T, V) float, aligned: entry t predicts token t.
        """
        prompts = torch.searchsorted(self.groups, rows // self.group_size)  # (n,) whose prompt
        first, *tensors = [tensor[prompts] for tensor in self._loose]
        first = first.unsqueeze(1)  # (n, 1, V) the prompt's last position predicts token 0
        if piece.completion_ids.shape[1] == 1:
            return first
        mask = torch.cat([self.mask[prompts], piece.completion_mask[:, :-1]], dim=1)
        output = models.forward(
            self.model,
            piece.completion_ids[:, :-1],
            mask,
            past_key_values=decoding.cache_of(self.model, tensors),
            use_cache=True,
        )
        return torch.cat([first, output.logits], dim=1)

    def backward(self) -> None:
        """Take what all micro-batches added up through the prompts, into the weights."""
        met = [
            (read, loose.grad)
            for read, loose in zip(self._read, self._loose, strict=True)
            if loose.grad is not None
        ]
        if met:  # frozen layers meet nothing
            torch.autograd.backward([read for read, _ in met], [grad for _, grad in met])


def score(
    model: nn.Module,
    batch: RolloutBatch,
    rows: Tensor,
    *,
    group_size: int,
    budget: int,
    temperature: float = 1.0,
    share_prompts: bool = True,
) -> Iterator[tuple[Tensor, RolloutBatch, Tensor, Tensor]]:
    """Score some rows of a batch, one micro-batch at a time.

    With gradients on, call backward on each micro-batch before asking for the next; after the
    last one, what they have left at the shared prompts is taken into the weights.

    Args:
        model: the policy that scores.
        batch: sampled; rows of one prompt are neighbours.
        rows: (n,) int64 in [0, B): which rows.
        group_size: completions a prompt, ≥ 1.
        budget: most tokens ≥ 1 in a micro-batch, see `split`.
        temperature: > 0, that of sampling.
        share_prompts: read each prompt once, where the model's cache allows it.
    Yields:
        rows (m,) of a micro-batch, `select(batch, rows)`, the logits (m, T, V) of the scoring
        distribution, and the log-probabilities (m, T) of its tokens, nats, 0 outside the mask.
    """
    if not len(rows):
        return
    shared = None
    if share_prompts and can_share(model, batch.prompt_mask):
        shared = SharedPrompts(model, batch, rows, group_size=group_size)
    padding = 0 if shared else batch.prompt_ids.shape[1]
    for some in split(batch.lengths[rows], budget=budget, prompt_tokens=padding):
        part = select(batch, rows[some])
        if shared:
            logits = shared.logits(part, rows[some])
        else:
            with _recomputing(model):
                logits = rollout.read(model, part)
        logits = logprobs.sampling_logits(rollout.at_least_float32(logits), temperature=temperature)
        scores = logprobs.token_logprobs(logits, part.completion_ids)
        yield rows[some], part, logits, scores.masked_fill(~part.completion_mask, 0.0)
    if shared and torch.is_grad_enabled():
        shared.backward()


def can_share(model: nn.Module, prompt_mask: Tensor) -> bool:
    """Whether prompts can be read once for their group, and no number changes.

    Args:
        model: the policy that scores.
        prompt_mask: (B, P) bool, False for the padding on the left.
    """
    way = probe.reading(model)
    saves_memory = torch.is_grad_enabled() and bool(_checkpointed_layers(model))  # no cache then
    return way.shared and way.together(prompt_mask) and not saves_memory


def _checkpointed_layers(model: nn.Module) -> list[nn.Module]:
    """Layers that `model.gradient_checkpointing_enable()` has told to keep no activations."""
    return [m for m in model.modules() if getattr(m, "gradient_checkpointing", False) is True]


@contextlib.contextmanager
def _recomputing(model: nn.Module) -> Iterator[None]:
    """Let gradient checkpointing work in eval mode; the library wants its layers in training.

    Only the layers themselves are put there, not what is inside them, so that nothing drops out.
    """
    layers = _checkpointed_layers(model) if torch.is_grad_enabled() else []
    for layer in layers:
        rates = {name: x for name, x in vars(layer).items() if "dropout" in name}
        if any(isinstance(rate, float) and rate > 0 for rate in rates.values()):
            raise ValueError(
                f"gradient checkpointing needs training mode, in which {type(layer).__name__} "
                f"drops out by itself ({rates}). Set its rates to 0, or switch checkpointing off."
            )
    before = [layer.training for layer in layers]
    for layer in layers:
        layer.training = True
    try:
        with cpu.products(False) if layers else contextlib.nullcontext():
            yield  # what is computed again must be computed in the same way
    finally:
        for layer, was in zip(layers, before, strict=True):
            layer.training = was


@torch.no_grad()
def against_reference(
    policy: nn.Module,
    ref_policy: nn.Module,
    batch: RolloutBatch,
    *,
    group_size: int,
    temperature: float = 1.0,
    budget: int = 4096,
    share_prompts: bool = True,
) -> tuple[Tensor, Tensor]:
    """What the reference thinks of a batch, and the exact KL in each state that was met.

    Args:
        policy: who wrote the batch.
        ref_policy: π_ref, with the same vocabulary.
        batch: sampled; rows of one prompt are neighbours.
        group_size: completions a prompt, ≥ 1.
        temperature: > 0; both policies are softmax(logits / temperature).
        budget: tokens a micro-batch, ≥ 1.
        share_prompts: read each prompt once.
    Returns:
        ref_logprobs: (B, T) float, nats: log π_ref(x_t | s_t), 0 outside the mask.
        divergences: (B, T) float, nats: KL(π(·|s_t) ‖ π_ref(·|s_t)) ≥ 0, 0 outside the mask.
            Their sum over a completion has the mean KL(π(·|c) ‖ π_ref(·|c)): chapter 01's chain
            rule for log-probabilities, for divergences.
    Source: chapter 07, eq. (7.5).
    """
    rows = torch.arange(len(batch.lengths), device=batch.lengths.device)
    scored = [
        score(
            model,
            batch,
            rows,
            group_size=group_size,
            budget=budget,
            temperature=temperature,
            share_prompts=share_prompts
            and all(can_share(each, batch.prompt_mask) for each in (policy, ref_policy)),
        )
        for model in (policy, ref_policy)
    ]
    ref_logprobs = torch.zeros_like(batch.old_logprobs)
    divergences = torch.zeros_like(ref_logprobs)
    for (rows, part, logits, _), (_, _, ref_logits, scores) in zip(*scored, strict=True):
        between = kl.kl_divergence(logits.log_softmax(-1), ref_logits.log_softmax(-1))
        width = part.completion_ids.shape[1]
        ref_logprobs[rows, :width] = scores
        divergences[rows, :width] = between.masked_fill(~part.completion_mask, 0.0)
    return ref_logprobs, divergences


def token_rewards(rewards: Tensor, penalties: Tensor, completion_mask: Tensor) -> Tensor:
    """r_t: the KL penalty of each token, and the reward of the text on its last one.

    Args:
        rewards: (B,) float, reward units.
        penalties: (B, T) float, reward units, 0 outside the mask; subtracted.
        completion_mask: (B, T) bool: no row is empty.
    Returns:
        (B, T) float, reward units.
    """
    last = completion_mask.sum(-1, keepdim=True) - 1  # (B, 1)
    return (-penalties).scatter_add(1, last, rewards.unsqueeze(1))


contract.hold(globals())
