"""Resumed and interrupted runs have the numbers of a quiet one; kill -9: test_killed.py."""

import pytest
import torch

from helpers import checkpoints, models, settings, train
from tests.helpers import killable_runs

# ------------------------------------------------------------------------------------- resumed


@pytest.mark.parametrize("baseline", settings.BASELINES)
def test_a_resumed_run_has_the_numbers_of_one_that_went_through(baseline, tmp_path):
    stop = 1 + list(settings.BASELINES).index(baseline) % 3
    through, stopped = killable_runs.fresh(), killable_runs.fresh()
    wanted = killable_runs.numbers(killable_runs.start(through, baseline=baseline, steps=4))
    first = killable_runs.numbers(
        killable_runs.start(stopped, baseline=baseline, steps=stop, folder=tmp_path)
    )
    resumed = killable_runs.fresh()
    second = killable_runs.numbers(
        killable_runs.start(resumed, baseline=baseline, steps=4, folder=tmp_path)
    )
    assert [one["step"] for one in first + second] == ["0", "1", "2", "3"]
    assert first + second == wanted
    assert not killable_runs.differ(killable_runs.weights(resumed), killable_runs.weights(through))


def test_chance_moments_and_memory_are_what_they_were(tmp_path):
    for baseline in ("running_mean", "learned_value"):
        lm, folder = killable_runs.fresh(), tmp_path / baseline
        config = killable_runs.config(baseline=baseline)
        loop = train.Loop(lm, list(killable_runs.PROMPTS), killable_runs.reward, config)
        for _ in range(2):
            loop.step()
        checkpoints.save(loop.state, lm, folder, config)
        other = killable_runs.fresh()
        again = checkpoints.State.fresh(other.model, lr=config.lr, seed=config.seed)
        checkpoints.resume(again, other.model, folder, config)
        assert again.step == again.saved_step == 2
        assert torch.equal(again.chance, loop.state.chance)
        assert again.memory.keys() == loop.state.memory.keys() and again.memory
        assert not killable_runs.differ(again.memory, loop.state.memory)
        pairs = zip(lm.model.named_parameters(), other.model.named_parameters(), strict=True)
        for (name, weight), (_, copy) in pairs:
            there, here = loop.state.optimizer.state[weight], again.optimizer.state[copy]
            assert there.keys() == here.keys() and float(there["exp_avg_sq"].sum()) > 0, name
            assert not killable_runs.differ(dict(here), dict(there)), name


def test_steps_may_be_added_and_a_finished_run_has_nothing_to_do(tmp_path):
    lm = killable_runs.fresh()
    assert len(list(killable_runs.start(lm, steps=1, folder=tmp_path))) == 1
    before = killable_runs.weights(lm)
    assert list(killable_runs.start(lm, steps=1, folder=tmp_path)) == []
    assert not killable_runs.differ(killable_runs.weights(lm), before)
    assert [
        one.step for one in killable_runs.start(lm, steps=3, folder=tmp_path, checkpoint_every=7)
    ] == [
        1,
        2,
    ]


def test_a_checkpoint_is_a_model_that_anyone_can_load(tmp_path, capfd):
    lm = killable_runs.fresh()
    list(killable_runs.start(lm, steps=2, folder=tmp_path))
    loaded = models.load(killable_runs.newest(tmp_path))
    assert not killable_runs.differ(killable_runs.weights(loaded), killable_runs.weights(lm))
    assert loaded.eos_ids == lm.eos_ids and loaded.context_length == lm.context_length
    assert torch.equal(loaded.encode(killable_runs.PROMPTS)[0], lm.encode(killable_runs.PROMPTS)[0])
    assert not list(tmp_path.rglob("*.bin")) and not list(tmp_path.rglob("*.pt")), "pickled"
    assert capfd.readouterr().err == "", "saving a checkpoint is silent"


# -------------------------------------------------------------------------------------- Ctrl-C


@pytest.mark.parametrize("where", ["before", "halfway", "after"])
def test_ctrl_c_while_weights_are_moved_saves_none_that_are_half_moved(
    where, tmp_path, unkilled, monkeypatch
):
    calls = []
    original = torch.optim.AdamW.step

    def half(self, *args, **kwargs):
        calls.append(1)
        if len(calls) != 4:
            return original(self, *args, **kwargs)
        if where == "halfway":
            for weight in self.param_groups[0]["params"][::2]:
                weight.data.add_(1.0)
        if where == "after":
            original(self, *args, **kwargs)
        raise KeyboardInterrupt

    folder, log = tmp_path / "run", tmp_path / "log.csv"
    monkeypatch.setattr(torch.optim.AdamW, "step", half)
    with pytest.raises(KeyboardInterrupt):
        list(killable_runs.runlog.record(killable_runs.start(folder=folder), log))
    assert killable_runs.newest(folder).name == "step-000002", "a step that was not whole was saved"
    list(killable_runs.runlog.record(killable_runs.start(folder=folder), log))
    killable_runs.check_whole(folder, log, unkilled)


def test_ctrl_c_while_a_checkpoint_is_written_leaves_no_half_of_it(tmp_path, monkeypatch):
    original, calls = checkpoints.save_file, []

    def interrupt(tensors, path):
        calls.append(1)
        if len(calls) == 2:
            path.write_bytes(b"half")
            raise KeyboardInterrupt
        original(tensors, path)

    monkeypatch.setattr(checkpoints, "save_file", interrupt)
    with pytest.raises(KeyboardInterrupt):
        list(killable_runs.start(folder=tmp_path))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-000000", "step-000002"]
    assert [one.step for one in killable_runs.start(folder=tmp_path)] == [2, 3, 4, 5]


def test_a_record_is_handed_out_before_its_checkpoint_and_so_written_down(tmp_path):
    iterator = killable_runs.start(folder=tmp_path)
    for step, name in ((0, 0), (1, 0), (2, 2), (3, 2), (4, 4)):
        assert next(iterator).step == step
        assert killable_runs.newest(tmp_path).name == f"step-{name:06d}"


def test_a_closed_iterator_and_a_break_leave_a_checkpoint_of_the_last_step(tmp_path):
    lm = killable_runs.fresh()
    iterator = killable_runs.start(lm, folder=tmp_path, checkpoint_every=100)
    next(iterator)
    iterator.close()
    assert killable_runs.newest(tmp_path).name == "step-000001"
    assert not killable_runs.differ(
        killable_runs.weights(models.load(killable_runs.newest(tmp_path))),
        killable_runs.weights(lm),
    )
    for record in killable_runs.start(lm, folder=tmp_path, checkpoint_every=100):
        if record.step == 2:
            break
    assert killable_runs.newest(tmp_path).name == "step-000003"
