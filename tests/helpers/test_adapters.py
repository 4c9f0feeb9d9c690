"""Adapters of PEFT: LoRA learns, is saved and resumed; words put before a prompt are refused."""

import pytest
import torch

from course.worlds import reviews
from helpers import models, train
from helpers.settings import Config
from tests.helpers import killable_runs

peft = pytest.importorskip("peft")
pytestmark = pytest.mark.filterwarnings(
    "ignore:fan_in_fan_out", "ignore:`is_gradient_checkpointing`"
)


def adapted(**options) -> models.LanguageModel:
    """The reviews model with a LoRA adapter; the weights of the model itself are frozen."""
    lm = models.load(models.REVIEWS_MODEL)
    config = peft.LoraConfig(task_type="CAUSAL_LM", r=4, target_modules=["c_attn"], **options)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = peft.get_peft_model(lm.model, config)
    return models.LanguageModel(model, lm.tokenizer, lm.eos_ids, lm.context_length)


def run(lm, steps, folder=None):
    config = Config(steps=steps, prompts_per_step=2, group_size=4, max_new_tokens=8, lr=1e-2)
    return list(
        train.train(lm, killable_runs.PROMPTS, reviews.sentiment_reward, config, folder=folder)
    )


def test_lora_learns_and_leaves_the_model_itself_alone():
    lm = adapted()
    base = {n: p.detach().clone() for n, p in lm.model.named_parameters() if not p.requires_grad}
    learned = {n: p.detach().clone() for n, p in lm.model.named_parameters() if p.requires_grad}
    records = run(lm, 3)
    assert learned and max(record.mismatch for record in records) < 1e-4
    now = dict(lm.model.named_parameters())
    assert not killable_runs.differ(base, {name: now[name].detach() for name in base})
    moved = killable_runs.differ(learned, {name: now[name].detach() for name in learned})
    assert any("lora_B" in name for name in moved)


def test_lora_goes_on_bit_for_bit_and_is_loaded_as_it_was(tmp_path):
    through, stopped = adapted(), adapted()
    wanted = killable_runs.numbers(run(through, 4))
    found = killable_runs.numbers(run(stopped, 2, tmp_path / "run"))
    again = adapted()
    found += killable_runs.numbers(run(again, 4, tmp_path / "run"))
    assert found == wanted
    assert not killable_runs.differ(killable_runs.weights(again), killable_runs.weights(through))
    loaded = models.load(killable_runs.newest(tmp_path / "run"))
    ids, mask = loaded.encode(["the film"])
    with torch.no_grad():
        logits = [models.forward(one.model, ids, mask).logits for one in (loaded, again)]
    torch.testing.assert_close(logits[0], logits[1])


def test_another_rank_or_another_base_is_another_run(tmp_path):
    run(adapted(), 1, tmp_path / "run")
    other = adapted()
    with torch.no_grad():
        next(p for p in other.model.parameters() if not p.requires_grad).mul_(1.01)
    with pytest.raises(ValueError, match="frozen weights"):
        run(other, 2, tmp_path / "run")


@pytest.mark.parametrize("kind", ["PromptTuningConfig", "PrefixTuningConfig"])
def test_words_that_an_adapter_puts_before_a_prompt_are_refused(kind):
    lm = models.load(models.REVIEWS_MODEL)
    config = getattr(peft, kind)(task_type="CAUSAL_LM", num_virtual_tokens=3)
    model = peft.get_peft_model(lm.model, config)
    with pytest.raises(ValueError, match="virtual tokens"):
        run(models.LanguageModel(model, lm.tokenizer, lm.eos_ids, lm.context_length), 1)
