"""Training on photographs of birds, from the command to the file, on a few made-up pictures."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import log_softmax
from small_birds import FEW, SETTINGS, SMALL, TINY
from small_runs import killed_at, shrunk

from mcunc import data, predictive, pretrained, recorded, training
from mcunc._internal import weight_deltas
from mcunc.dropout import keyed_masks, sample_logits
from mcunc.pretrained import fine_tuned
from mcunc.pretrained import photograph_network as network_of
from mcunc.probes import Standardiser, fit_probes
from mcunc.runs import birds as birds_run
from mcunc.runs.birds import VARIANTS, run_birds

small_run = shrunk(*SMALL)


@cache
def built(name, variant):
    """A network of the book, for several tests to look at."""
    return network_of(pretrained.SETTINGS[name], variant, 0.2, 5, seed=3).eval()


def places(network):
    kinds = torch.nn.modules.dropout._DropoutNd
    return [k for k, m in network.named_modules() if isinstance(m, kinds) and m.p > 0]


@pytest.mark.parametrize(
    ("name", "last", "all_"), [("googlenet", 12, 57), ("efficientnet_lite0", 13, 49)]
)
def test_dropout_is_where_the_variant_says(name, last, all_):
    """GoogLeNet has 57 convolutions, six in a block; Lite0 49, three in a block; and the head."""
    if name == "efficientnet_lite0":
        pytest.importorskip("efficientnet_lite_pytorch")
    found = {variant: places(built(name, variant)) for variant in VARIANTS}
    assert [len(found[variant]) for variant in VARIANTS] == [0, 1, last + 1, all_ + 1]
    for variant in VARIANTS[1:]:
        assert found[variant][-1] == "head.dropout"
    assert set(found["last"]) < set(found["everywhere"])


def test_all_variants_begin_with_the_same_weights():
    x = torch.rand(2, 3, 64, 64)
    first = built("googlenet", "standard")(x)
    for variant in VARIANTS[1:]:
        torch.testing.assert_close(built("googlenet", variant)(x), first)


def test_settings_are_sound():
    for setting in pretrained.SETTINGS.values():
        assert isinstance(setting.recipe, training.Recipe)
    assert (
        pretrained.SETTINGS["googlenet"].recipe.freeze_batchnorm is False
    )  # which have yet to be learned


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_run_from_end_to_end(variant, tmp_path):
    drop = None if variant == "standard" else 0.3
    path = run_birds("tiny", variant, drop, seed=2, folder=tmp_path)
    run = recorded.load(path)
    _, test = data.cub200_split(FEW.labels, 2)
    np.testing.assert_array_equal(run["cases"], test)
    np.testing.assert_array_equal(run["labels"], FEW.labels[test])
    assert run["history"].shape == (2, 4)
    network = network_of(TINY, variant, 0.3, 5, seed=2).eval()
    saved = torch.load(next(tmp_path.glob("*.pt")), weights_only=True)
    network.load_state_dict(saved["network"])
    logits = training.predict_logits(network, FEW.images[test])
    assert_allclose(run["off_log_probs"], log_softmax(logits, axis=1), atol=0.01)
    train, _ = data.cub200_split(FEW.labels, 2)
    log_probs = log_softmax(training.predict_logits(network, FEW.images[train]), axis=1)
    own = -log_probs[np.arange(90), FEW.labels[train]].mean()
    assert run["learned_loss"] == pytest.approx(own, abs=1e-4)
    right = log_probs.argmax(axis=1) == FEW.labels[train]
    assert run["learned_accuracy"] == pytest.approx(right.mean())
    assert ("--drop" in run.record["command"]) == (variant != "standard")
    if variant == "standard":
        assert "log_probs" not in run.arrays
        return
    summary = predictive.summarise_classes(logits=sample_logits(network, FEW.images[test], 6))
    assert_allclose(np.exp(run["log_probs"]), summary.mean, atol=0.01)
    assert_allclose(run["mutual_information"], summary.mutual_information, atol=0.01)
    probs = np.exp(run["label_log_probs"]).mean(axis=0)
    assert_allclose(-np.log(probs).mean(), run["loss_of_draws"][-1], atol=0.01)
    own = -run["log_probs"][np.arange(10), FEW.labels[test]].mean()
    assert run["loss_of_draws"][-1] == pytest.approx(own, abs=0.01)
    assert run.record["command"].startswith(
        f"python -m mcunc run birds --network tiny --variant {variant}"
    )


def test_the_command_tells_processes_and_device(monkeypatch):
    """BatchNorm that learns sees in each process its own part of a batch."""
    run = birds_run.Run("tiny", seed=1)
    assert " run birds --network tiny " in birds_run._record(run, [], "cpu", FEW)["command"]
    monkeypatch.setattr(birds_run.distributed, "rank_and_world_size", lambda: (0, 3))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"GPU {device.index}")
    record = birds_run._record(run, [], "cuda:1", FEW)
    assert record["gpu"] == "GPU 1"
    command = record["command"]
    assert command.startswith("torchrun --nproc-per-node 3 -m mcunc run birds --network tiny ")
    assert command.endswith(" --seed 1 --device cuda")


def test_the_inner_split_leaves_the_tenth_alone(tmp_path, monkeypatch):
    seen = []
    original = training.fit_minibatches

    def fit(network, images, labels, *options):
        seen.append(images)
        return original(network, images, labels, *options)

    monkeypatch.setattr(training, "fit_minibatches", fit)
    inner = recorded.load(run_birds("tiny", inner=True, folder=tmp_path, epochs=1))
    train, test = data.cub200_split(FEW.labels, 0)
    assert set(inner["cases"].tolist()) < set(train)
    judged = {picture.tobytes() for picture in FEW.images[test]}
    assert not any(picture.tobytes() in judged for picture in seen[0])
    assert len(seen[0]) + len(inner["cases"]) == len(train)
    assert "--inner" in inner.record["command"]
    assert not list(tmp_path.glob("*-weights*"))


def test_members_of_an_ensemble_share_the_split_and_nothing_else(tmp_path):
    runs = [
        recorded.load(run_birds("tiny", folder=tmp_path, epochs=1, seed=seed, split=2))
        for seed in (2, 3)
    ]
    assert_array_equal(runs[0]["cases"], runs[1]["cases"])
    assert not np.allclose(runs[0]["off_log_probs"], runs[1]["off_log_probs"], atol=0.01)
    assert " --split" not in runs[0].record["command"]  # seed 2 splits that way by itself
    assert " --seed 3 --split 2" in runs[1].record["command"]
    own = recorded.load(run_birds("tiny", folder=tmp_path, epochs=1, seed=3))
    assert set(own["cases"].tolist()) != set(runs[1]["cases"].tolist())


def test_a_standard_run_has_no_probability_to_drop(tmp_path):
    assert recorded.load(run_birds("tiny", folder=tmp_path)).record["drop"] == 0
    with pytest.raises(ValueError, match=r"^drop: the standard network has no dropout; choose"):
        run_birds("tiny", drop=0.1, folder=tmp_path)


def test_a_run_that_was_killed_ends_with_the_same_weights(tmp_path, monkeypatch):
    whole = recorded.load(run_birds("tiny", "last", folder=tmp_path / "whole"))
    killed_at(2, monkeypatch, training, "_one_epoch")
    with pytest.raises(KeyboardInterrupt):
        run_birds("tiny", "last", folder=tmp_path / "parts")
    parts = recorded.load(run_birds("tiny", "last", folder=tmp_path / "parts"))
    for name, array in whole.arrays.items():
        np.testing.assert_array_equal(parts.arrays[name], array)
    weights = [
        torch.load(next((tmp_path / part).glob("*.pt")), weights_only=True)["network"]
        for part in ("whole", "parts")
    ]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


@pytest.mark.parametrize(
    ("given_", "name"),
    [({"network": "vgg"}, "network"), ({"variant": "half"}, "variant"),
     ({"variant": "head", "drop": 1.5}, "drop"),
     ({"seed": -1}, "seed"), ({"size": 3}, "size"), ({"epochs": 0}, "epochs"),
     ({"rate": -1}, "learning_rate"), ({"decay": -1}, "weight_decay"),
     ({"device": "gpu"}, "device"),
     ({"folder": 3}, "folder")],
)  # fmt: skip
def test_wrong_arguments_are_named_before_anything_is_read(given_, name, monkeypatch):
    given_ = {"network": "tiny"} | given_
    monkeypatch.setattr(data, "cub200", None)
    with pytest.raises(ValueError, match=f"^{name}: "):
        run_birds(**given_)


def test_a_recorded_network_says_what_the_trained_one_said(tmp_path, monkeypatch):
    settings = {"tiny": replace(TINY, probe=True)}
    monkeypatch.setattr(birds_run, "SETTINGS", settings)
    monkeypatch.setattr(birds_run, "learn_head", lambda *given_: None)  # whatever it begins from
    path = run_birds("tiny", "last", 0.3, folder=tmp_path)
    network = fine_tuned(tmp_path / path.stem, settings, classes=5)
    assert places(network) == places(network_of(TINY, "last", 0.3, 5))
    run = recorded.load(path)
    logits = training.predict_logits(network, FEW.images[run["cases"]])
    assert_allclose(log_softmax(logits, axis=1), run["off_log_probs"], atol=0.1)
    trained = torch.load(next(tmp_path.glob("*.pt")), weights_only=True)["network"]
    before = network_of(TINY, "last", 0.3, 5).state_dict()
    for name, value in network.named_parameters():
        step = (trained[name] - before[name]).abs().max() / weight_deltas.LEVELS
        assert step > 0, name
        if "head" not in name:
            assert (value - trained[name]).abs().max() <= 0.51 * step, name


@pytest.mark.parametrize("changed", [{"ramp": 0.5}, {"last": ("features.3",)}, {"probe": True}])
def test_a_run_is_not_continued_under_another_setting(changed, tmp_path, monkeypatch):
    """Of which the weights in a checkpoint, and its name, know nothing."""
    run_birds("tiny", "last", 0.3, folder=tmp_path)
    monkeypatch.setitem(SETTINGS, "tiny", replace(TINY, **changed))
    with pytest.raises(ValueError, match=r"^checkpoint: .* is of another setting"):
        run_birds("tiny", "last", 0.3, folder=tmp_path)


@pytest.mark.parametrize("ramp", [0, 0.5])
def test_probabilities_to_drop_rise_and_stay(ramp):
    network = built("googlenet", "last")
    head, seen = network.head.dropout, []
    masks = birds_run.ramped(network, keyed_masks(0), ramp * 8)
    for step in range(8):
        with masks(step, 0, 4):
            seen.append(head.p)
    rising = [0.05, 0.1, 0.15] if ramp else [0.2] * 3
    assert_allclose(seen, [*rising, *[0.2] * 5])


def test_the_head_learned_alone_is_that_of_the_features():
    network = network_of(TINY, "last", 0.3, 5).eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    birds_run.learn_head(network, FEW.images, FEW.labels, seed=1)
    with torch.no_grad():
        maps = network.features((torch.tensor(FEW.images) / 255 - network.mean) / network.std)
    x = maps.mean(dim=(2, 3)).numpy()
    standardise = Standardiser(x)
    args = FEW.labels, 5, [0], [birds_run.PROBE_DECAY], 1
    (weight,) = fit_probes(standardise(x), *args)
    logits = training.predict_logits(network, FEW.images)
    assert_allclose(logits, standardise(x) @ weight, atol=1e-3)
    assert (logits.argmax(axis=1) == FEW.labels).mean() > 0.9
    after = network.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"head.weight", "head.bias"}


def test_a_run_with_a_probe_begins_from_it_and_resumes(tmp_path, monkeypatch):
    monkeypatch.setitem(SETTINGS, "tiny", replace(TINY, probe=True, ramp=0.5))
    run = recorded.load(run_birds("tiny", "last", 0.3, folder=tmp_path, rate=1e-9))
    assert run["history"][0, 3] > 0.9  # next to nothing was learned after the probe
    monkeypatch.setattr(birds_run, "learn_head", None)  # not asked again
    again = recorded.load(run_birds("tiny", "last", 0.3, folder=tmp_path, rate=1e-9))
    np.testing.assert_array_equal(again["off_log_probs"], run["off_log_probs"])
