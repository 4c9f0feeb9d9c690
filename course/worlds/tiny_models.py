"""Networks small enough to be policies of the worlds; each builder takes a seed."""

from typing import Any

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from torch import Tensor, nn
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from course.worlds.word_world import TokenWorld
from helpers import contract, models
from helpers.models import LanguageModel


class _WordTransformer(GPT2LMHeadModel):
    """GPT-2 that reads words and prompts but writes only words: its head has A logits."""

    def forward(  # the arguments by name, so that `models.forward` finds `position_ids`
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Any = None,
        logits_to_keep: int = 0,
        **kwargs: Any,
    ) -> Any:
        output = super().forward(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            logits_to_keep=logits_to_keep,
            **kwargs,
        )
        num_actions: Any = self.config.num_actions
        output.logits = output.logits[..., :num_actions]
        return output


def word_transformer(
    world: TokenWorld,
    *,
    seed: int,
    width: int = 32,
    layers: int = 2,
    heads: int = 2,
    std: float = 0.2,
    dtype: torch.dtype = torch.float64,
) -> PreTrainedModel:
    """A tiny GPT-2 for a token world, with random weights.

    Args:
        world: its words are the actions; its prompts can be read, not written.
        seed: ≥ 0, of the weights. The global random state is left as it was.
        width: d_model ≥ 1, a multiple of the heads.
        layers: ≥ 1, number of blocks.
        heads: ≥ 1, attention heads a block.
        std: ≥ 0, of the initial weights; GPT-2's 0.02 would make every conditional nearly uniform.
        dtype: a floating dtype: float64 for exact answers, float32 to be like the large models.
    Returns:
        The model in eval mode, with logits of width A = world.num_actions.
    """
    config = _gpt2_config(
        world.vocab_size, 2 * world.max_length, width, layers, heads, initializer_range=std
    )
    config.num_actions = world.num_actions
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = _WordTransformer(config)
        nn.Module.to(model, dtype)
        return model.eval()


def word_language_model(world: TokenWorld, model: PreTrainedModel) -> LanguageModel:
    """A token world's transformer with a tokenizer, for everything that takes a language model.

    Args:
        world: its words and prompts are the vocabulary. The word that ends a completion is a word
            like any other: it stays in the text, because rewards look for it.
        model: of `word_transformer`.
    Returns:
        The same model, in eval mode.
    """
    vocabulary = {word: number for number, word in enumerate((*world.words, *world.prompts))}
    words = Tokenizer(WordLevel(vocabulary))
    words.pre_tokenizer = WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, clean_up_tokenization_spaces=False, model_input_names=["input_ids"]
    )
    return LanguageModel(model.eval(), tokenizer, world.eos_ids, models.context_length(model))


def new_reviews_model(vocab_size: int, *, seed: int) -> PreTrainedModel:
    """The architecture of the shipped model, untrained: GPT-2 with 0.1 M parameters.

    Args:
        vocab_size: ≥ 1, words and special tokens.
        seed: ≥ 0, of the weights. The global random state is left as it was.
    """
    # GPT-2's own 0.02 suits a width of 768; at 64 it costs ten times the KL after equal steps.
    config = _gpt2_config(vocab_size, 96, 64, 2, 4, initializer_range=0.08)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return GPT2LMHeadModel(config)


def _gpt2_config(
    vocab_size: int, positions: int, width: int, layers: int, heads: int, **kwargs: Any
) -> GPT2Config:
    """Without dropout, and with the activation that CPUs compute in one kernel."""
    return GPT2Config(
        vocab_size=vocab_size,
        n_positions=positions,
        n_embd=width,
        n_layer=layers,
        n_head=heads,
        activation_function="gelu_pytorch_tanh",
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=None,
        eos_token_id=None,
        **kwargs,
    )


contract.hold(globals())
