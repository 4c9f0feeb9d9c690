"""What the loop is measured against: TRL's two trainers, and a loop as one writes it first."""

from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, GPT2LMHeadModel, PreTrainedTokenizerFast

from benchmarks import workloads
from benchmarks.workloads import EOS, GROUP_SIZE, LR, MAX_GRAD_NORM, PROMPTS, Workload
from helpers import advantages, logprobs, losses
from helpers.settings import Reward

AS_OURS = {  # settings of TRL with which its step does what ours does
    "per_device_train_batch_size": PROMPTS * GROUP_SIZE,
    "num_generations": GROUP_SIZE,
    "steps_per_generation": 1,
    "num_iterations": 1,
    "temperature": 1.0,
    "beta": 0.0,
    "learning_rate": LR,
    "lr_scheduler_type": "constant",
    "max_grad_norm": MAX_GRAD_NORM,
    "weight_decay": 0.0,
    "optim": "adamw_torch_fused",
    "use_cpu": True,
    "bf16": False,
    "gradient_checkpointing": False,
    "logging_steps": 10**6,
    "save_strategy": "no",
    "report_to": [],
    "disable_tqdm": True,
}


class PlainLoop:
    """REINFORCE with nothing saved: repeated prompts, rows that stay, one padded pass."""

    def __init__(self, work: Workload, asked: list[str], pay: Reward, *, activation: str) -> None:
        """Load the starting weights.

        Args:
            work: the workload.
            asked: prompts, taken in turn.
            pay: the reward.
            activation: of the multilayer perceptrons.
        """
        self.work, self.asked, self.pay, self.done = work, asked, pay, 0
        self.model: GPT2LMHeadModel = workloads.starting_model(work, activation=activation)
        self.tokenizer: PreTrainedTokenizerFast = workloads.tokenizer()
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=LR, weight_decay=0.0, fused=True
        )
        self.generator = torch.Generator().manual_seed(0)

    def step(self) -> int:
        """One update.

        Returns:
            Tokens written.
        """
        start = self.done * PROMPTS % (len(self.asked) - PROMPTS + 1)
        texts = [text for text in self.asked[start : start + PROMPTS] for _ in range(GROUP_SIZE)]
        prompt_ids = torch.tensor(self.tokenizer(texts).input_ids)  # (B, P): all equally long
        completion_ids = self._write(prompt_ids)
        lengths, _ = logprobs.completion_lengths(completion_ids, (EOS,))
        rows = zip(completion_ids.tolist(), lengths.tolist(), strict=True)
        written = [self.tokenizer.decode(row[:n], skip_special_tokens=True) for row, n in rows]
        paid = torch.tensor(self.pay(texts, written)).view(-1, GROUP_SIZE)
        judged = advantages.leave_one_out(paid).view(-1)
        mask = logprobs.mask_from_lengths(lengths, completion_ids.shape[1])
        logits = self.model(torch.cat([prompt_ids, completion_ids], dim=1), use_cache=False).logits
        aligned = logits[:, prompt_ids.shape[1] - 1 : -1].log_softmax(-1)  # (B, T, V)
        scores = aligned.gather(-1, completion_ids.unsqueeze(-1)).squeeze(-1)
        losses.reinforce_loss(scores, judged, mask).backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), MAX_GRAD_NORM)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.done += 1
        return int(lengths.sum())

    @torch.no_grad()
    def _write(self, prompt_ids: Tensor) -> Tensor:
        """(B, T) token ids, whatever follows EOS included, until all rows have ended."""
        cache, fed, written = DynamicCache(config=self.model.config), prompt_ids, []
        ended = torch.zeros(len(prompt_ids), 1, dtype=torch.bool)
        for _ in range(self.work.max_new_tokens):
            logits = self.model(fed, past_key_values=cache, use_cache=True).logits[:, -1]
            fed = torch.multinomial(logits.softmax(-1), 1, generator=self.generator)
            written.append(fed)
            ended |= fed == EOS
            if ended.all():
                break
        return torch.cat(written, dim=1)


def trl_classes(name: str) -> tuple[Any, Any]:
    """Configuration and trainer of TRL; importing them takes seconds.

    Args:
        name: "RLOO" or "GRPO".
    """
    import trl

    return getattr(trl, f"{name}Config"), getattr(trl, f"{name}Trainer")


def trl_trainer(
    name: str,
    work: Workload,
    asked: list[str],
    pay: Reward,
    *,
    activation: str,
    steps: int,
    folder: str,
    seen: dict[str, Any] | None = None,
    **settings: Any,
) -> Any:
    """TRL's trainer with what our loop does too: one update a batch, no KL term, no schedule.

    Args:
        name: "RLOO" or "GRPO".
        work: the workload.
        asked: prompts, drawn without replacement.
        pay: the reward.
        activation: of the multilayer perceptrons.
        steps: updates.
        folder: where it may write.
        seen: gets the tensors of each batch, under "batch", and the first one's gradient, not
            clipped, under "gradient".
        settings: of TRL's configuration, instead of `AS_OURS`.
    """
    from datasets import Dataset
    from transformers import PrinterCallback

    config_class, trainer_class = trl_classes(name)

    def pay_trl(prompts: list[str], completions: list[str], **_: Any) -> Any:
        return pay(prompts, completions)

    trainer = watched(trainer_class, seen)(
        model=workloads.starting_model(work, activation=activation),
        reward_funcs=pay_trl,
        args=config_class(
            output_dir=folder,
            max_steps=steps,
            max_completion_length=work.max_new_tokens,
            **AS_OURS | settings,
        ),
        train_dataset=Dataset.from_dict({"prompt": asked}),
        processing_class=workloads.tokenizer(),
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def watched(trainer_class: Any, seen: dict[str, Any] | None) -> Any:
    """The trainer's class; its objects put into `seen` what `trl_trainer` says."""

    class Watched(trainer_class):
        def _compute_loss(self, model: Any, inputs: dict) -> Tensor:
            if seen is not None:
                seen["batch"] = inputs
            return super()._compute_loss(model, inputs)

        def training_step(self, model: Any, *args: Any, **kwargs: Any) -> Tensor:
            loss = super().training_step(model, *args, **kwargs)
            if seen is not None and "gradient" not in seen:  # before it is clipped
                seen["gradient"] = [p.grad.clone() for p in model.parameters()]
            return loss

    return Watched
