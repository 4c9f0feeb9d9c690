"""Seeded bugs in what makes the loop fast and must change no number."""

import torch

from helpers import cpu, decoding, models, rollout
from tests.mutant import Mutant

LEAN, CPU, SCORING = (
    ("helpers/test_decoding_lean.py",),
    ("helpers/test_cpu.py",),
    ("helpers/test_scoring.py",),
)
OWN, SHARED = decoding._OwnKeys, decoding._SharedKeys
FAST = {
    "select": SHARED.select,
    "attend": SHARED.attend,
    "own attend": OWN.attend,
    "backward": cpu._OneDNN.backward,
    "function": cpu._ByOneDNN.__torch_function__,
    "draw": rollout.draw,
}


def members_in_the_order_of_rows(self, rows):
    members = rows.new_zeros(len(self.bias) * self.size, *rows.shape[1:])
    members[: len(rows)] = rows
    return members.unflatten(0, (-1, self.size)).transpose(1, 2).flatten(2, 3)


def prompts_of_groups_that_ended_stay(self, rows):
    kept = self.prompts, self.bias
    FAST["select"](self, rows)
    self.prompts, self.bias = kept


def filler_is_read(self, mask):
    return torch.zeros_like(mask, dtype=self.own[0].dtype)[:, None, None]


def scores_not_scaled(self, layer, q, k, v, scale):
    return FAST["attend"](self, layer, q, k, v, 1.0)


def first_head_for_all(self, layer, q, k, v, scale):
    return FAST["own attend"](self, layer, q, k[:, :1].expand_as(k), v, scale)


def keys_of_rows_that_left(self, rows):
    self.bias = self.bias[rows]
    self.own = [t[: len(rows)] for t in self.own]


def halves_not_turned(pairs):
    first, second = pairs.chunk(2, dim=-1)
    return torch.cat([second, first], dim=-1)


def hooks_are_not_heard(model):
    bare = models.unwrap(model)
    return type(bare).__name__ in decoding.LEAN and bare.dtype == torch.float32


def every_class_and_every_dtype(model):
    return decoding.LEAN.get(type(models.unwrap(model)).__name__) is not None


def one_number_for_all_pieces(logits, uniforms, settings):
    if len(logits) > 1:
        uniforms = uniforms[:1].expand_as(uniforms)
    return FAST["draw"](logits, uniforms, settings)


def no_gradient_for_the_bias(ctx, grad):
    *others, bias = FAST["backward"](ctx, grad)
    return *others, None if bias is None else torch.zeros_like(bias)


def no_gradient_for_what_came_in(ctx, grad):
    came, *others = FAST["backward"](ctx, grad)
    return None if came is None else torch.zeros_like(came), *others


def float64_too(self, func, types, args=(), kwargs=None):
    single = [a.float() if isinstance(a, torch.Tensor) else a for a in args]
    result = FAST["function"](self, func, types, tuple(single), kwargs)
    double = func in (torch.nn.functional.linear, torch.addmm) and args[0].dtype == torch.float64
    return result.double() if double else FAST["function"](self, func, types, args, kwargs)


def always_faster(model, rows):
    return True


def never_faster(model, rows):
    return False


def tokens_whatever_the_vocabulary(model):
    return 1024


MUTANTS = [
    Mutant("helpers.decoding._SharedKeys._by_prompt", members_in_the_order_of_rows, LEAN),
    Mutant("helpers.decoding._SharedKeys.select", prompts_of_groups_that_ended_stay, LEAN),
    Mutant("helpers.decoding._OwnKeys._bias", filler_is_read, LEAN),
    Mutant("helpers.decoding._SharedKeys.attend", scores_not_scaled, LEAN),
    Mutant("helpers.decoding._OwnKeys.attend", first_head_for_all, LEAN),
    Mutant("helpers.decoding._OwnKeys.select", keys_of_rows_that_left, LEAN),
    Mutant("helpers.decoding._rotated", halves_not_turned, LEAN),
    Mutant("helpers.decoding.leanable", hooks_are_not_heard, LEAN),
    Mutant("helpers.decoding.leanable", every_class_and_every_dtype, LEAN),
    Mutant("helpers.rollout.draw", one_number_for_all_pieces, LEAN),
    Mutant("helpers.cpu._OneDNN.backward", no_gradient_for_the_bias, CPU),
    Mutant("helpers.cpu._OneDNN.backward", no_gradient_for_what_came_in, CPU),
    Mutant("helpers.cpu._ByOneDNN.__torch_function__", float64_too, CPU),
    Mutant("helpers.cpu.onednn_is_faster", always_faster, CPU),
    Mutant("helpers.cpu.onednn_is_faster", never_faster, CPU),
    Mutant("helpers.scoring.budget_of", tokens_whatever_the_vocabulary, SCORING),
]
