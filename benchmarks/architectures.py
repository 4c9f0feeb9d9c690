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

MOST_PARAMETERS = 5_000_000
# What makes a config small, by the name of the field, for every config that has it.
SMALL: dict[str, Any] = {
    **dict.fromkeys(["vocab_size"], VOCABULARY),
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 2,  # where there is one
    **dict.fromkeys(
        ["hidden_size", "d_model", "n_embd", "n_embed", "dim", "embedding_size", "lru_width"], 32
    ),
    "word_embed_proj_dim": 32,
    **dict.fromkeys(["intermediate_size", "ffn_dim", "n_inner", "d_inner", "ffn_hidden_size"], 48),
    **dict.fromkeys(["decoder_ffn_dim", "encoder_ffn_dim", "feed_forward_size"], 48),
    **dict.fromkeys(["moe_intermediate_size", "shared_expert_intermediate_size"], 24),
    **dict.fromkeys(["num_hidden_layers", "n_layer", "n_layers", "num_layers", "depth"], 2),
    **dict.fromkeys(["decoder_layers", "encoder_layers"], 2),
    **dict.fromkeys(["num_decoder_layers", "num_encoder_layers"], 2),
    **dict.fromkeys(["num_attention_heads", "n_head", "n_heads", "num_heads"], 4),
    **dict.fromkeys(["decoder_attention_heads", "encoder_attention_heads"], 4),
    **dict.fromkeys(["num_decoder_attention_heads", "num_encoder_attention_heads"], 4),
    **dict.fromkeys(["num_key_value_heads", "kv_n_heads"], 2),
    **dict.fromkeys(["head_dim", "d_head", "attention_head_size"], 8),
    "rotary_dim": 4,
    "q_lora_rank": 16,
    "index_n_heads": 16,  # so many that no two tokens get the same score, which is 0
    "index_head_dim": 8,
    "index_topk": 4,
    **dict.fromkeys(["max_position_embeddings", "n_positions", "max_seq_len"], 64),
    **dict.fromkeys(["num_local_experts", "num_experts", "n_routed_experts"], 4),
    "moe_num_experts": 4,
    **dict.fromkeys(["num_experts_per_tok", "moe_top_k", "moe_k"], 2),
    **dict.fromkeys(["n_group", "topk_group", "num_expert_group"], 1),
    **dict.fromkeys(["initializer_range", "init_std"], 0.3),
    "sliding_window": 6,
    **dict.fromkeys(["attention_dropout", "hidden_dropout", "dropout"], 0.0),
    # State-space models and linear attention: heads · width of a head = 2 · hidden_size.
    **dict.fromkeys(["state_size", "mamba_d_state", "ssm_state_size", "mamba_dt_rank"], 8),
    **dict.fromkeys(["mamba_n_heads", "mamba_num_heads"], 4),
    **dict.fromkeys(["mamba_d_head", "mamba_head_dim", "mamba_headdim"], 16),
    **dict.fromkeys(["chunk_size", "mamba_chunk_size"], 8),
    "n_groups": 2,
    "linear_num_heads": 4,
    "linear_head_dim": 8,
    **dict.fromkeys(["linear_num_key_heads"], 2),
    **dict.fromkeys(["linear_num_value_heads"], 4),
    **dict.fromkeys(["linear_key_head_dim", "linear_value_head_dim"], 8),
}
# What single kinds need besides, so that their sizes fit together; of configs inside, likewise.
ONE_HEAD = {"head_dim": 8, "num_key_value_heads": 2}
GEMMA4: dict[str, Any] = {
    "hidden_size_per_layer_input": 8,
    "vocab_size_per_layer_input": VOCABULARY,
    "per_layer_config": {1: ONE_HEAD},
}
DOTS3: dict[str, Any] = {
    **{"num_key_value_heads": 4, "head_dim": 16},
    **{"shared_experts_intermediate_size": 24, "per_layer_config": {2: {}}},
}
QWEN4: dict[str, Any] = {
    **{"indexer_n_heads": 2, "indexer_kv_heads": 1, "indexer_head_dim": 8},
    **{"indexer_budget": 4, "indexer_compress_ratio": 2},
}
BLT: dict[str, Any] = {"hidden_size_global": 32, "num_key_value_heads": 4}
OWN: dict[str, dict[str, Any]] = {
    "bamba": {"attn_layer_indices": [1]},
    "blt": {
        "encoder_hash_byte_group_vocab": 50,
        "patcher_config": {"num_key_value_heads": 4},
        "encoder_config": BLT,
        "decoder_config": BLT,
        "global_config": {"num_key_value_heads": 4},
    },
    "cohere_compass_text": {
        "rope_parameters": {"full_attention": {"rope_type": "default", "rope_theta": 1e4}}
    },
    "dbrx": {"attn_config": {"rope_theta": 1e4, "clip_qkv": 8.0}},
    "dots1": {"n_shared_experts": 1},
    "dots3_note": {
        "text_config": DOTS3,
        "vision_config": {"adapter_in_dim": 32, "adapter_out_dim": 32},
        "audio_config": {"adapter_input_size": 32, "adapter_out_dim": 32},
    },
    "dots3_note_text": DOTS3,
    "falcon_h1": {"mamba_d_ssm": 64},
    "gemma3n_text": {
        **{"layer_types": ["sliding_attention", "full_attention"] * 2, "num_hidden_layers": 4},
        **{"num_kv_shared_layers": 2, "activation_sparsity_pattern": [0.5, 0.0, 0.0, 0.0]},
        **{"hidden_size_per_layer_input": 8, "vocab_size_per_layer_input": VOCABULARY},
    },
    "gemma4": {"text_config": GEMMA4},
    "gemma4_text": GEMMA4,
    "gpt_neo": {"attention_types": [[["global", "local"], 1]], "window_size": 6},
    "lfm2": {"layer_types": ["conv", "full_attention"]},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"], "num_dense_layers": 1},
    "longcat_flash": {"zero_expert_num": 2, "expert_ffn_hidden_size": 24, "moe_topk": 2},
    "mamba2": {"num_heads": 4, "head_dim": 16},
    "phi4_multimodal": {"audio_config": {"nemo_conv_channels": 32, "num_blocks": 2}},
    "qwen4_exp": {"text_config": QWEN4},
    "qwen4_exp_text": QWEN4,
    "reformer": {"is_decoder": True, "axial_pos_embds": False, "num_attention_heads": 4},
    "roc_bert": {"shape_vocab_size": 30, "pronunciation_vocab_size": 30},
    "xlm": {"emb_dim": 32},
    "zamba": {"layers_block_type": ["linear_attention", "hybrid"] * 2, "num_hidden_layers": 4},
    "zaya": {"num_experts_per_tok": 1},
}
UNTRIED = {  # in the library's list, but nothing that writes texts after a prompt's tokens
    "gemma3n": "its eyes need the package timm; gemma3n_text is the part that writes",
    "gemma4_assistant": "drafts from the keys and values of another model, not from a text",
    "gemma4_unified_assistant": "drafts from the keys and values of another model, not from a text",
    "musicgen": "writes codes of sound, several at a time, for a text that another model reads",
    "musicgen_melody": "writes codes of sound, several at a time, for a text and a melody",
}
# Readers of whole texts that one setting makes writers; without it they are refused.
WRITERS = [
    *(f"{kind} is_decoder" for kind in ["bert", "bert-generation", "big_bird", "camembert"]),
    *(f"{kind} is_decoder" for kind in ["data2vec-text", "electra", "ernie", "megatron-bert"]),
    *(f"{kind} is_decoder" for kind in ["rembert", "roberta", "roberta-prelayernorm", "roc_bert"]),
    *(f"{kind} is_decoder" for kind in ["roformer", "xlm-roberta", "xlm-roberta-xl"]),
    "xlm causal",
]
# Attention with low-rank keys takes its head's width from these.
LOW_RANK = {
    "num_key_value_heads": 4,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 8,
    "kv_lora_rank": 16,
}


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
        kind: its `model_type`, and behind a space a setting that is to be true.
        seed: of the weights.
    """
    kind, _, setting = kind.partition(" ")
    own = OWN.get(kind, {}) | ({setting: True} if setting else {})
    config = small_config(transformers.CONFIG_MAPPING[kind], own)
    with torch.device("meta"):  # nothing is allocated
        shape = transformers.AutoModelForCausalLM.from_config(copy.deepcopy(config))
    size = sum(p.numel() for p in shape.parameters())
    if size > MOST_PARAMETERS:
        raise RuntimeError(f"{size / 1e6:.0f} million parameters: OWN has to make it smaller")
    torch.manual_seed(seed)
    return transformers.AutoModelForCausalLM.from_config(config).float().eval()


def small_config(config_class: Any, own: dict[str, Any]) -> Any:
    """A config of this class with few of everything, and one layer of each kind.

    Args:
        config_class: of `transformers`.
        own: fields that are to have these values; of configs inside it, as a dictionary.
    """
    default = config_class()
    fields = {field.name: str(field.type) for field in dataclasses.fields(config_class)}
    small = {name: value for name, value in SMALL.items() if name in fields}
    if "qk_rope_head_dim" in fields:
        small |= {name: value for name, value in LOW_RANK.items() if name in fields}
    if getattr(default, "pad_token_id", None) is None:
        small.pop("pad_token_id", None)
    small |= _layers_of_each_kind(vars(default), fields, small)
    inner = {k: v for k, v in vars(default).items() if isinstance(v, transformers.PreTrainedConfig)}
    small |= {name: small_config(type(value), own.get(name, {})) for name, value in inner.items()}
    return config_class(**small | {k: v for k, v in own.items() if k not in inner})


def _layers_of_each_kind(values: dict[str, Any], fields: Any, small: Any) -> dict[str, Any]:
    """The lists that say what each layer is, cut to one layer of each kind; at least two."""
    count = values.get("num_hidden_layers")
    lists = {
        name: value
        for name, value in values.items()
        if name in fields
        and isinstance(value, list)
        and len(value) == count
        and all(isinstance(each, str) for each in value)
    }
    kinds = list(dict.fromkeys(zip(*lists.values(), strict=True)))
    if not kinds:
        return {}
    kinds *= 1 + (len(kinds) == 1)
    found = {name: [kind[i] for kind in kinds] for i, name in enumerate(lists)}
    return found | {"num_hidden_layers": len(kinds)}


def reward(prompts: list[str], completions: list[str]) -> list[float]:
    """Any reward will do: the letters of a text."""
    return [float(len(text) % 7) for text in completions]


def put_through(kind: str) -> Result:
    """One architecture.

    Args:
        kind: its `model_type`.
    """
    if kind in UNTRIED:
        return Result(kind, "not tried", UNTRIED[kind])
    try:
        model = tiny_model(kind)
        with tempfile.TemporaryDirectory() as folder:
            models.save(models.LanguageModel(model, tokenizer(), (1,), None), Path(folder))
            lm = models.load(folder)
            return _measured(kind, lm, Path(folder))
    except (ValueError, OSError) as error:
        return Result(kind, "refused", re.sub(r"'/\S+'", "of what was saved", str(error)))


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
    found: list[Result] = []
    for kind in args.kinds or sorted([*MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, *WRITERS]):
        try:
            found.append(put_through(kind))
        except Exception as error:
            found.append(Result(kind, "not tried", f"{type(error).__name__}: {error!s:.300}"))
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
