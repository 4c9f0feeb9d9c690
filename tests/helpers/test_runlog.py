"""The run log: every step once, on disk before it is seen, with where it comes from."""

import dataclasses
import json
import re
import signal

import pytest
import torch
from tqdm import tqdm

from helpers import runlog
from helpers.settings import Config
from tests.helpers import killable_runs


def record(step, **changes):
    values = {field.name: float(step) for field in dataclasses.fields(runlog.Record) if field.repr}
    texts = {"prompts": ["the film"], "completions": ["was good"], "rewards": [1.0]}
    return runlog.Record(**(values | {"step": step, "seconds": 0.5} | texts | changes))


def steps(path):
    return [row["step"] for row in runlog.load(path)]


def test_rows_are_the_records_numbers_exactly_and_are_there_before_the_record(tmp_path):
    path = tmp_path / "deep" / "log.csv"
    records = [record(0, reward=1 / 3), record(1, kl=float("nan")), record(2, nll=1e-300)]
    seen = []
    for one in runlog.record(records, path):
        seen.append(one)
        assert steps(path) == [float(k) for k in range(len(seen))]
    assert seen == records and all(a is b for a, b in zip(seen, records, strict=True))
    assert repr(runlog.load(path)) == repr(
        [{name: float(value) for name, value in one.numbers().items()} for one in records]
    )
    header, *_ = path.read_text().splitlines()
    assert header == ",".join(records[0].numbers())
    assert sorted(p.name for p in path.parent.iterdir()) == ["log.csv", "log.json"]


def test_rows_from_the_first_record_on_are_replaced(tmp_path):
    path = tmp_path / "log.csv"
    list(runlog.record(map(record, range(6)), path))
    list(runlog.record((record(k, reward=9.0) for k in range(3, 5)), path))
    assert [(row["step"], row["reward"]) for row in runlog.load(path)] == [
        (0, 0),
        (1, 1),
        (2, 2),
        (3, 9),
        (4, 9),
    ]
    list(runlog.record(map(record, range(2)), path))
    assert steps(path) == [0, 1]


@pytest.mark.parametrize("torn", ["3,0.5,0.", "3", "3," + "1.0," * 11 + "0"])
def test_a_torn_last_line_is_named_and_a_resumed_run_writes_it_again(torn, tmp_path):
    path = tmp_path / "log.csv"
    list(runlog.record(map(record, range(3)), path))
    with path.open("a") as file:
        file.write(torn)
    if torn.count(",") < 12:
        with pytest.raises(ValueError, match="log.csv, line 5: .*13 columns"):
            runlog.load(path)
    list(runlog.record(map(record, range(3, 5)), path))
    assert steps(path) == [0, 1, 2, 3, 4]


def test_a_file_that_is_something_else_is_named_and_left_alone(tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text("name,age\nAda,36\n")
    asked = []
    records = (asked.append(1) or record(0) for _ in range(1))
    with pytest.raises(ValueError, match=r"mine.csv has other columns.*'name', 'age'"):
        runlog.record(records, path)
    assert path.read_text() == "name,age\nAda,36\n" and not asked
    assert [p.name for p in tmp_path.iterdir()] == ["mine.csv"]
    with pytest.raises(ValueError, match="mine.csv, line 2: .*'Ada'"):
        runlog.load(path)


def test_missing_and_empty_files(tmp_path):
    with pytest.raises(FileNotFoundError, match="no recorded run .*none.csv"):
        runlog.load(tmp_path / "none.csv")
    path = tmp_path / "log.csv"
    path.touch()
    assert runlog.load(path) == []
    list(runlog.record([record(0)], path))
    assert steps(path) == [0]


def test_provenance_says_where_the_numbers_come_from(tmp_path):
    path = tmp_path / "log.csv"
    config = dataclasses.asdict(Config())
    iterator = runlog.record(map(record, range(4)), path, config=config, model=path, seeds=(1, 2))
    early = json.loads(path.with_suffix(".json").read_text())  # before the first step: for kills
    assert early["config"] == config and early["seconds"] == 0
    list(iterator)
    about = json.loads(path.with_suffix(".json").read_text())
    assert about["config"] == config and about["seeds"] == [1, 2] and about["model"] == str(path)
    assert about["seconds"] == 2.0  # four steps of half a second
    assert re.fullmatch(r"[0-9a-f]{12,}(-dirty)?|unknown", about["commit"])
    assert about["torch"] == torch.__version__ and about["threads"] == torch.get_num_threads()
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", about["date"]) and about["python"] and about["device"]
    list(runlog.record(map(record, range(4, 6)), path))
    assert json.loads(path.with_suffix(".json").read_text())["seconds"] == 3.0, "of all restarts"


def test_where_there_is_no_git_the_commit_is_unknown(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert runlog.provenance()["commit"] == "unknown"


def test_closing_it_closes_the_run(tmp_path):
    iterator = runlog.record(killable_runs.start(folder=tmp_path / "run"), tmp_path / "log.csv")
    next(iterator)
    iterator.close()
    assert killable_runs.newest(tmp_path / "run").name == "step-000001"
    assert steps(tmp_path / "log.csv") == [0]


@pytest.mark.parametrize("place", ["_append", "_begin"])
@pytest.mark.parametrize("after", [False, True])
def test_ctrl_c_while_a_row_is_written_leaves_every_row_once(place, after, tmp_path, monkeypatch):
    original, calls = getattr(runlog, place), []

    def interrupted(*args, **kwargs):
        calls.append(1)
        if after:
            original(*args, **kwargs)
        if len(calls) == 1:
            raise KeyboardInterrupt
        if not after:
            original(*args, **kwargs)

    folder, path = tmp_path / "run", tmp_path / "log.csv"
    monkeypatch.setattr(runlog, place, interrupted)
    with pytest.raises(KeyboardInterrupt):
        list(runlog.record(killable_runs.start(folder=folder, steps=3), path))
    assert killable_runs.newest(folder).name == "step-000001" and steps(path) == [0]
    list(runlog.record(killable_runs.start(folder=folder, steps=3), path))
    assert steps(path) == [0, 1, 2]


def test_a_progress_bar_takes_the_iterator_as_it_is(tmp_path, capsys):
    with tqdm(killable_runs.start(folder=tmp_path, steps=3), total=3) as bar:
        rewards = [one.reward for one in bar]
    assert len(rewards) == 3 and "3/3" in capsys.readouterr().err
    assert killable_runs.newest(tmp_path).name == "step-000003"
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
