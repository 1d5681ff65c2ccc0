"""Training of the embedded models: it learns, it can be interrupted, it leaves no broken file."""

from __future__ import annotations

import errno
import math
import os
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file
from timm.models.vision_transformer import VisionTransformer

import qkutils as qk
from qkutils import models, store
from qkutils.world.training import architecture, evaluate, objectives, publish, train
from qkutils.world.training.train import Config

SHORT = Config(steps=6, batch=4, warmup=2)


class Interrupted(Exception):
    pass


def equal(one, other) -> bool:
    return all(
        torch.equal(a, b)
        for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    )


@pytest.fixture(scope="module", autouse=True)
def shallow():
    """The architecture with two of its eight blocks, so that training is quick."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            architecture,
            "VisionTransformer",
            lambda *sizes, **how: VisionTransformer(*sizes, **how | {"depth": 2}),
        )
        yield


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    """A short run from beginning to end, and its losses."""
    return train.train(SHORT, tmp_path_factory.mktemp("run") / "run.pt")


def interrupt_at(monkeypatch, step: int) -> None:
    """Makes the run end with an error when it asks for the scenes of this step."""

    def make(seed, start, stop, **how):
        if start == step * SHORT.batch:
            raise Interrupted
        return qk.world.make(seed, start, stop, **how)

    monkeypatch.setattr(train, "world", type("Scenes", (), {"make": staticmethod(make)}))


def test_a_handful_of_scenes_is_learnt_by_heart(monkeypatch, tmp_path):
    few = qk.world.make(train.TRAINING_SCENES, 0, 4)
    world = type("Scenes", (), {"make": staticmethod(lambda *_, **__: few)})
    monkeypatch.setattr(train, "world", world)
    _, losses = train.train(Config(steps=20, batch=4, warmup=5), tmp_path / "run.pt")
    assert len(losses) == 20
    assert losses[0] > 3 and losses[-1] < losses[0] / 2


def test_every_step_sees_new_scenes(monkeypatch, tmp_path):
    asked = []

    def make(seed, start, stop, **how):
        asked.append((seed, start, stop))
        return qk.world.make(seed, start, stop, **how)

    monkeypatch.setattr(train, "world", type("Scenes", (), {"make": staticmethod(make)}))
    train.train(SHORT, tmp_path / "run.pt")
    assert asked == [(train.TRAINING_SCENES, 4 * n, 4 * n + 4) for n in range(6)]


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
    net, losses = train.train(replace(SHORT, seed=1, steps=1), tmp_path / "run.pt")
    assert losses[0] != unbroken[1][0] and not equal(net, unbroken[0])


@pytest.mark.parametrize(
    ("change", "named"), [({"steps": 2}, "other steps"), ({"precision": "float32"}, "precision")]
)
def test_a_checkpoint_of_another_run_is_refused(tmp_path, change, named):
    path, config = tmp_path / "run.pt", Config(steps=1, batch=2)
    train.train(config, path)
    before = path.read_bytes()
    with pytest.raises(ValueError, match=f"run.pt.*{named}"):
        train.train(replace(config, **change), path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("kind", ["empty", "text", "cut short", "foreign", "other weights"])
def test_what_is_no_checkpoint_is_refused(tmp_path, kind):
    path, config = tmp_path / "run.pt", Config(steps=1, batch=2)
    train.train(config, path)
    state = torch.load(path, weights_only=True)
    if kind == "foreign":
        torch.save({"model": {"weight": torch.zeros(2)}}, path)
    elif kind == "other weights":
        torch.save(state | {"objective": {"net.weight": torch.zeros(2)}}, path)
    else:
        whole = path.read_bytes()
        path.write_bytes({"empty": b"", "text": b"no", "cut short": whole[:5000]}[kind])
    before = path.read_bytes()
    with pytest.raises(ValueError, match="run.pt"):
        train.train(config, path)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"precision": "bf16"}, "precision='bf16'"),
        ({"precision": "float16"}, "precision='float16'"),
        ({"steps": -1}, "steps=-1"),
        ({"steps": 0}, "steps=0"),
        ({"batch": 0}, "batch=0"),
        ({"warmup": 0}, "warmup=0"),
        ({"seed": -1}, "seed=-1"),
        ({"seed": 2**31}, "seed=2147483648"),
        ({"learning_rate": math.nan}, "learning_rate=nan"),
        ({"weight_decay": math.inf}, "weight_decay=inf"),
        ({"objective": "supervise"}, "objective='supervise'"),
        ({"objective": "untrained", "steps": -1}, "steps=-1"),
    ],
)
def test_what_no_run_can_have_is_refused(tmp_path, change, named):
    with pytest.raises(ValueError, match=named):
        train.train(replace(SHORT, **change), tmp_path / "run.pt")
    with pytest.raises(ValueError, match="save_every=0"):
        train.train(SHORT, tmp_path / "run.pt", save_every=0)
    assert not list(tmp_path.iterdir())


def test_where_nothing_can_be_written_no_step_is_made(tmp_path, monkeypatch):
    interrupt_at(monkeypatch, 0)
    (tmp_path / "file").write_text("")
    for place in (tmp_path, tmp_path / "file" / "run.pt"):
        with pytest.raises(OSError, match=place.name):
            train.train(SHORT, place)


def test_a_second_run_to_one_checkpoint_is_refused(tmp_path):
    path = tmp_path / "run.pt"
    with store.locked(path), pytest.raises(BlockingIOError, match=f"run.pt.*{os.getpid()}"):
        train.train(SHORT, path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("error", [Interrupted(), OSError(errno.ENOSPC, "No space left")])
def test_a_save_that_fails_leaves_the_checkpoint_before_it(unbroken, monkeypatch, tmp_path, error):
    path, saves, write = tmp_path / "run.pt", [], Path.write_bytes

    def cut_short(where, data):
        saves.append(where)
        write(where, data[:1000] if len(saves) == 2 else data)
        if len(saves) == 2:
            raise error

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", cut_short)
        with pytest.raises(type(error)):
            train.train(SHORT, path, save_every=2)
    assert [p.name for p in tmp_path.iterdir()] == ["run.pt"]
    assert len(torch.load(path, weights_only=True)["losses"]) == 2
    net, losses = train.train(SHORT, path, save_every=2)
    assert losses == unbroken[1] and equal(net, unbroken[0])
    assert [p.name for p in tmp_path.iterdir()] == ["run.pt"]


def test_learning_rate_warms_up_and_ends_near_zero():
    rates = [train.learning_rate(step, Config(steps=100, warmup=10)) for step in range(100)]
    assert rates[:10] == sorted(rates[:10]) and rates[10:] == sorted(rates[10:], reverse=True)
    assert max(rates) == pytest.approx(Config.learning_rate) and rates[-1] < 1e-6


def test_an_untrained_model_guesses_at_chance():
    found = evaluate.accuracy(architecture.build().eval(), count=96)
    for name, options in architecture.QUESTIONS.items():
        assert 1 / options / 3 < found[name] < 3 / options


def one_hot_answers(guess):
    """Logits of a network that gives these answers to the three questions."""
    options = architecture.QUESTIONS.values()
    answers = [
        torch.nn.functional.one_hot(g, n) for g, n in zip(guess.unbind(1), options, strict=True)
    ]
    return torch.cat(answers, 1).float()


def test_accuracy_counts_what_is_right():
    labels = qk.world.draw(evaluate.HELD_OUT_SCENES, 0, 48).label
    there = labels[:, 0] >= 0
    guesses = labels.clamp(min=0)
    guesses[::4, 0] = 0  # says ball
    guesses[::6, 2] = 3
    net = architecture.build()
    net.forward = lambda images: one_hot_answers(guesses)
    found = evaluate.accuracy(net, count=48)
    assert found["colour"] == 1
    assert found["kind"] == pytest.approx(float((guesses == labels)[there, 0].float().mean()))
    assert found["odd factor"] == pytest.approx(float((guesses == labels)[:, 2].float().mean()))
    assert found["kind"] < 1 and found["odd factor"] < 1


def test_the_loss_asks_for_kind_and_colour_only_where_something_is_odd():
    objective = objectives.Supervised(0)
    world = qk.world.make(0, 0, 4, odd=["none"])
    said = torch.zeros(4, architecture.CLASSES)
    said[:, :12] = 50 * torch.randn(4, 12)  # whatever it says of kind and colour
    said[:, 18] = 50.0  # and that nothing is odd
    objective.net.forward = lambda images: said
    assert objective(world, torch.Generator()) < 1e-3


def test_probes_read_what_features_hold(monkeypatch):
    net = architecture.build()
    blind = evaluate.probes(net, count=100)
    factors = qk.world.draw(evaluate.HELD_OUT_SCENES, 0, 600)
    bare = SimpleNamespace(image=torch.zeros(600, 3, 1, 1), factors=factors)
    answers = torch.nn.functional.one_hot(evaluate._usual(factors).clamp(min=0), 96).float()
    monkeypatch.setattr(evaluate, "_held_out", lambda count: [bare])
    monkeypatch.setattr(net, "forward_features", lambda _: answers[:, None].expand(-1, 65, -1))
    told = evaluate.probes(net, count=600)
    assert min(told.values()) > 0.97
    assert max(blind.values()) < 0.9


def test_masked_error_of_a_perfect_and_of_a_blind_guess(monkeypatch):
    objective = objectives.MaskedPixels(0)
    monkeypatch.setattr(objective, "predict", lambda image, mask: objectives.patches_of(image))
    found = evaluate.masked_error(objective, count=8)
    assert found["masked error"] == 0
    assert 0 < found["by interpolation"] < found["by median colour"]
    grey = objectives.MaskedPixels(0)
    monkeypatch.setattr(grey, "predict", lambda image, mask: 0 * objectives.patches_of(image))
    assert evaluate.masked_error(grey, count=8)["masked error"] > found["by median colour"]


def test_baselines_see_visible_patches_only():
    image = torch.zeros(1, 3, 64, 64)
    mask = torch.zeros(1, 64, dtype=torch.bool)
    mask[0, 9] = True  # row 1, column 1
    image[..., 8:16, 8:16] = 1.0
    for guess in evaluate._baselines(image, mask):
        assert (guess[0, 9] == 0).all()


def test_masks_hide_the_same_share_everywhere():
    mask = objectives.draw_mask(50, 64, torch.Generator().manual_seed(0))
    assert (mask.sum(1) == round(objectives.MASKED_SHARE * 64)).all()
    assert 0.3 < mask.float().mean(0).min() and mask.float().mean(0).max() < 0.9


def test_the_model_cannot_see_what_is_masked():
    objective = objectives.MaskedPixels(0).eval()
    image = torch.rand(2, 3, 64, 64)
    mask = objectives.draw_mask(2, 64, torch.Generator().manual_seed(1))
    hidden = torch.nn.functional.interpolate(mask.view(2, 1, 8, 8).float(), scale_factor=8)
    other = torch.where(hidden > 0, torch.rand_like(image), image)
    torch.testing.assert_close(objective.predict(image, mask), objective.predict(other, mask))


def test_crops_stay_inside_and_may_be_mirrored():
    generator = torch.Generator().manual_seed(0)
    ramp = torch.linspace(-1, 1, 64).expand(200, 3, 64, 64)
    square = objectives.crop(ramp, (0.3, 0.5), 32, generator)
    slope = square[:, 0, :, -1].mean(1) - square[:, 0, :, 0].mean(1)
    assert square.shape == (200, 3, 32, 32)
    assert 0.3 < (slope > 0).float().mean() < 0.7
    span = slope.abs() / (square[:, 0].amax((1, 2)) - square[:, 0].amin((1, 2)))
    assert span.min() > 0.9  # a ramp stays a ramp: nothing was mirrored at an edge


def test_a_network_that_takes_crops_is_the_plain_one_at_full_size():
    plain, net = architecture.build(classes=0).eval(), objectives.SelfDistillation(0).net.eval()
    image = torch.rand(2, 3, 64, 64)
    assert torch.equal(net(image), plain(image))
    assert net(image[..., :32, :32]).shape == (2, plain.embed_dim)


def test_the_teacher_follows_the_student():
    objective = objectives.SelfDistillation(0)
    with torch.no_grad():
        for p in objective.net.parameters():
            p.add_(1.0)
    before = [p.clone() for p in objective.teacher_net.parameters()]
    objective.after_step(0.0)
    for old, new in zip(before, objective.teacher_net.parameters(), strict=True):
        torch.testing.assert_close(new - old, torch.full_like(old, 0.01), atol=1e-4, rtol=0)
    objective.after_step(1.0)
    assert not any(p.requires_grad for p in objective.teacher_net.parameters())


@pytest.mark.parametrize("name", ["supervised", "simmim", "dino"])
def test_every_objective_learns_and_resumes(monkeypatch, tmp_path, name):
    few = qk.world.make(train.TRAINING_SCENES, 0, 4)
    world = type("Scenes", (), {"make": staticmethod(lambda *_, **__: few)})
    monkeypatch.setattr(train, "world", world)
    config = Config(name, steps=3 if name == "dino" else 8, batch=4, warmup=2)
    whole, losses = train.train(config, tmp_path / "whole.pt")
    if name != "dino":  # a teacher that moves makes no promise about so few steps
        assert sum(losses[-3:]) < sum(losses[:3])
    save, saves = torch.save, []

    def cut(state, where):
        if saves:
            raise Interrupted
        saves.append(where)
        save(state, where)

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", cut)
        with pytest.raises(Interrupted):
            train.train(config, tmp_path / "cut.pt", save_every=2)
    resumed, again = train.train(config, tmp_path / "cut.pt", save_every=2)
    assert again == losses and equal(whole, resumed)


def test_publishing_writes_weights_that_load_and_a_card(tmp_path, monkeypatch):
    monkeypatch.setattr(publish, "measure", lambda objective: {"accuracy": 0.5})
    for name in ("supervised", "simmim", "dino", "untrained"):
        objective = objectives.OBJECTIVES[name](3)
        path = publish.publish(objective, Config(name, seed=3), tmp_path)
        assert path.name == f"tiny-{name}-s3.safetensors"
        assert "| accuracy | 0.5000 |" in path.with_suffix(".md").read_text()
        assert publish.measured(path.stem, tmp_path).loc["accuracy"].tolist() == [0.5] * 3
        model = models.load(path)
        kept = objective.net.state_dict()
        for key, tensor in model.net.state_dict().items():
            torch.testing.assert_close(tensor, kept[key], atol=1e-3, rtol=1e-3)
    assert {path.suffix for path in tmp_path.iterdir()} == {".safetensors", ".md"}


def test_a_model_without_a_card_is_named():
    with pytest.raises(FileNotFoundError, match="nobody: no card in"):
        publish.measured("nobody")


def test_building_a_model_leaves_the_random_state():
    before = torch.get_rng_state()
    one, other = architecture.build(0), architecture.build(1)
    assert torch.equal(torch.get_rng_state(), before)
    assert equal(one, architecture.build(0)) and not equal(one, other)


def test_accuracy_can_be_asked_for_one_odd_factor():
    net = architecture.build()
    colour = torch.tensor([[0, 0, qk.world.ODD_FACTORS.index("colour")]])
    net.forward = lambda images: one_hot_answers(colour.expand(len(images), -1))
    assert evaluate.accuracy(net, 20, ["colour"])["odd factor"] == 1
    nothing = evaluate.accuracy(net, 20, ["none"])
    assert nothing["odd factor"] == 0 and math.isnan(nothing["kind"])


def test_all_objectives_of_a_seed_begin_with_the_same_network():
    one, other = architecture.build(4, classes=0), architecture.build(4)
    assert equal_where_both(one, other) and other.head.weight.std() > 0.01
    assert not equal_where_both(one, architecture.build(5))


def equal_where_both(one, other) -> bool:
    theirs = other.state_dict()
    return all(torch.equal(tensor, theirs[key]) for key, tensor in one.state_dict().items())


def test_training_on_begins_with_the_published_network(tmp_path, monkeypatch):
    monkeypatch.setattr(objectives, "FOLDER", tmp_path)
    with pytest.raises(FileNotFoundError, match="train it first with .* simmim --seed 3 --publish"):
        objectives.FineTuned(3)
    monkeypatch.setattr(publish, "measure", lambda objective: {"accuracy": 0.5})
    simmim = objectives.MaskedPixels(3)
    with torch.no_grad():
        simmim.net.blocks[0].attn.qkv.weight.mul_(3)
    publish.publish(simmim, Config("simmim", seed=3), tmp_path)
    tuned, continued = objectives.FineTuned(3).net, objectives.Continued(3).net
    for begun in (tuned, continued):
        mine, theirs = (net.blocks[0].attn.qkv.weight for net in (begun, simmim.net))
        torch.testing.assert_close(mine, theirs, atol=1e-3, rtol=1e-3)
    assert (tuned.num_classes, continued.num_classes) == (architecture.CLASSES, 0)


def test_the_card_of_a_model_trained_on_compares_it_with_an_untrained_one(tmp_path, monkeypatch):
    monkeypatch.setattr(objectives, "FOLDER", tmp_path)
    compared = []
    monkeypatch.setattr(publish, "measure", lambda o: compared.append(type(o)) or {"accuracy": 0.5})
    publish.publish(objectives.MaskedPixels(3), Config("simmim", seed=3), tmp_path)
    for kind, name in ((objectives.FineTuned, "supervised"), (objectives.Continued, "simmim")):
        made = kind(3)
        publish.publish(made, Config("x", seed=3), tmp_path)
        assert compared[-1] is objectives.OBJECTIVES[name] and compared[-3] is kind


def test_every_embedded_model_is_in_the_catalogue_and_fits_todays_world(monkeypatch):
    entries = models.catalogue()
    embedded = set(entries.index[entries.source == "embedded"])
    assert embedded == {path.stem for path in publish.FOLDER.glob("*.safetensors")}
    monkeypatch.setattr(architecture, "VisionTransformer", VisionTransformer)
    net = architecture.build().eval()
    net.load_state_dict(load_file(publish.FOLDER / "tiny-supervised.safetensors"))
    assert evaluate.accuracy(net, 64)["odd factor"] > 0.5
