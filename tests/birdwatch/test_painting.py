"""The pictures carry the hue, wherever the breast is open, and the drawing stays what it is."""

import os
import threading

import numpy as np
import pytest
import torch
from scipy import ndimage

from mcunc import birdwatch as bw
from mcunc import recorded
from mcunc.pretrained import load_network


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
