"""Every causal architecture of `transformers`, tiny and with random weights, put through the loop.

    python -m benchmarks.architectures [--out benchmarks/results/architectures.md] [kind …]

For each: are texts scored as they were sampled, alone and unpadded as in a batch; is the gradient
with every speed-up that without; does a run that was stopped go on bit for bit? The answer is one
of three: exact; exact, but read without its cache or without padding, which is slower; refused,
with the reason in words.
"""

import argparse
import copy
import dataclasses
import json
import re
import signal
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from torch import Tensor
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from helpers import models, probe, rollout, runlog, settings, train

VOCABULARY = 300  # 256 bytes, and room
PROMPTS = ["the ship", "a storm rose over", "she"]
LIKE_NATS, LIKE_GRADIENT = 1e-3, 1e-4  # rounding in float32: of log-probabilities, relative

MOST_PARAMETERS, MOST_SECONDS = 6_000_000, 90
# What makes a config small, by the name of the field, for every config that has it.
SMALL: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "vocab_size_per_layer_input": VOCABULARY,
    "hidden_size_per_layer_input": 8,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": None,
    "hidden_size": 32,
    "d_model": 32,
    "n_embd": 32,
    "n_embed": 32,
    "dim": 32,
    "embedding_size": 32,
    "word_embed_proj_dim": 32,
    "intermediate_size": 48,
    "ffn_dim": 48,
    "n_inner": 48,
    "decoder_ffn_dim": 48,
    "encoder_ffn_dim": 48,
    "moe_intermediate_size": 24,
    "shared_expert_intermediate_size": 24,
    "num_hidden_layers": 2,
    "n_layer": 2,
    "n_layers": 2,
    "decoder_layers": 2,
    "encoder_layers": 2,
    "num_attention_heads": 4,
    "n_head": 4,
    "n_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "rotary_dim": 4,
    "q_lora_rank": 16,
    "max_position_embeddings": 64,
    "n_positions": 64,
    "max_seq_len": 64,
    "num_local_experts": 4,
    "num_experts": 4,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "initializer_range": 0.3,
    "init_std": 0.3,
    "sliding_window": 6,
    "attention_dropout": 0.0,
    "hidden_dropout": 0.0,
    "dropout": 0.0,
}
# What single kinds need besides, so that their sizes fit together.
MAMBA = {"mamba_n_heads": 4, "mamba_d_head": 16, "mamba_d_state": 8, "mamba_n_groups": 1}
OWN: dict[str, dict[str, Any]] = {
    "bamba": MAMBA | {"attn_layer_indices": [1]},
    "dots1": {"n_shared_experts": 1, "first_k_dense_replace": 1},
    "falcon": {"num_kv_heads": 4, "ffn_hidden_size": 48},
    "falcon_h1": MAMBA | {"mamba_d_ssm": 64, "mlp_expansion_factor": 2},
    "falcon_mamba": {"state_size": 8, "intermediate_size": 64, "time_step_rank": 4},
    "gpt_neo": {"num_layers": 2, "attention_types": [[["global", "local"], 1]], "num_heads": 4},
    "granitemoehybrid": MAMBA | {"layer_types": ["mamba", "attention"]},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1, "mamba_dt_rank": 4},
    "lfm2": {"layer_types": ["conv", "full_attention"]},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"], "num_dense_layers": 1},
    "mamba": {"state_size": 8, "intermediate_size": 64, "time_step_rank": 4},
    "mamba2": {"num_heads": 4, "head_dim": 16, "state_size": 8, "n_groups": 1, "chunk_size": 8},
    "modernbert-decoder": {"pad_token_id": 2, "global_attn_every_n_layers": 2},
    "nemotron_h": {
        "layers_block_type": ["linear_attention", "full_attention"],
        "mamba_num_heads": 4,
        "mamba_head_dim": 16,
        "ssm_state_size": 8,
        "n_groups": 1,
        "chunk_size": 8,
    },
    "recurrent_gemma": {"lru_width": 32, "attention_window_size": 6, "num_hidden_layers": 3},
    "roc_bert": {"pronunciation_vocab_size": 30, "shape_vocab_size": 30},
    "gemma4_text": {"layer_types": ["sliding_attention", "full_attention"]},
    "reformer": {"is_decoder": True, "axial_pos_shape": (8, 8), "axial_pos_embds_dim": (16, 16)},
    "zamba": {"layer_types": ["mamba", "hybrid"], "mamba_dt_rank": 4},
    "zamba2": {"layers_block_type": ["linear_attention", "hybrid"], "mamba_headdim": 16},
    "gemma4_assistant": {"hidden_size_per_layer_input": 0},
    "zaya": {"num_experts_per_tok": 1},
}
# Settings inside others that are made small in the same way.
NESTED = ("text_config", "vision_config", "audio_config")
# Attention with low-rank keys takes its head's width from these.
LOW_RANK = {"qk_rope_head_dim": 4, "qk_nope_head_dim": 8, "v_head_dim": 8, "kv_lora_rank": 16}


@dataclass(frozen=True)
class Result:
    """What one architecture does."""

    kind: str
    verdict: str  # "exact", "exact, slower", "refused", or "WRONG"
    detail: str  # why slower, why refused, what is wrong
    mismatch: float = float("nan")  # nats, sampled against scored
    alone: float = float("nan")  # nats, in a padded batch against alone
    gradient: float = float("nan")  # relative, with all speed-ups against none
    resumed: str = ""  # "bit for bit", or what happened


def tokenizer() -> transformers.PreTrainedTokenizerFast:
    """Bytes, <s> as 0 and </s> as 1."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = Tokenizer(BPE({t: i for i, t in enumerate(["<s>", "</s>", *alphabet])}, []))
    words.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    words.decoder = decoders.ByteLevel()
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=words, bos_token="<s>", eos_token="</s>"
    )


def tiny_model(kind: str, *, seed: int = 0) -> Any:
    """A model of this kind with random weights.

    Args:
        kind: its `model_type`.
        seed: of the weights.
    """
    config = small_config(transformers.CONFIG_MAPPING[kind], OWN.get(kind, {}))
    with torch.device("meta"):  # nothing is allocated
        shape = transformers.AutoModelForCausalLM.from_config(copy.deepcopy(config))
    size = sum(p.numel() for p in shape.parameters())
    if size > MOST_PARAMETERS:
        raise RuntimeError(f"{size / 1e6:.0f} million parameters: OWN has to make it smaller")
    torch.manual_seed(seed)
    return transformers.AutoModelForCausalLM.from_config(config).float().eval()


def _has(config: Any, name: str) -> bool:
    """Whether it has a value for all layers; some configs say another thing for each."""
    try:
        return hasattr(config, name)
    except Exception:
        return False


def small_config(config_class: Any, own: dict[str, Any]) -> Any:
    """A config of few and narrow layers.

    Args:
        config_class: of the library.
        own: what this kind needs besides.
    """
    default = config_class()
    small = {
        name: value
        for name, value in SMALL.items()
        if _has(default, name) and getattr(getattr(config_class, name, None), "fset", True)
    }
    if _has(default, "qk_rope_head_dim"):
        small |= LOW_RANK
        small.pop("head_dim", None)
    for name in NESTED:
        part = getattr(default, name, None)
        if part is not None and not isinstance(part, dict):
            small[name] = small_config(type(part), {})
    for _ in range(len(small)):
        try:
            return config_class(**small | own)
        except (AttributeError, NotImplementedError, TypeError, ValueError) as error:
            said = str(error)  # a field that can be read, and not be set; or not to this value
            named = [name for name in small if f"'{name}'" in said or f"`{name}`" in said]
            if not named:
                raise
            if small.pop(named[0]) is None:
                small[named[0]] = 2
    raise RuntimeError("no config came of it")


def reward(prompts: list[str], completions: list[str]) -> list[float]:
    """Any reward will do: the letters of a text."""
    return [float(len(text) % 7) for text in completions]


def put_through(kind: str) -> Result:
    """One architecture.

    Args:
        kind: its `model_type`.
    """
    try:
        model = tiny_model(kind)
        with tempfile.TemporaryDirectory() as folder:
            models.save(models.LanguageModel(model, tokenizer(), (1,), None), Path(folder))
            lm = models.load(folder)
            return _measured(kind, lm, Path(folder))
    except ValueError as error:
        return Result(kind, "refused", str(error))


def _measured(kind: str, lm: models.LanguageModel, folder: Path) -> Result:
    way = probe.reading(lm.model)
    chance = torch.Generator().manual_seed(0)
    chosen = rollout.SamplingSettings(lm.eos_ids, 8, group_size=3)
    batch = rollout.sample(lm.model, *lm.encode(PROMPTS), chosen, generator=chance)
    again = rollout.completion_logprobs(lm.model, batch).detach()
    numbers: dict[str, Any] = {
        "mismatch": float((again - batch.old_logprobs).abs().max()),
        "alone": _gap_alone(lm, batch),
        "gradient": _gap_of_gradients(lm, batch),
        "resumed": _resumed(folder),
    }
    right = (
        max(numbers["mismatch"], numbers["alone"]) < LIKE_NATS
        and numbers["gradient"] < LIKE_GRADIENT
        and numbers["resumed"] == "bit for bit"
    )
    slow = [
        what
        for what, does in (
            ("no padding", way.padded),
            ("no cache", way.cached),
            ("prompts not shared", way.shared),
        )
        if not does
    ]
    verdict = ("exact, slower" if slow else "exact") if right else "WRONG"
    return Result(kind, verdict, ", ".join(slow), **numbers)


def _gap_alone(lm: models.LanguageModel, batch: rollout.RolloutBatch) -> float:
    """Nats between each row as it was sampled and the same text read alone, without padding."""
    gaps = []
    for row in range(len(batch.lengths)):
        prompt = batch.prompt_ids[row][batch.prompt_mask[row]]
        text = batch.completion_ids[row, : int(batch.lengths[row])]
        with torch.no_grad():
            logits = lm.model(input_ids=torch.cat([prompt, text])[None], use_cache=False).logits[0]
        scores = logits.log_softmax(-1)[len(prompt) - 1 : -1].gather(-1, text[:, None])[:, 0]
        gaps.append(float((scores - batch.old_logprobs[row, : len(text)]).abs().max()))
    return max(gaps)


def _gap_of_gradients(lm: models.LanguageModel, batch: rollout.RolloutBatch) -> float:
    """Relative distance of the gradients with all speed-ups and with none."""

    def gradient(**speed: Any) -> Tensor:
        config = settings.Config(prompts_per_step=3, group_size=3, max_new_tokens=8, **speed)
        loop = train.Loop(lm, PROMPTS, reward, config)
        loop.credit(batch, torch.arange(9.0) - 4)  # one advantage is 0
        return torch.cat([p.grad.flatten() for p in lm.model.parameters() if p.requires_grad])

    plain = gradient(share_prompts=False, skip_zero_advantages=False, tokens_per_micro_batch=10**6)
    return float((gradient(tokens_per_micro_batch=40) - plain).norm() / plain.norm())


def _resumed(source: Path) -> str:
    """Whether two runs, one of them stopped after a step and begun again, have the same numbers."""
    config = settings.Config(steps=3, prompts_per_step=2, group_size=3, max_new_tokens=6)

    def run(steps: int, folder: str | None = None) -> list[tuple[float, float]]:
        chosen = dataclasses.replace(config, steps=steps)
        lm = models.load(source)
        records = train.train(lm, PROMPTS, reward, chosen, folder=folder)
        return [(record.nll, record.grad_norm) for record in records]

    with tempfile.TemporaryDirectory() as folder:
        try:
            stopped = run(1, folder) + run(3, folder)
        except (OSError, ValueError) as error:
            return f"no: {error!s:.200}"
    return "bit for bit" if stopped == run(3) else "no: other numbers"


def main() -> None:
    """Measure, print a line for each, and write the table if asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kinds", nargs="*", help="model types; all without")
    parser.add_argument("--out", type=Path, help="a Markdown file")
    args = parser.parse_args()
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    warnings.simplefilter("ignore")
    signal.signal(signal.SIGALRM, _too_long)
    found: list[Result] = []
    for kind in args.kinds or sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES):
        signal.alarm(MOST_SECONDS)
        try:
            found.append(put_through(kind))
        except Exception as error:
            found.append(
                Result(
                    kind,
                    "not tried",
                    re.sub(r"/\S*tmp\w*", "…", f"{type(error).__name__}: {error!s:.300}"),
                )
            )
        signal.alarm(0)
        last = found[-1]
        print(
            f"{last.kind:28} {last.verdict:14} {last.mismatch:8.1e} {last.alone:8.1e} "
            f"{last.gradient:8.1e} {last.resumed[:40]:40} {last.detail[:200]}",
            flush=True,
        )
    counts = {v: sum(r.verdict == v for r in found) for v in sorted({r.verdict for r in found})}
    print(counts)
    if args.out:
        args.out.write_text(_table(found, counts))


def _too_long(*_: Any) -> None:
    raise TimeoutError(f"more than {MOST_SECONDS} s: OWN has to make it smaller")


def _table(found: list[Result], counts: dict[str, int]) -> str:
    about = runlog.provenance(command="python -m benchmarks.architectures", settings={})
    lines = [
        "# Architectures",
        "",
        (__doc__ or "").split("\n\n")[2].replace("\n", " "),
        "",
        ", ".join(f"{count} {verdict}" for verdict, count in counts.items()) + ".",
        "",
        "| `model_type` | | sampled − scored, nats | in a batch − alone, nats | gradient, relative "
        "| resumed | why |",
        "|---|---|---|---|---|---|---|",
    ]
    for each in found:
        numbers = ["" if x != x else f"{x:.0e}" for x in (each.mismatch, each.alone, each.gradient)]
        why = each.detail.replace("|", "\\|").replace("\n", " ")
        cells = [f"`{each.kind}`", each.verdict, *numbers, each.resumed, why]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", f"<!-- {json.dumps(about)} -->", ""])


if __name__ == "__main__":
    main()
