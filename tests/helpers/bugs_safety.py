"""Seeded bugs in the training loop: what makes it safe to kill, and what it refuses."""

import dataclasses
import json
import shutil

import torch

from helpers import checkpoints, cpu, decoding, identity, probe, runlog, settings, train
from tests.mutant import Mutant

SAFE = {
    "of_weights": identity.of_weights,
    "fill": checkpoints._fill,
    "resume": checkpoints.resume,
    "save": checkpoints.save,
    "step": train.Loop.step,
    "call": settings.call_reward,
    "append": runlog._append,
    "run": train._run,
    "rmtree": shutil.rmtree,
}
CHECKPOINTS, RELIABILITY, RUNLOG, DAMAGED = (
    "helpers/test_checkpoints.py",
    "helpers/test_train_refusals.py",
    "helpers/test_runlog.py",
    "helpers/test_checkpoints_damaged.py",
)


def chance_not_restored(state, tensors, model):
    SAFE["fill"](state, tensors | {"chance": state.chance}, model)


def moments_not_restored(state, tensors, model):
    kept = {key: value for key, value in tensors.items() if not key.startswith("moments/")}
    SAFE["fill"](state, kept, model)


def second_moments_not_restored(state, tensors, model):
    kept = {k: v * 0 if "exp_avg_sq" in k else v for k, v in tensors.items()}
    SAFE["fill"](state, kept, model)


def memory_of_the_baseline_not_restored(state, tensors, model):
    kept = {key: value for key, value in tensors.items() if not key.startswith("memory/")}
    SAFE["fill"](state, kept, model)


def renamed_before_its_files_are_written(state, lm, folder, config, run=None):
    (folder / f"step-{state.step:06d}").mkdir(parents=True, exist_ok=True)
    return SAFE["save"](state, lm, folder, config, run)


def digest_not_checked(newest, older):
    about = json.loads((newest / "state.json").read_text())
    about.pop("sha256")
    return about


def only_sizes_checked(newest, older):
    about = digest_not_checked(newest, older)
    for name, known in about["files"].items():
        if not (newest / name).exists() or (newest / name).stat().st_size != known["bytes"]:
            raise ValueError(f"{newest / name} is damaged: go on from {older[-1].name}.")
    return about


def settings_of_another_run_accepted(newest, known, wanted):
    pass


def another_model_accepted(newest, weights, model):
    shapes = {name: tuple(p.shape) for name, p in model.named_parameters()}
    for name, shape in shapes.items():
        if name in weights and tuple(weights[name].shape) != shape:
            raise ValueError(f"{newest} is of another model: {name} is {shape} here.")


def goes_on_a_step_too_late(state, model, folder, config, run=None):
    SAFE["resume"](state, model, folder, config, run)
    if state.step:
        state.step += 1


def goes_on_a_step_too_early(state, model, folder, config, run=None):
    SAFE["resume"](state, model, folder, config, run)
    state.step = max(0, state.step - 1)


def rest_of_a_failed_write_stays(path, *args, **kwargs):
    if ".part-" not in str(path):
        SAFE["rmtree"](path, *args, **kwargs)


def half_moved_weights_saved(self):
    try:
        return SAFE["step"](self)
    finally:
        self.state.between_steps = True


def noted_before_weights_are_moved(self):
    norm = torch.nn.utils.clip_grad_norm_(self._parameters(), self.config.max_grad_norm)
    self.state.optimizer.step()
    return float(norm)


def generator_seeded_anew_at_each_step(self):
    self.state.chance = torch.Generator().manual_seed(self.config.seed).get_state()
    return SAFE["step"](self)


def seeded_by_the_step_alone(self):
    self.state.chance = torch.Generator().manual_seed(self.state.step).get_state()
    return SAFE["step"](self)


def saved_before_the_record_is_handed_out(loop, folder, run, lock):
    iterator = SAFE["run"](loop, folder, run, lock)
    try:
        for record in iterator:
            if folder is not None and loop.state.step % loop.config.checkpoint_every == 0:
                checkpoints.save(loop.state, loop.lm, train.Path(folder), loop.config, run)
            yield record
    finally:
        iterator.close()


def nan_rewards_let_through(reward, prompts, completions, *, step):
    def finite(*texts):
        return torch.as_tensor(reward(*texts), dtype=torch.float64).nan_to_num()

    return SAFE["call"](finite, prompts, completions, step=step)


def a_column_is_flattened(reward, prompts, completions, *, step):
    def flat(*texts):
        got = reward(*texts)
        return got.reshape(-1) if hasattr(got, "reshape") else got

    return SAFE["call"](flat, prompts, completions, step=step)


def the_reader_gets_the_lists_themselves(reward, prompts, completions, *, step):
    def with_the_originals(_prompts, _completions):
        return reward(prompts, completions)

    return SAFE["call"](with_the_originals, prompts, completions, step=step)


def gradient_that_is_not_finite_is_set_to_zero(self):
    for parameter in self._parameters():
        parameter.grad = parameter.grad.nan_to_num(posinf=0.0, neginf=0.0)
    return noted_before_weights_are_moved(self)


def rows_doubled_on_resume(path, *, keep_below):
    if not path.exists():
        path.write_text(",".join(runlog.COLUMNS) + "\n")


def rows_lost_on_resume(path, *, keep_below):
    path.write_text(",".join(runlog.COLUMNS) + "\n")


def row_of_the_checkpoint_kept_too(path, *, keep_below):
    kept = [row for row in runlog._read(path)[1:] if float(row[0]) <= keep_below]
    lines = [runlog.COLUMNS, *kept]
    path.write_text("".join(",".join(row) + "\n" for row in lines))


def numbers_rounded_in_the_log(path, one):
    rounded = {name: round(value, 6) for name, value in one.numbers().items()}
    SAFE["append"](path, dataclasses.replace(one, **rounded))


def whoever_comes_is_the_same_run(there, here):
    return []


def only_names_of_rewards_compared(function):
    return getattr(function, "__qualname__", type(function).__qualname__)


def weights_compared_without_names(weights):
    return SAFE["of_weights"]((str(i), tensor) for i, (_, tensor) in enumerate(weights))


def nobody_holds_the_folder(self, folder):
    self.folder, self._lock = folder, None
    folder.mkdir(parents=True, exist_ok=True)


def lock_kept_after_the_run(self):
    pass


def moments_of_any_shape(newest, step, tensors, state, model):
    pass


def mismatch_never_looked_at(loop, mismatch, batch):
    pass


def every_way_is_exact(model):
    probe._refuse_virtual_tokens(model)
    return probe.Reading(True, True, decoding.has_plain_cache(model))


def one_thread_whatever_the_work(parameters=0):
    torch.set_num_threads(1)


def all_threads_whatever_the_reader_says(parameters=0):
    torch.set_num_threads(cpu.cores() if parameters >= cpu.LARGE else 1)


def captured_steps_one_after_the_other(self, step, tensors, mask):
    step.replay()
    step.replay()


IDENTITY, PROBE, THREADS, DECODING = (
    "helpers/test_identity.py",
    "helpers/test_probe.py",
    "helpers/test_cpu.py",
    "helpers/test_decoding.py",
)
SAFETY = [
    Mutant("helpers.identity.differences", whoever_comes_is_the_same_run, (IDENTITY,)),
    Mutant("helpers.identity.of_function", only_names_of_rewards_compared, (IDENTITY,)),
    Mutant("helpers.identity.of_weights", weights_compared_without_names, (IDENTITY,)),
    Mutant("helpers.identity.Lock.__init__", nobody_holds_the_folder, (IDENTITY,)),
    Mutant("helpers.identity.Lock.release", lock_kept_after_the_run, (IDENTITY,)),
    Mutant("helpers.checkpoints._check_state", moments_of_any_shape, (DAMAGED,)),
    Mutant("helpers.train._check_mismatch", mismatch_never_looked_at, (PROBE,)),
    Mutant("helpers.probe._find_out", every_way_is_exact, (PROBE,)),
    Mutant("helpers.cpu.settle", one_thread_whatever_the_work, (THREADS,)),
    Mutant("helpers.cpu.settle", all_threads_whatever_the_reader_says, (THREADS,)),
    Mutant("helpers.decoding.Decoder._warm_up", captured_steps_one_after_the_other, (DECODING,)),
    Mutant("helpers.checkpoints._fill", chance_not_restored, (CHECKPOINTS,)),
    Mutant("helpers.checkpoints._fill", moments_not_restored, (CHECKPOINTS,)),
    Mutant("helpers.checkpoints._fill", second_moments_not_restored, (CHECKPOINTS,)),
    Mutant("helpers.checkpoints._fill", memory_of_the_baseline_not_restored, (CHECKPOINTS,)),
    Mutant("helpers.checkpoints.save", renamed_before_its_files_are_written, (DAMAGED,)),
    Mutant("helpers.checkpoints._read_about", digest_not_checked, (DAMAGED,)),
    Mutant("helpers.checkpoints._read_about", only_sizes_checked, (DAMAGED,)),
    Mutant("helpers.checkpoints._check_same_run", settings_of_another_run_accepted, (DAMAGED,)),
    Mutant("helpers.checkpoints._check_fits", another_model_accepted, (DAMAGED,)),
    Mutant("helpers.checkpoints.resume", goes_on_a_step_too_late, (CHECKPOINTS,)),
    Mutant("helpers.checkpoints.resume", goes_on_a_step_too_early, (CHECKPOINTS,)),
    Mutant("helpers.checkpoints.shutil.rmtree", rest_of_a_failed_write_stays, (DAMAGED,)),
    Mutant("helpers.train.Loop.step", half_moved_weights_saved, (CHECKPOINTS,)),
    Mutant("helpers.train.Loop.uphill", noted_before_weights_are_moved, (CHECKPOINTS,)),
    Mutant("helpers.train.Loop.step", generator_seeded_anew_at_each_step, (RELIABILITY,)),
    Mutant("helpers.train.Loop.step", seeded_by_the_step_alone, (RELIABILITY,)),
    Mutant("helpers.train._run", saved_before_the_record_is_handed_out, (CHECKPOINTS,)),
    Mutant("helpers.settings.call_reward", nan_rewards_let_through, (RELIABILITY,)),
    Mutant("helpers.settings.call_reward", a_column_is_flattened, (RELIABILITY,)),
    Mutant("helpers.settings.call_reward", the_reader_gets_the_lists_themselves, (RELIABILITY,)),
    Mutant("helpers.train.Loop.uphill", gradient_that_is_not_finite_is_set_to_zero, (RELIABILITY,)),
    Mutant("helpers.runlog._begin", rows_doubled_on_resume, (RUNLOG,)),
    Mutant("helpers.runlog._begin", rows_lost_on_resume, (RUNLOG,)),
    Mutant("helpers.runlog._begin", row_of_the_checkpoint_kept_too, (RUNLOG,)),
    Mutant("helpers.runlog._append", numbers_rounded_in_the_log, (RUNLOG,)),
]

MUTANTS = SAFETY
