"""A model is asked how it may be read: architectures of all kinds, and what is refused."""

import copy
import json
import warnings

import pytest
import torch
import transformers

from benchmarks import architectures
from helpers import models, probe, rollout, scoring, settings, train

KINDS = {  # kind → (verdict, what is not done)
    "gpt2": ("exact", ""),
    "llama": ("exact", ""),
    "qwen3": ("exact", ""),
    "gpt_neox": ("exact", ""),  # stored under other names
    "opt": ("exact", ""),
    "bloom": ("exact", ""),  # positions by distance
    "mixtral": ("exact, slower", "prompts not shared"),  # experts, and a sliding window
    "gemma2": ("exact, slower", "prompts not shared"),
    "bart": ("exact, slower", "no padding"),  # positions that count padding
    "lfm2": ("exact, slower", "no cache, prompts not shared"),  # convolutions with a state
    "mamba": ("exact, slower", "no cache, prompts not shared"),
    "rwkv": ("exact, slower", "no padding, no cache, prompts not shared"),
    "moshi": ("exact, slower", "no cache, prompts not shared"),  # forgets only with its cache
    "roberta is_decoder": ("exact", ""),  # positions that begin behind that of filler
    "reformer": ("refused", "without dropout"),  # no gradient but in training mode
    "bert": ("refused", "is not causal"),
    "roberta": ("refused", "is not causal"),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.filterwarnings("ignore")
def test_an_architecture_is_exact_or_refused(kind):
    result = architectures.put_through(kind)
    verdict, detail = KINDS[kind]
    assert result.verdict == verdict, result
    assert detail in result.detail, result
    if verdict != "refused":
        assert max(result.mismatch, result.alone) < 1e-4 and result.gradient < 1e-5, result


def test_the_table_of_architectures_has_nothing_wrong():
    text = (
        architectures.Path(architectures.__file__).parent / "results/architectures.md"
    ).read_text()
    rows = [line for line in text.splitlines() if line.startswith("| `")]
    assert len(rows) > 80 and not any("WRONG" in row for row in rows)
    for kind, (verdict, _) in KINDS.items():
        [row] = [row for row in rows if row.startswith(f"| `{kind}` ")]
        assert f"| {verdict} |" in row, row


def folder_of(model, path):
    models.save(models.LanguageModel(model, architectures.tokenizer(), (1,), None), path)
    return path


def test_positions_that_change_with_the_length_end_the_context(tmp_path):
    config = transformers.Phi3Config(
        **{k: v for k, v in architectures.SMALL.items() if k != "head_dim"} | {"pad_token_id": 1},
        rope_parameters={
            "rope_type": "longrope",
            "rope_theta": 1e4,
            "original_max_position_embeddings": 12,
            "short_factor": [1.0] * 4,
            "long_factor": [4.0] * 4,
        },
    )
    config.original_max_position_embeddings = 12
    lm = models.load(folder_of(transformers.AutoModelForCausalLM.from_config(config), tmp_path))
    assert lm.context_length == 12
    with pytest.raises(ValueError, match="positions are not defined or change"):
        rollout.sample(
            lm.model,
            *lm.encode(["she"]),
            eos_ids=(1,),
            max_new_tokens=10,
            uniforms=torch.rand(1, 10),
        )


@pytest.mark.parametrize(("kind", "cached"), [("moshi", False), ("mistral", True)])
@pytest.mark.filterwarnings("ignore")
def test_a_window_longer_than_the_texts_of_the_probe_is_tried_all_the_same(
    kind, cached, monkeypatch
):
    monkeypatch.setitem(architectures.SMALL, "sliding_window", 20)
    model = architectures.tiny_model(kind)
    assert probe.reading(model).cached == cached
    assert model.config.sliding_window == 20
    ids = torch.randint(3, 300, (1, 20), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids, dtype=torch.bool)
    asked = rollout.SamplingSettings((1,), 30, group_size=3)
    batch = rollout.sample(model, ids, mask, asked, generator=torch.Generator().manual_seed(0))
    again = rollout.completion_logprobs(model, batch)
    assert float((again - batch.old_logprobs).abs().max()) < 1e-4


def test_positions_behind_that_of_filler_shorten_the_context(tmp_path):
    lm = models.load(folder_of(architectures.tiny_model("roberta is_decoder"), tmp_path))
    assert models.first_position(lm.model) == 3 and lm.context_length == 64 - 3
    ids = torch.randint(3, 300, (1, 61), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        told = models.forward(lm.model, ids, torch.ones_like(ids, dtype=torch.bool)).logits
        assert torch.equal(told, lm.model(input_ids=ids).logits)


def test_a_model_that_mixes_the_texts_of_a_batch_is_refused():
    model = architectures.tiny_model("llama")
    model.get_input_embeddings().register_forward_hook(
        lambda _module, _input, output: output + output.mean(0, keepdim=True)
    )
    with pytest.raises(ValueError, match="another one is beside it in the batch"):
        probe.reading(model)


def test_weights_that_are_no_numbers_are_named_with_the_step(tmp_path):
    lm = models.load(models.REVIEWS_MODEL)
    loop = train.Loop(lm, ["the film"], lambda p, c: [0.0] * len(c), settings.Config())
    with torch.no_grad():
        lm.model.transformer.ln_f.weight[3] = float("nan")
    with pytest.raises(ValueError, match="step 0: the logits .* are not finite"):
        loop.step()
    with pytest.raises(ValueError, match="weights are damaged"):
        fresh = copy.deepcopy(lm.model)
        fresh.__dict__.pop("_reading")
        probe.reading(fresh)


def test_a_policy_that_changes_between_sampling_and_scoring_stops_the_run():
    lm = models.load(models.REVIEWS_MODEL)
    loop = train.Loop(lm, ["the film"], lambda p, c: [float(len(x)) for x in c], settings.Config())
    credit = loop.credit

    def after_a_move(batch, judged):
        with torch.no_grad():
            lm.model.transformer.wte.weight.mul_(1.3)
        return credit(batch, judged)

    loop.credit = after_a_move
    with pytest.raises(ValueError, match="step 0: a token's log-probability at scoring differs"):
        loop.step()
    assert loop.state.step == 0


def test_training_mode_that_somebody_left_on_does_not_drop_out():
    lm = models.load(models.REVIEWS_MODEL)
    for module in lm.model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.5
    loop = train.Loop(lm, ["the film"], lambda p, c: [float(len(x)) for x in c], settings.Config())
    lm.model.train()
    assert loop.step().mismatch < 1e-4


def test_gradient_checkpointing_recomputes_and_changes_no_number(tmp_path):
    folder = folder_of(architectures.tiny_model("llama"), tmp_path)

    def gradient(checkpointing):
        lm = models.load(folder)
        calls = []
        if checkpointing:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                lm.model.gradient_checkpointing_enable()
            for layer in scoring._checkpointed_layers(lm.model):
                real = getattr(layer, "_gradient_checkpointing_func", None)
                if real is not None:
                    layer._gradient_checkpointing_func = lambda *a, real=real, **k: (
                        calls.append(1) or real(*a, **k)
                    )
        config = settings.Config(steps=1, prompts_per_step=2, group_size=3, max_new_tokens=6)
        loop = train.Loop(lm, architectures.PROMPTS, architectures.reward, config)
        loop.uphill = lambda: 0.0
        loop.step()
        assert bool(calls) == checkpointing and not any(m.training for m in lm.model.modules())
        return torch.cat([p.grad.flatten() for p in lm.model.parameters()])

    plain, saved = gradient(False), gradient(True)
    assert (plain - saved).norm() < 1e-5 * plain.norm()


def test_settings_that_lie_deeper_and_weights_that_are_missing(tmp_path):
    folder = folder_of(architectures.tiny_model("llama"), tmp_path)
    about = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(about | {"num_hidden_layers": 3}))
    with pytest.raises(ValueError, match="missing .* tensors .*layers.2"):
        models.load(folder)
    (folder / "config.json").write_text(json.dumps(about | {"eos_token_id": [1, 40]}))
    assert models.load(folder).eos_ids == (1,)  # 40 is a letter
    (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:3000])
    with pytest.raises(FileNotFoundError, match="safetensors"):
        models.load(folder)
    (folder / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(FileNotFoundError, match="git lfs pull"):
        models.load(folder)


@pytest.mark.parametrize("level", [0.0, 1e8, -1e12])
@pytest.mark.parametrize("baseline", ["leave_one_out", "group_mean", "group_z_score"])
def test_what_all_rewards_share_does_not_round_away_what_differs(level, baseline):
    def norm(level):
        lm = models.load(models.REVIEWS_MODEL)
        config = settings.Config(prompts_per_step=2, group_size=4, baseline=baseline)
        paid = lambda p, c: [level + len(x) % 3 for x in c]  # noqa: E731
        return train.Loop(lm, ["the film", "i"], paid, config).step()

    near, far = norm(0.0), norm(level)
    assert near.grad_norm > 0 and abs(far.grad_norm / near.grad_norm - 1) < 1e-3
    assert far.reward_std == pytest.approx(near.reward_std, rel=1e-3)
