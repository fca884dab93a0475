"""birdwatch: the posterior is the truth, and the pictures carry exactly what it assumes."""

import os
import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage, stats

from mcunc import birdwatch as bw
from mcunc import recorded
from mcunc.birdwatch import scene
from mcunc.pretrained import load_network

NUISANCES = list(scene._NUISANCES)


@pytest.fixture(scope="module")
def birds():
    return bw.draw_birds(300, seed=11)


@pytest.fixture(scope="module")
def latents():
    return bw.draw_latents(300_000, seed=5)


@pytest.fixture(scope="module")
def extremes():
    """Birds at the corners of the range of every nuisance that moves the breast or the leaf."""
    latents = bw.draw_latents(256, seed=2)
    corners = np.indices((2,) * 8).reshape(8, -1)
    moving = ("x", "y", "scale", "tilt", "leaf_x", "leaf_y", "leaf_angle")
    for corner, name in zip(corners, moving, strict=False):
        latents[name] = np.array(scene._NUISANCES[name])[corner]
    latents["covered"], latents["leaf"] = corners[-1] == 1, 1.0
    return latents


def posterior_of(latents, **options):
    return bw.true_posterior(latents["hue"], latents["covered"], latents["pair"], **options)


# ---------------------------------------------------------------------------------- the truth


@pytest.mark.parametrize(("low", "high"), [(0.70, 0.72), (0.28, 0.30), (0.90, 0.92), (0.49, 0.50)])
def test_of_the_birds_given_probability_p_a_share_p_are_that_species(latents, low, high):
    posterior = posterior_of(latents)
    open_birds = ~latents["covered"]
    for sister in (0, 1):
        p = posterior[np.arange(len(latents)), 2 * latents["pair"] + sister]
        chosen = open_birds & (p >= low) & (p <= high)
        true = latents["label"][chosen] % 2 == sister
        assert chosen.sum() > 500
        error = np.sqrt((p[chosen] * (1 - p[chosen])).sum()) / chosen.sum()
        assert abs(true.mean() - p[chosen].mean()) < 6 * error  # of eight, in all 2e-8


@pytest.mark.parametrize("separation", [0.0, 0.5, 1.5, 3.0])
def test_the_best_possible_accuracy_is_the_one_of_two_normals(separation):
    latents = bw.draw_latents(100_000, seed=8, covered=0.0, separation=separation)
    posterior = posterior_of(latents, separation=separation)
    rate = (posterior.argmax(1) == latents["label"]).mean()
    expected = stats.norm.cdf(separation / 2)
    assert abs(rate - expected) < 6 * np.sqrt(expected * (1 - expected) / 1e5)  # of four: 8e-9


def test_covered_birds_split_evenly_between_the_sisters(latents):
    hidden = latents[latents["covered"]]
    golden = (hidden["label"] % 2).mean()
    assert abs(golden - 0.5) < 6 * 0.5 / np.sqrt(len(hidden))  # false alarms: 2e-9
    posterior = posterior_of(hidden[:1000])
    rows = np.arange(1000)
    for sister in (0, 1):
        assert (posterior[rows, 2 * hidden["pair"][:1000] + sister] == 0.5).all()


def test_the_posterior_is_the_ratio_of_the_normal_densities():
    hue = np.linspace(-125, 195, 97)
    for species, separation in ((2, 0.7), (8, 1.5), (12, 4.0)):
        for pair in range(species // 2):
            got = bw.true_posterior(hue, np.zeros(97, bool), np.full(97, pair), species, separation)
            means = 35 + 20 * separation * np.array([-0.5, 0.5])
            log_density = stats.norm.logpdf(hue[:, None], means, 20)
            odds = np.exp(log_density[:, 0] - log_density[:, 1])
            np.testing.assert_allclose(got[:, 2 * pair], odds / (1 + odds), rtol=1e-9, atol=1e-15)
            np.testing.assert_allclose(got.sum(axis=1), 1, rtol=1e-14)
            others = np.delete(got, [2 * pair, 2 * pair + 1], axis=1)
            assert (others == 0).all()


def test_the_hue_has_the_distribution_that_the_posterior_assumes(latents):
    for label in range(8):
        hue = latents["hue"][latents["label"] == label]
        mean = 35 + (15 if label % 2 else -15)
        assert stats.kstest(hue, stats.norm(mean, 20).cdf).pvalue > 1e-8  # of eight


def test_priors_are_equal(latents):
    assert stats.chisquare(np.bincount(latents["label"], minlength=8)).pvalue > 1e-7


def test_no_nuisance_depends_on_species_or_hue(latents):
    """Of 300,000 birds: p > 1e-9 of each, and correlations within 6.5 standard errors (1e-10)."""
    golden = latents["label"] % 2 == 1
    columns = {name: latents[name] for name in (*NUISANCES, "covered")}
    columns |= {f"background {k}": c for k, c in enumerate(latents["background"].T[:6])}
    for name, column in columns.items():
        column = column.astype(float)
        assert stats.ks_2samp(column[golden], column[~golden]).pvalue > 1e-9, name
        for other in (latents["hue"], latents["pair"]):
            assert abs(np.corrcoef(column, other)[0, 1]) < 6.5 / np.sqrt(len(latents)), name


def test_nuisances_are_the_same_draws_whatever_the_species_are():
    one = bw.draw_latents(50, seed=4)
    other = bw.draw_latents(50, seed=4, species=2, separation=3.0, unseen=True)
    for name in (*NUISANCES, "covered", "background"):
        np.testing.assert_array_equal(one[name], other[name])


# ---------------------------------------------------------------- the pictures carry just that


def test_a_covered_picture_is_the_same_to_the_last_bit_whatever_the_hue(extremes):
    hidden = extremes[extremes["covered"]]
    for size in (64, 96):
        part = hidden if size == 64 else hidden[::2]
        pictures = []
        for hue in (-130.0, 20.0, 50.0, 200.0):
            part = part.copy()
            part["hue"] = hue
            pictures.append(bw.render(part, size)[0])
        assert all((other == pictures[0]).all() for other in pictures[1:])


def test_a_covered_picture_is_the_same_for_both_sisters(birds):
    hidden = birds.latents[birds.covered].copy()
    before, _ = bw.render(hidden)
    hidden["label"] ^= 1
    np.testing.assert_array_equal(bw.render(hidden)[0], before)


@pytest.mark.parametrize("size", [64, 80])
def test_the_hue_moves_all_of_the_mask_and_nothing_else(extremes, size):
    shown = extremes[~extremes["covered"]].copy()
    shown["hue"] = 10.0
    one, masks = bw.render(shown, size)
    shown["hue"] = 70.0
    other, same = bw.render(shown, size)
    np.testing.assert_array_equal(masks, same)
    changed = (one != other).any(axis=-1)
    assert not (changed & ~masks).any()
    square = np.ones((1, 3, 3), bool)
    assert changed[ndimage.binary_erosion(masks, square)].all()
    # open means open: the leaf lies clear of the breast wherever it is
    shown["leaf"] = 0.0
    without, _ = bw.render(shown, size)
    np.testing.assert_array_equal(without[masks], other[masks])
    assert (without != other).any(axis=(1, 2, 3)).all()


def test_the_leaf_hides_every_pixel_of_the_mask(birds):
    hidden = bw.intervene(birds, covered=True)
    shown = bw.intervene(birds, covered=False, leaf=0.0)
    repainted = bw.intervene(hidden, hue=80.0)
    np.testing.assert_array_equal(hidden.pictures, repainted.pictures)
    np.testing.assert_array_equal(hidden.masks, shown.masks)
    assert (hidden.posterior[hidden.posterior > 0] == 0.5).all()


@pytest.mark.parametrize("size", [64, 100])
def test_the_hue_can_be_read_off_the_pixels(extremes, size):
    shown = extremes[~extremes["covered"]].copy()
    shown["hue"] = np.linspace(-130, 199.9, len(shown))
    pictures, masks = bw.render(shown, size)
    np.testing.assert_allclose(bw.read_hue(pictures, masks), shown["hue"], atol=0.01)
    assert pictures[masks].max() < 1
    assert pictures[masks].min() > 0
    eight, _ = bw.render(shown, size, eight_bit=True)
    np.testing.assert_allclose(bw.read_hue(eight, masks), shown["hue"], atol=0.25)


def test_the_posterior_follows_from_the_pixels_alone(birds):
    """Hue and cover enter the posterior only through what can be seen."""
    shown = ~birds.covered
    hue = bw.read_hue(birds.pictures[shown], birds.masks[shown])
    from_pixels = bw.true_posterior(hue, ~shown[shown], birds.latents["pair"][shown])
    np.testing.assert_allclose(from_pixels, birds.posterior[shown], atol=1e-3)


def test_eight_bit_pictures_hold_256_levels(birds):
    eight, _ = bw.render(birds.latents[:20], eight_bit=True)
    assert eight.dtype == np.float32
    np.testing.assert_allclose(eight * 255, np.round(eight * 255), atol=1e-4)
    assert abs(eight - birds.pictures[:20]).max() <= 0.5 / 255 + 1e-6


def test_pairs_differ_wherever_the_leaf_lies(extremes):
    """The pair is never in doubt: its plumage alone changes hundreds of pixels by much."""
    pictures = []
    for pair in range(8):
        part = extremes.copy()
        part["pair"], part["hue"] = pair, 35.0
        pictures.append(bw.render(part[::2])[0])
    for a in range(8):
        for b in range(a):
            far = np.abs(pictures[a] - pictures[b]).max(axis=-1) > 0.08
            assert far.sum(axis=(1, 2)).min() > 100, (a, b)


# -------------------------------------------------------------------------------- as a function


def test_shapes_types_and_ranges(birds):
    assert birds.pictures.shape == (300, 64, 64, 3)
    assert birds.pictures.dtype == np.float32
    assert birds.pictures.min() >= 0
    assert birds.pictures.max() <= 1
    assert birds.masks.shape == (300, 64, 64)
    assert birds.masks.dtype == bool
    assert birds.labels.min() == 0
    assert birds.labels.max() == 7
    assert birds.posterior.shape == (300, 8)
    assert birds.posterior.dtype == np.float64
    assert (birds.posterior[np.arange(300), birds.labels] > 0).all()
    area = birds.masks.sum(axis=(1, 2))
    assert area.min() > 60
    assert area.max() < 200


def test_torch_takes_every_array(birds):
    for name in ("pictures", "labels", "posterior", "hue", "covered", "masks"):
        array = getattr(birds, name)
        assert torch.as_tensor(array).shape == array.shape, name


def test_same_seed_same_birds_and_another_seed_others(birds):
    again = bw.draw_birds(300, seed=11)
    np.testing.assert_array_equal(again.pictures, birds.pictures)
    np.testing.assert_array_equal(again.latents, birds.latents)
    assert (bw.draw_birds(300, seed=12).labels != birds.labels).any()


def test_a_bird_does_not_depend_on_the_birds_it_is_drawn_with(birds):
    for k in (0, 7, 131, 299):
        pictures, masks = bw.render(birds.latents[k : k + 1])
        np.testing.assert_array_equal(pictures[0], birds.pictures[k])
        np.testing.assert_array_equal(masks[0], birds.masks[k])
    seen, unseen = bw.draw_latents(150, 3, species=12), bw.draw_latents(50, 3, unseen=True)
    crowd = np.concatenate([seen, unseen])
    for size in (64, 96):
        together, _ = bw.render(crowd, size)
        alone = np.concatenate([bw.render(crowd[k : k + 1], size)[0] for k in range(0, 200, 4)])
        np.testing.assert_array_equal(alone, together[::4])


def test_the_mirror_mirrors(birds):
    right = bw.intervene(birds, mirror=1.0)
    left = bw.intervene(birds, mirror=0.0)
    np.testing.assert_array_equal(left.pictures, right.pictures[:, :, ::-1])
    np.testing.assert_array_equal(left.masks, right.masks[:, :, ::-1])


def test_interventions_change_what_they_name_and_nothing_else(birds):
    moved = bw.intervene(birds, hue=np.linspace(0, 90, 300), brightness=0.9)
    for name in birds.latents.dtype.names:
        if name not in ("hue", "brightness"):
            np.testing.assert_array_equal(moved.latents[name], birds.latents[name])
    np.testing.assert_array_equal(moved.labels, birds.labels)
    np.testing.assert_array_equal(moved.hue, np.linspace(0, 90, 300))
    np.testing.assert_array_equal(bw.intervene(birds).pictures, birds.pictures)
    sweep = bw.intervene(replace(birds, latents=birds.latents[:5]), hue=20, covered=False)
    assert sweep.posterior.max() == pytest.approx(
        stats.norm.pdf(0) / (stats.norm.pdf(0) + stats.norm.pdf(1.5))
    )


def test_unseen_species_have_no_posterior_and_their_own_labels():
    birds = bw.draw_birds(40, seed=1, unseen=True)
    assert set(birds.labels) == {8, 9, 10, 11}
    assert birds.posterior.shape == (40, 8)
    assert np.isnan(birds.posterior).all()
    names = bw.species_names(unseen=True)
    assert len(names) == 12
    assert len(set(names)) == 12
    assert names[:2] == ["ruddy chickadee", "golden chickadee"]
    assert bw.species_names(unseen=True)[:8] == bw.species_names()


@pytest.mark.parametrize(("kind", "seed"), [("test", 10_000), ("unseen", 20_000)])
def test_the_drawing_is_the_one_that_recorded_networks_were_trained_and_judged_on(kind, seed):
    """Stored log probabilities are half precision: within 2⁻¹¹ of values up to some 20."""
    run = recorded.load("birdwatch-dropout")
    stored = run[f"{kind}_log_probs"][2, 0, 0]  # 4,000 birds, no dropout, the first network
    latents = bw.draw_latents(len(stored), seed=seed, unseen=kind == "unseen")[:100]
    pictures, _ = bw.render(latents, eight_bit=True)
    with torch.no_grad():
        logits = load_network(run, "standard")(torch.from_numpy(pictures).permute(0, 3, 1, 2))
    expected = torch.log_softmax(logits, dim=1).numpy()
    np.testing.assert_allclose(stored[:100], expected, atol=0.01, rtol=2**-10)


# -------------------------------------------------------------------------------- refused input


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("n", 0), ("n", -3), ("n", 2.5), ("n", True), ("seed", -1), ("seed", "a"),
        ("covered", -0.1), ("covered", 1.1), ("covered", float("nan")), ("covered", "often"),
        ("species", 7), ("species", 14), ("species", 0), ("separation", -1), ("separation", 4.5),
        ("size", 63), ("size", 513), ("size", 64.0),
    ],
)  # fmt: skip
def test_bad_arguments_are_named(name, value):
    with pytest.raises(ValueError, match=f"^{name}:"):
        bw.draw_birds(**({"n": 2} | {name: value}))


@settings(max_examples=60, deadline=None)
@given(st.floats(), st.sampled_from(["hue", "scale", "leaf_x", "covered", "label"]))
def test_interventions_outside_the_drawn_range_are_refused(value, name):
    birds = bw.draw_birds(1)
    low, high = bw.HUE_RANGE if name == "hue" else scene._NUISANCES.get(name, (np.inf, -np.inf))
    if low <= value <= high:
        assert bw.intervene(birds, **{name: value}).latents[name][0] == value
    else:
        with pytest.raises(ValueError, match=name):
            bw.intervene(birds, **{name: value})


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.floats() | st.floats(-130, 200), max_size=4), st.integers(0, 4), st.integers(-2, 6)
)
def test_the_posterior_is_a_distribution_or_the_input_is_refused(hue, length, pair):
    covered, pairs = np.zeros(length, bool), np.full(len(hue), pair)
    low, high = bw.HUE_RANGE
    if not hue or not all(low <= h <= high for h in hue) or length != len(hue) or pair < 0:
        with pytest.raises(ValueError, match=r"^(hue|covered|pair):"):
            bw.true_posterior(hue, covered, pairs)
    elif pair > 3:
        assert np.isnan(bw.true_posterior(hue, covered, pairs)).all()
    else:
        posterior = bw.true_posterior(hue, covered, pairs)
        assert (posterior >= 0).all()
        np.testing.assert_allclose(posterior.sum(axis=1), 1, rtol=1e-12)


def test_read_hue_refuses_what_it_cannot_read(birds):
    pictures, masks = birds.pictures[:2], birds.masks[:2]
    bad = [
        ("pictures", pictures[..., :2], masks), ("pictures", pictures[0], masks),
        ("masks", pictures, masks[:1]), ("masks", pictures, masks.astype(int)),
        ("masks", pictures, masks & False), ("pictures", pictures * 0 + 0.5, masks),
        ("pictures", pictures * np.nan, masks),
    ]  # fmt: skip
    for name, picture, mask in bad:
        with pytest.raises(ValueError, match=f"^{name}:"):
            bw.read_hue(picture, mask)


def test_render_refuses_anything_but_latents(birds):
    for bad in (birds, birds.latents[:0], np.zeros(3), None, birds.latents[:4].reshape(2, 2)):
        with pytest.raises(ValueError, match=r"^latents:"):
            bw.render(bad)


@pytest.mark.parametrize("threads", [0, 1])
def test_without_threads_the_pictures_are_the_same(birds, threads, monkeypatch):
    """As in a browser, or where a process may start no more of them."""
    several = np.tile(birds.latents[:20], 20)
    pictures, masks = bw.render(several)
    start, left = threading.Thread.start, [threads]

    def refuse(thread):
        if not left[0]:
            raise RuntimeError("can't start new thread")
        left[0] -= 1
        start(thread)

    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    monkeypatch.setattr(threading.Thread, "start", refuse)
    again = bw.render(several)
    np.testing.assert_array_equal(again[0], pictures)
    np.testing.assert_array_equal(again[1], masks)
