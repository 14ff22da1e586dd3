"""Readings reach every sink that is asked for, and none of them can end a training."""

from __future__ import annotations

import json
import sys
from types import ModuleType, SimpleNamespace

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from colbuild.errors import BuildError
from colbuild.train.loop.training_state import Reading
from colbuild.train.watching import tracking as module
from colbuild.train.watching.measure import HeldOut
from colbuild.train.watching.tracking import tracking

SETTINGS = {"batch": 4, "seed": None, "loss": {"type": "jsd", "kd_weight": 0.9}, "optimizer": {"betas": [0.9, 0.95]}}
FLAT = {"batch": 4, "loss.type": "jsd", "loss.kd_weight": 0.9, "optimizer.betas": "[0.9, 0.95]"}


def reading(step, loss=3.5):
    return Reading(step=step, loss=loss, kl=1.5, ce=4.0, lr=1e-3, norm=0.5, hidden=0.25)


def told(metrics, track=(), steps=2):
    """The tracker of a short training, when it has ended."""
    with tracking(metrics, track, SETTINGS) as tracker:
        for step in range(steps):
            tracker.reading(reading(step), tokens_per_second=700.0, seconds=1.0 + step)
        tracker.held_out(steps, HeldOut(3.25, 0.5))
    return tracker


@pytest.fixture
def metrics(tmp_path):
    return tmp_path / "run" / "distill a%2F76.metrics.jsonl"


@pytest.fixture(autouse=True)
def _no_servers(monkeypatch):
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_BASE_URL", "WANDB_DIR", "WANDB_PROJECT", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)


def lines(metrics):
    return [json.loads(line) for line in metrics.read_text().splitlines()]


# -- the file ---------------------------------------------------------------------------------------------------------


def test_each_reading_is_a_line_with_its_step(metrics):
    assert told(metrics).trouble == ""
    first, second, last = lines(metrics)
    assert first == {
        "step": 1, "kind": "train", "loss": 3.5, "kl": 1.5, "ce": 4.0, "hidden": 0.25, "lr": 1e-3, "norm": 0.5,
        "tokens_per_second": 700.0, "seconds": 1.0,
    }  # fmt: skip
    assert second["step"] == 2
    assert last == {"step": 2, "kind": "heldout", "loss": 3.25, "kl": 0.5}


def test_a_line_is_there_as_soon_as_it_is_told(metrics):
    with tracking(metrics, (), {}) as tracker:
        tracker.held_out(7, HeldOut(3.0))
        assert lines(metrics) == [{"step": 7, "kind": "heldout", "loss": 3.0}]


def test_a_second_run_adds_to_the_first(metrics):
    told(metrics, steps=1)
    told(metrics, steps=1)
    assert [line["step"] for line in lines(metrics)] == [1, 1, 1, 1]


def test_what_is_no_number_is_null(metrics):
    with tracking(metrics, (), {}) as tracker:
        tracker.reading(reading(0, loss=float("nan")), tokens_per_second=float("inf"), seconds=1.0)
    [line] = lines(metrics)
    assert line["loss"] is line["tokens_per_second"] is None


def test_a_file_that_cannot_be_written_is_told_and_ends_nothing(tmp_path, capsys):
    (tmp_path / "file").touch()
    tracker = told(tmp_path / "file" / "a.metrics.jsonl")
    assert tracker.trouble.startswith("a.metrics.jsonl no longer accepts readings: ")
    assert capsys.readouterr().err.count("Traceback") == 1


def test_without_a_file_nothing_is_kept(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert told(None, ["tensorboard"]).trouble == ""
    assert not list(tmp_path.iterdir())


# -- services ---------------------------------------------------------------------------------------------------------


def test_tensorboard_reads_what_was_written(metrics):
    assert told(metrics, ["tensorboard"]).trouble == ""
    folder = metrics.parent / "distill a%2F76.tracking" / "tensorboard"
    events = EventAccumulator(str(folder))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("train/loss")] == [(1, 3.5), (2, 3.5)]
    assert [(event.step, event.value) for event in events.Scalars("heldout/kl")] == [(2, 0.5)]
    assert len(lines(metrics)) == 3


class FakeWandb(ModuleType):
    """W&B as far as Accelerate calls it."""

    def __init__(self):
        super().__init__("wandb")
        self.options, self.logged, self.finished = {}, [], 0
        self.config = SimpleNamespace(update=lambda values, allow_val_change: self.options.update(config=values))

    def init(self, **options):
        self.options |= options
        return SimpleNamespace(log=self.log, finish=self.finish)

    def log(self, values, step):
        self.logged.append((step, values))

    def finish(self):
        self.finished += 1


@pytest.fixture
def wandb(monkeypatch):
    fake = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    return fake


def test_wandb_gets_readings_and_settings_and_stays_offline(metrics, wandb):
    assert told(metrics, ["wandb"]).trouble == ""
    folder = metrics.parent / "distill a%2F76.tracking"
    assert wandb.options == {
        "project": "colbuild", "name": "distill a/76", "dir": str(folder), "mode": "offline", "config": FLAT,
    }  # fmt: skip
    assert folder.is_dir()
    assert [step for step, _ in wandb.logged] == [1, 2, 2]
    assert wandb.logged[0][1]["train/loss"] == 3.5
    assert wandb.logged[2][1] == {"heldout/loss": 3.25, "heldout/kl": 0.5}
    assert wandb.finished == 1


@pytest.mark.parametrize("variable", ["WANDB_MODE", "WANDB_API_KEY", "WANDB_BASE_URL"])
def test_wandb_goes_where_the_environment_says(metrics, wandb, monkeypatch, variable):
    monkeypatch.setenv(variable, "x")
    monkeypatch.setenv("WANDB_PROJECT", "mine")
    told(metrics, ["wandb"])
    assert "mode" not in wandb.options
    assert wandb.options["project"] == "mine"


def test_a_service_that_fails_in_mid_run_is_told_once_and_the_rest_goes_on(metrics, wandb, monkeypatch, capsys):
    def log(values, step):
        wandb.logged.append(step)
        if step == 2:
            raise ConnectionError("no route\nto host")

    monkeypatch.setattr(wandb, "log", log)
    tracker = told(metrics, ["wandb"], steps=5)
    assert tracker.trouble == "wandb no longer accepts readings: no route"
    assert wandb.logged == [1, 2]
    assert wandb.finished == 0
    assert capsys.readouterr().err.count("Traceback") == 1
    assert len(lines(metrics)) == 6


def test_a_service_that_does_not_start_ends_nothing(metrics, wandb, monkeypatch):
    def init(**options):
        raise RuntimeError("who are you")

    monkeypatch.setattr(wandb, "init", init)
    assert told(metrics, ["wandb"]).trouble == "wandb no longer accepts readings: who are you"
    assert len(lines(metrics)) == 3


class FakeMLflow(ModuleType):
    """MLflow as far as Accelerate calls it."""

    def __init__(self):
        super().__init__("mlflow")
        self.uri, self.experiment, self.run, self.params, self.logged, self.ended = None, {}, {}, {}, [], 0
        limits = SimpleNamespace(MAX_PARAM_VAL_LENGTH=500, MAX_PARAMS_TAGS_PER_BATCH=100)
        self.utils = SimpleNamespace(validation=limits)

    def set_tracking_uri(self, uri):
        self.uri = uri

    def search_experiments(self, filter_string):
        return []

    def create_experiment(self, **options):
        self.experiment = options
        return "1"

    def start_run(self, **options):
        self.run = options

    def log_params(self, values):
        self.params |= values

    def log_metrics(self, values, step):
        self.logged.append((step, values))

    def end_run(self):
        self.ended += 1


@pytest.fixture
def mlflow(monkeypatch):
    fake = FakeMLflow()
    monkeypatch.setitem(sys.modules, "mlflow", fake)
    return fake


def test_mlflow_gets_readings_and_settings_in_a_database_of_its_own(metrics, mlflow):
    assert told(metrics, ["mlflow"]).trouble == ""
    place = metrics.parent / "distill a%2F76.tracking" / "mlflow"
    assert mlflow.uri == f"sqlite:///{place}/mlflow.db"
    assert (mlflow.experiment["name"], mlflow.run["run_name"]) == ("colbuild", "distill a/76")
    assert mlflow.params == FLAT
    assert [step for step, _ in mlflow.logged] == [1, 2, 2]
    assert mlflow.ended == 1


def test_mlflow_goes_where_the_environment_says(metrics, mlflow, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    told(metrics, ["mlflow"])
    assert mlflow.uri is None
    assert mlflow.experiment["artifact_location"] is None


@pytest.mark.parametrize("service", ["tensorboard", "wandb", "mlflow"])
def test_a_library_that_is_missing_is_an_error_with_the_command_to_get_it(metrics, monkeypatch, service):
    monkeypatch.setitem(sys.modules, module._SERVICES[service].module, None)
    with pytest.raises(BuildError, match=f"track names {service}, which cannot be imported") as caught:
        told(metrics, [service])
    assert caught.value.hint == f"pip install {service}, or take {service} out of track"
    assert not metrics.exists()


def test_a_training_that_fails_ends_its_sinks(metrics, wandb):
    with pytest.raises(ZeroDivisionError), tracking(metrics, ["wandb"], {}):
        raise ZeroDivisionError
    assert wandb.finished == 1
