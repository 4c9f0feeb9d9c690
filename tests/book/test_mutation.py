"""The tool that puts slips into the code: what it makes, what it counts, and what is excused."""

import importlib.util
import textwrap

import pytest

from tools import mutation

TOY = textwrap.dedent(
    '''
    """A module."""

    import math


    def half(x):
        """Half of 3 − 1."""
        if x < 0:
            raise ValueError("below 0")
        return x / 2
    '''
).lstrip()


def test_slips_of_tensor_code_are_made_once_each_and_not_in_what_is_said():
    source = TOY.replace("x / 2", "x.double().sum(-1) / 2")
    made = [m for m in mutation.mutants_of_tensor_code(source)]
    after = {one.after for one in made}
    assert "return x.double().mean(-1) / 2" in after and "return x.sum(-1) / 2" in after
    assert len(after) == len(made)
    assert all(one.before.startswith("return") for one in made), "in a docstring or a message"


@pytest.mark.skipif(importlib.util.find_spec("cosmic_ray") is None, reason="the extra `mutation`")
def test_slips_of_cosmic_ray():
    after = {one.after for one in mutation.mutants(TOY)}
    assert {"return x * 2", "return x / 3", "if x <= 0:", "if not x < 0:"} <= after


def test_a_slip_dies_where_a_test_looks_and_lives_where_none_does(tmp_path, monkeypatch):
    monkeypatch.setattr(mutation, "ROOT", tmp_path)
    (tmp_path / "tests").mkdir()
    (tmp_path / "toy_module.py").write_text(TOY, encoding="utf-8")
    for name, check in (("strong", "half(6) == 3"), ("weak", "half(0) == 0")):
        text = f"from toy_module import half\n\n\ndef test_it():\n    assert {check}\n"
        (tmp_path / "tests" / f"test_toy_{name}.py").write_text(text, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    wrong = TOY.replace("x / 2", "x / 3")
    for source, strong, weak in ((TOY, False, False), (wrong, True, False)):
        assert mutation.dies("toy_module", source, ["test_toy_strong.py"], seconds=60) == strong
        assert mutation.dies("toy_module", source, ["test_toy_weak.py"], seconds=60) == weak


@pytest.mark.parametrize("module", mutation.BESIDE)
def test_what_is_excused_is_still_there_and_has_a_reason(module):
    assert not mutation.stale(module)
    assert all(len(why) > 10 for why in mutation.equivalents(module).values())
    for test in mutation.BESIDE[module].split():
        assert (mutation.ROOT / "tests" / test).exists(), test
