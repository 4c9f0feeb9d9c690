"""`make pretrain`, shortened: it learns, and the same seed gives the same file."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def pretrain(folder: Path, steps: int) -> dict:
    command = [
        sys.executable, str(ROOT / "tools" / "pretrain.py"), "--steps", str(steps),
        "--samples", "400", "--out", str(folder),
    ]  # fmt: skip
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    subprocess.run(command, check=True, capture_output=True, env=environment, timeout=300)
    return json.loads((folder / "card.json").read_text())


def test_it_learns_and_is_reproducible(tmp_path):
    card = pretrain(tmp_path / "a", 60)
    assert pretrain(tmp_path / "b", 60) == card
    for file in (tmp_path / "a").iterdir():
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes(), file.name
    # An untrained model pays log 61 = 4.1 nats a word, some 28 nats a review above the entropy.
    assert 0.2 < card["kl_grammar_to_model_nats_per_review"] < 15
    shipped = json.loads((ROOT / "helpers/pretrained/reviews/card.json").read_text())
    assert card["parameters"] == shipped["parameters"] and card["seed"] == shipped["seed"]
    names = {file.name for file in (tmp_path / "a").iterdir()}
    assert names == {file.name for file in (ROOT / "helpers/pretrained/reviews").iterdir()}
