"""`helpers` works without the book: a folder with it, and nothing else of ours."""

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ALONE = """
import sys
sys.modules["course"] = None  # whoever imports it is told that there is none
import helpers
from helpers import models, train

assert helpers.__file__.startswith(sys.argv[1]), helpers.__file__
lm = models.load(models.REVIEWS_MODEL)
reward = lambda prompts, texts: [float(text.count("good")) for text in texts]
config = train.Config(steps=2, prompts_per_step=2, group_size=4, max_new_tokens=6)
records = list(train.train(lm, ["the film", "i"], reward, config, folder="run"))
assert [record.step for record in records] == [0, 1] and records[0].completions
try:
    import course.worlds
except ImportError:
    print("trained two steps alone")
"""


def test_a_copy_of_the_folder_trains_without_the_course(tmp_path):
    skip = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "helpers", tmp_path / "helpers", ignore=skip)
    (tmp_path / "alone.py").write_text(ALONE)
    done = subprocess.run(
        [sys.executable, "alone.py", str(tmp_path)], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.stdout == "trained two steps alone\n", done.stderr[-2000:]
    assert (tmp_path / "run" / "step-000002").is_dir()
