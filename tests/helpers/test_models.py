"""Loading models: the shipped one, folders of other architectures, and every error."""

import json

import pytest
import torch
from torch.testing import assert_close

from course.exact import oracle
from course.worlds import tiny_models
from course.worlds.reviews import REVIEWS
from helpers import models, rollout
from tests.helpers.foreign_models import save_foreign_model


@pytest.fixture(
    scope="module",
    params=[("llama", "left"), ("llama", "right"), ("qwen", "right")],
    ids=lambda p: "-".join(p),
)
def foreign(request, tmp_path_factory) -> models.LanguageModel:
    kind, padding_side = request.param
    folder = tmp_path_factory.mktemp("foreign")
    save_foreign_model(folder, kind=kind, padding_side=padding_side)
    return models.load(folder)


def test_the_shipped_model(reviews):
    assert sum(p.numel() for p in reviews.model.parameters()) <= 200_000
    assert reviews.model.config.activation_function == "gelu_pytorch_tanh"
    assert reviews.model.config.model_type == "gpt2" and not reviews.model.training
    files = {path.name for path in models.REVIEWS_MODEL.iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= files
    assert not any(name.endswith((".bin", ".pt", ".pkl")) for name in files)
    assert sum(path.stat().st_size for path in models.REVIEWS_MODEL.iterdir()) <= 1_000_000


def test_its_card_states_the_kl_that_is_measured_here(reviews):
    """KL(grammar ‖ model) from fresh reviews, by the oracle of the grammar."""
    card = json.loads((models.REVIEWS_MODEL / "card.json").read_text())
    generator = torch.Generator().manual_seed(77)
    texts, gaps = REVIEWS.sample(600, generator), []
    for text in texts:
        ids = torch.tensor([[*reviews.tokenizer(text).input_ids, *reviews.eos_ids]])
        with torch.no_grad():
            logp = reviews.model(input_ids=ids).logits[0].double().log_softmax(-1)
        score = logp[:-1].gather(-1, ids[0, 1:, None]).sum()
        gaps.append(REVIEWS.logprob(text) - float(score))
    gap = torch.tensor(gaps)
    error = float(gap.std()) / len(gaps) ** 0.5
    assert abs(float(gap.mean()) - card["kl_grammar_to_model_nats_per_review"]) < 4 * error
    assert gap.mean() < 0.15
    assert card["grammar_entropy_nats_per_review"] == pytest.approx(REVIEWS.entropy())
    assert card["grammar_expected_sentiment"] == pytest.approx(REVIEWS.expected_score())


def test_course_model_names_the_default(foreign, monkeypatch):
    monkeypatch.setenv("COURSE_MODEL", str(foreign.tokenizer.name_or_path))
    assert models.load().model.config.model_type == foreign.model.config.model_type
    monkeypatch.delenv("COURSE_MODEL")
    assert models.load().model.config.model_type == "gpt2"


def test_prompts_of_another_architecture_are_padded_on_the_left(foreign):
    prompts = ["the film was", "i", "the cast was not very charming but"]
    ids, mask = foreign.encode(prompts)
    lengths = [len(foreign.tokenizer(p).input_ids) for p in prompts]
    assert mask.sum(-1).tolist() == lengths and len(set(lengths)) == 3
    assert mask[:, -1].all(), "the last column must be real tokens"
    for row, prompt, n in zip(ids, prompts, lengths, strict=True):
        assert row[-n:].tolist() == foreign.tokenizer(prompt).input_ids


def test_padding_changes_no_score_of_another_architecture(foreign):
    prompts = ["the film was", "i", "the cast was not very charming but"]
    generator = torch.Generator().manual_seed(0)
    batch = rollout.sample(
        foreign.model,
        *foreign.encode(prompts),
        rollout.SamplingSettings(foreign.eos_ids, 12, group_size=2),
        generator=generator,
    )
    together = rollout.completion_logprobs(foreign.model, batch).detach()
    assert_close(batch.old_logprobs, together, rtol=0, atol=1e-5)
    for row in range(6):
        alone_ids, _ = foreign.encode([prompts[row // 2]])
        n = int(batch.lengths[row])
        ids = torch.cat([alone_ids, batch.completion_ids[row : row + 1, :n]], dim=1)
        with torch.no_grad():
            logp = foreign.model(input_ids=ids).logits.log_softmax(-1)
        start = alone_ids.shape[1]
        scores = logp[0, start - 1 : -1].gather(-1, ids[0, start:, None])[:, 0]
        assert_close(together[row, :n], scores, rtol=0, atol=1e-5)


def test_decode_stops_at_the_end_and_hides_special_tokens(foreign):
    text = "the film was good"
    ids = foreign.tokenizer(text).input_ids
    eos = foreign.eos_ids[0]
    row = torch.tensor([[*ids, eos, *ids]])
    assert foreign.decode(row, torch.tensor([len(ids) + 1])) == [text]


def test_a_missing_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no model folder"):
        models.load(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="there is no model folder"):
        models.load("./nowhere")
    (tmp_path / "file").write_text("")
    with pytest.raises(FileNotFoundError, match="there is no model folder"):
        models.load(tmp_path / "file")


def test_folders_that_are_no_model(tmp_path):
    with pytest.raises(FileNotFoundError, match="no config.json"):
        models.load(tmp_path)
    save_foreign_model(tmp_path, kind="llama", padding_side="left")
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="model.safetensors"):
        models.load(tmp_path)


def test_weights_in_a_pickle_are_not_read(tmp_path):
    save_foreign_model(tmp_path, kind="llama", padding_side="left")
    weights = models.load(tmp_path).model.state_dict()
    (tmp_path / "model.safetensors").unlink()
    torch.save(weights, tmp_path / "pytorch_model.bin")
    with pytest.raises(FileNotFoundError, match=r"not \.bin"):
        models.load(tmp_path)


def test_code_that_comes_with_a_model_is_not_run(tmp_path):
    save_foreign_model(tmp_path, kind="llama", padding_side="left")
    config = json.loads((tmp_path / "config.json").read_text())
    config |= {
        "model_type": "mine",
        "auto_map": {"AutoModelForCausalLM": "evil.Evil", "AutoConfig": "evil.Config"},
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    marker = tmp_path / "was_run"
    (tmp_path / "evil.py").write_text(f"open({str(marker)!r}, 'w').close()\n")
    with pytest.raises((ValueError, FileNotFoundError)):
        models.load(tmp_path)
    assert not marker.exists()


def test_no_network_says_what_to_do():
    """The hub is switched off for all tests (conftest), as on a train."""
    with pytest.raises(ConnectionError, match="could not be fetched. Check the name and the net"):
        models.load("someone/some-model")


def test_a_model_without_eos(tmp_path):
    save_foreign_model(tmp_path, kind="llama", padding_side="left", eos=None)
    with pytest.raises(ValueError, match="Pass eos_token="):
        models.load(tmp_path)
    lm = models.load(tmp_path, eos_token=".")
    assert lm.eos_ids == (lm.tokenizer.get_vocab()["."],)
    with pytest.raises(ValueError, match="not in the tokenizer's vocabulary"):
        models.load(tmp_path, eos_token="<nothing>")


def test_prompts_that_cannot_work(reviews, foreign):
    with pytest.raises(ValueError, match="context holds 96"):
        reviews.encode(["the film was good . " * 30])
    with pytest.raises(ValueError, match="does not know"):
        reviews.encode(["the zebra"])
    with pytest.raises(ValueError, match=r"Sequence\[str\]|at least one string"):
        reviews.encode([])
    with pytest.raises(ValueError, match=r"Sequence\[str\]|at least one string"):
        reviews.encode("the film")
    with pytest.raises(ValueError, match="has no tokens"):
        foreign.encode(["the film", ""])


def test_word_transformers_are_reproducible_and_leave_the_global_state(world):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    one, two = (tiny_models.word_transformer(world, seed=1) for _ in range(2))
    assert torch.equal(torch.rand(3), expected)
    for a, b in zip(one.parameters(), two.parameters(), strict=True):
        assert torch.equal(a, b) and a.dtype == torch.float64
    logp = oracle.completion_logprobs(models.as_policy(one), world, "praise")
    other = models.as_policy(tiny_models.word_transformer(world, seed=2))
    assert not torch.allclose(logp, oracle.completion_logprobs(other, world, "praise"))


def test_word_transformers_are_causal_and_read_the_prompt(world):
    policy = models.as_policy(tiny_models.word_transformer(world, seed=0))
    ids = torch.tensor([[5, 0, 1, 2], [5, 0, 1, 3], [6, 0, 1, 2]])
    logits = policy(ids).detach()
    assert logits.shape == (3, 4, 5)
    assert_close(logits[0, :3], logits[1, :3])
    assert not torch.allclose(logits[0, 3], logits[1, 3])
    assert not torch.allclose(logits[0, 0], logits[2, 0])
