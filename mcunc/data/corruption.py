"""Corrupt pictures by noise, blur or reduced contrast, at five severities."""

import numpy as np
from scipy.ndimage import gaussian_filter

from mcunc._internal.checks import check_choice, check_count

__all__ = ["STRENGTHS", "corrupt"]

# Strengths of CIFAR-10-C, severity 1 to 5: standard deviation of the noise (pixels in [0, 1]),
# of the blur (in pixels), and the factor of the contrast.
STRENGTHS = {
    "gaussian_noise": (0.04, 0.06, 0.08, 0.09, 0.10),
    "gaussian_blur": (0.4, 0.6, 0.7, 0.8, 1.0),
    "contrast": (0.75, 0.5, 0.4, 0.3, 0.15),
}


def corrupt(images, kind, severity, seed=0):
    """Corrupt pictures as CIFAR-10-C does.

    As in CIFAR-10-C, the result is rounded down to whole bytes.

    Parameters
    ----------
    images : (N, C, H, W) uint8 array
    kind : {"gaussian_noise", "gaussian_blur", "contrast"}
    severity : int, 1 to 5
    seed : int, for the noise

    Returns
    -------
    (N, C, H, W) uint8 array

    Raises
    ------
    ValueError
        For another kind or severity, or images of another shape or type.

    Notes
    -----
    Source: Hendrycks & Dietterich (2019), *Benchmarking neural network robustness to common
    corruptions and perturbations*, with their code's settings for CIFAR-10.

    Examples
    --------
    >>> import numpy as np
    >>> from mcunc.data.corruption import corrupt
    >>> picture = np.full((1, 3, 32, 32), 128, np.uint8)
    >>> noisy = [corrupt(picture, "gaussian_noise", severity).std() for severity in (1, 5)]
    >>> bool(noisy[0] < noisy[1])  # standard deviations of about 10 and 26 grey levels
    True
    """
    check_choice("kind", kind, tuple(STRENGTHS))
    strength = STRENGTHS[kind][check_count("severity", severity, 1, 5) - 1]
    rng = np.random.default_rng(check_count("seed", seed, minimum=0))
    pictures = isinstance(images, np.ndarray) and images.dtype == np.uint8 and images.ndim == 4
    if not (pictures and images.size):
        raise ValueError("images: expected a (N, C, H, W) numpy array of uint8, 0 to 255")
    x = images / 255
    if kind == "gaussian_noise":
        x = x + rng.normal(scale=strength, size=x.shape)
    elif kind == "gaussian_blur":
        x = gaussian_filter(x, sigma=(0, 0, strength, strength), mode="nearest")
    else:
        mean = x.mean(axis=(2, 3), keepdims=True)
        x = mean + strength * (x - mean)
    return (x.clip(0, 1) * 255).astype(np.uint8)
