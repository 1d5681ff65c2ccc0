"""Training of the embedded models: it learns, it can be interrupted, it leaves no broken file."""

from __future__ import annotations

import pytest
import torch

from qkutils import scenes
from qkutils.tiny import architecture, train
from qkutils.tiny.config import Config
from qkutils.tiny.evaluate import accuracy

SHORT = Config(steps=6, batch=8, warmup=2)


class Interrupted(Exception):
    pass


def equal(one, other) -> bool:
    return all(
        torch.equal(a, b)
        for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    )


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    """A short run from beginning to end, and its losses."""
    return train.train(SHORT, tmp_path_factory.mktemp("run") / "run.pt")


def interrupt_at(monkeypatch, step: int) -> None:
    """Makes the run end with an error when it asks for the scenes of this step."""

    def make(seed, start, stop, **how):
        if start == step * SHORT.batch:
            raise Interrupted
        return scenes.make(seed, start, stop, **how)

    monkeypatch.setattr(train, "scenes", type("Scenes", (), {"make": staticmethod(make)}))


def test_a_handful_of_scenes_is_learnt_by_heart(monkeypatch, tmp_path):
    few = scenes.make(train.TRAINING_SCENES, 0, 16)
    world = type("Scenes", (), {"make": staticmethod(lambda *_, **__: few)})
    monkeypatch.setattr(train, "scenes", world)
    _, losses = train.train(Config(steps=30, batch=16, warmup=5), tmp_path / "run.pt")
    assert len(losses) == 30
    assert losses[0] > 3 and losses[-1] < losses[0] / 2


def test_every_step_sees_new_scenes(monkeypatch, tmp_path):
    asked = []

    def make(seed, start, stop, **how):
        asked.append((seed, start, stop))
        return scenes.make(seed, start, stop, **how)

    monkeypatch.setattr(train, "scenes", type("Scenes", (), {"make": staticmethod(make)}))
    train.train(SHORT, tmp_path / "run.pt")
    assert asked == [(train.TRAINING_SCENES, 8 * n, 8 * n + 8) for n in range(6)]


@pytest.mark.parametrize("step", [1, 4, 5])
def test_a_resumed_run_equals_an_unbroken_one(unbroken, monkeypatch, tmp_path, step):
    path = tmp_path / "run.pt"
    with monkeypatch.context() as patch:
        interrupt_at(patch, step)
        with pytest.raises(Interrupted):
            train.train(SHORT, path, save_every=2)
    assert path.exists() == (step >= 2)
    net, losses = train.train(SHORT, path, save_every=2)
    assert losses == unbroken[1]
    assert equal(net, unbroken[0])


def test_a_finished_run_is_not_trained_again(unbroken, monkeypatch, tmp_path):
    path = tmp_path / "run.pt"
    train.train(SHORT, path)
    interrupt_at(monkeypatch, 0)
    net, losses = train.train(SHORT, path)
    assert losses == unbroken[1] and equal(net, unbroken[0])


def test_another_seed_is_another_run(unbroken, tmp_path):
    net, losses = train.train(Config(seed=1, steps=1, batch=8), tmp_path / "run.pt")
    assert losses[0] != unbroken[1][0] and not equal(net, unbroken[0])


def test_a_checkpoint_of_another_run_is_refused(tmp_path):
    path = tmp_path / "run.pt"
    train.train(Config(steps=1, batch=2), path)
    with pytest.raises(ValueError, match=r"run\.pt belongs to the run .*; name another file"):
        train.train(Config(steps=2, batch=2), path)


def test_an_interruption_while_saving_leaves_the_checkpoint_before_it(
    unbroken, monkeypatch, tmp_path
):
    path, saves, save = tmp_path / "run.pt", [], torch.save

    def cut_short(state, where):
        saves.append(where)
        save(state, where)
        if len(saves) == 2:
            where.write_bytes(where.read_bytes()[:1000])
            raise Interrupted

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", cut_short)
        with pytest.raises(Interrupted):
            train.train(SHORT, path, save_every=2)
    assert len(torch.load(path, weights_only=True)["losses"]) == 2
    net, losses = train.train(SHORT, path, save_every=2)
    assert losses == unbroken[1] and equal(net, unbroken[0])
    assert [p.name for p in tmp_path.iterdir()] == ["run.pt"]


def test_learning_rate_warms_up_and_ends_near_zero():
    rates = [train.learning_rate(step, Config(steps=100, warmup=10)) for step in range(100)]
    assert rates[:10] == sorted(rates[:10]) and rates[10:] == sorted(rates[10:], reverse=True)
    assert max(rates) == pytest.approx(1e-3) and rates[-1] < 1e-6


def test_an_untrained_model_guesses_at_chance():
    found = accuracy(architecture.build().eval(), count=600, batch=200)
    for name, chance in (("class", 1 / 36), ("kind", 1 / 6), ("colour", 1 / 6)):
        assert chance / 2.5 < found[name] < 2.5 * chance


def test_accuracy_counts_what_is_right():
    labels = scenes.draw(2_000_000, 0, 48).label
    guesses = labels.clone()
    guesses[::4] = labels[::4] % 6  # takes every fourth object for a ball of its colour
    net, batches = architecture.build(), iter(guesses.split(16))
    net.forward = lambda images: torch.nn.functional.one_hot(next(batches), 36).float()
    wrong = int((guesses != labels).sum())
    found = accuracy(net, count=48, batch=16)
    assert found["colour"] == 1 and wrong > 3
    assert found["class"] == found["kind"] == pytest.approx(1 - wrong / 48)


def test_building_a_model_leaves_the_random_state():
    before = torch.get_rng_state()
    one, other = architecture.build(0), architecture.build(1)
    assert torch.equal(torch.get_rng_state(), before)
    assert equal(one, architecture.build(0)) and not equal(one, other)
