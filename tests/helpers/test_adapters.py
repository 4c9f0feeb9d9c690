"""Adapters of the package peft: trained, saved, gone on with; and those that are refused."""

import dataclasses

import pytest
import torch

from benchmarks import architectures
from helpers import models, probe, settings, train

peft = pytest.importorskip("peft")

CONFIG = settings.Config(steps=3, prompts_per_step=2, group_size=3, max_new_tokens=6)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """The folder of a model that adapters are put on."""
    folder = tmp_path_factory.mktemp("base")
    model = architectures.tiny_model("llama")
    models.save(models.LanguageModel(model, architectures.tokenizer(), (1,), None), folder)
    return folder


def adapted(base, *, rank=4, seed=0):
    """The model with a LoRA whose weights are not zero."""
    lm = models.load(base)
    torch.manual_seed(seed)
    about = peft.LoraConfig(
        r=rank, target_modules=["q_proj", "v_proj"], lora_dropout=0.3, task_type="CAUSAL_LM"
    )
    model = peft.get_peft_model(lm.model, about)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.3)
    return dataclasses.replace(lm, model=model.eval())


def run(lm, steps, folder=None):
    config = dataclasses.replace(CONFIG, steps=steps)
    records = train.train(
        lm, architectures.PROMPTS, architectures.reward, config, folder=folder and str(folder)
    )
    return [(record.nll, record.grad_norm, record.mismatch) for record in records]


def learned(model):
    return {name: w.detach().clone() for name, w in model.named_parameters() if w.requires_grad}


def test_only_the_adapter_moves_and_all_that_is_read_agrees(base):
    lm = adapted(base)
    before = {name: w.detach().clone() for name, w in lm.model.named_parameters()}
    numbers = run(lm, 2)
    assert all(grad_norm > 0 and mismatch < 1e-4 for _, grad_norm, mismatch in numbers)
    for name, weight in lm.model.named_parameters():
        assert torch.equal(weight, before[name]) == ("lora_" not in name), name
    assert probe.reading(lm.model) == probe.Reading(
        padded=True, cached=True, shared=True, lean=True
    )


def test_a_run_that_was_stopped_goes_on_bit_for_bit(base, tmp_path):
    whole = adapted(base)
    numbers = run(whole, 3)
    assert run(adapted(base), 1, tmp_path) + run(adapted(base), 3, tmp_path) == numbers
    loaded = models.load(tmp_path / "step-000003")
    kept, wanted = learned(loaded.model), learned(whole.model)
    assert kept.keys() == wanted.keys() and all(torch.equal(kept[n], wanted[n]) for n in kept)
    ids, mask = loaded.encode(architectures.PROMPTS)
    with torch.no_grad():
        one, other = (models.forward(lm.model, ids, mask).logits for lm in (loaded, whole))
    assert torch.equal(one, other)


def test_what_was_loaded_can_be_trained_on(base, tmp_path):
    run(adapted(base), 1, tmp_path / "first")
    loaded = models.load(tmp_path / "first" / "step-000001")
    before = learned(loaded.model)
    assert all("lora_" in name for name in before)
    run(loaded, 2, tmp_path / "second")
    assert any(not torch.equal(weight, before[n]) for n, weight in learned(loaded.model).items())


@pytest.mark.parametrize("other", ["rank", "no adapter"])
def test_a_folder_of_another_adapter_is_refused(base, tmp_path, other):
    run(adapted(base), 1, tmp_path)
    lm = adapted(base, rank=2) if other == "rank" else models.load(base)
    before = {name: w.detach().clone() for name, w in lm.model.named_parameters()}
    with pytest.raises(ValueError, match=r"step-000001 is of another|does not fit this model"):
        run(lm, 3, tmp_path)
    assert all(torch.equal(w, before[name]) for name, w in lm.model.named_parameters())


@pytest.mark.parametrize("seen_before", [False, True])
@pytest.mark.parametrize(
    "kind", ["PromptTuningConfig", "PrefixTuningConfig", "PromptEncoderConfig"]
)
def test_virtual_tokens_are_refused(base, kind, seen_before):
    lm = models.load(base)
    if seen_before:  # the model below the adapter is known to be a policy
        probe.reading(lm.model)
    about = getattr(peft, kind)(task_type="CAUSAL_LM", num_virtual_tokens=3)
    model = peft.get_peft_model(lm.model, about).eval()
    with pytest.raises(ValueError, match="virtual tokens"):
        run(dataclasses.replace(lm, model=model), 1)
