"""Predict the class of your own photograph, with uncertainty and class activation maps."""

import os
import warnings
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from mcunc import cam, predictive
from mcunc._internal.checks import check_count
from mcunc._internal.deprecation import moved
from mcunc.data.images import black_bars, to_square

__all__ = ["PhotographPrediction", "predict_photograph", "read_photograph"]
__getattr__ = moved(
    __name__, {"Look": "photograph.PhotographPrediction", "look": "photograph.predict_photograph"}
)

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")  # none that runs a program
ORIENTATION = 0x0112  # of EXIF


@dataclass(frozen=True, eq=False)
class PhotographPrediction:
    """Predictions and maps of T passes of a network for one photograph.

    Attributes
    ----------
    probs : (K,) array, probabilities averaged over passes
    deviation : (K,) array, standard deviation of each probability over passes
    predictive_entropy, expected_entropy, mutual_information : float, in nats
    cls : int, the most probable class
    map : (h, w) array, class activation map of `cls` with dropout off
    maps : (T, h, w) array, class activation map of `cls` in each pass
    on_bars : float, fraction of the positive part of `map` that lies on black bars
    names : list of K str, the names of the classes

    Examples
    --------
    See `predict_photograph`.

    >>> from mcunc.photograph import PhotographPrediction
    >>> PhotographPrediction.__match_args__[:2]
    ('probs', 'deviation')
    """

    probs: np.ndarray
    deviation: np.ndarray
    predictive_entropy: float
    expected_entropy: float
    mutual_information: float
    cls: int
    map: np.ndarray
    maps: np.ndarray
    on_bars: float
    names: list

    def __str__(self):
        rows = [
            f"{self.names[i]:28} {self.probs[i]:5.0%} ± {self.deviation[i]:.0%}"
            for i in np.argsort(-self.probs)[:3]
        ]
        rows.append(
            f"entropy {self.predictive_entropy:.2f} nats of {np.log(len(self.probs)):.2f} at most: "
            f"{self.expected_entropy:.2f} within passes + {self.mutual_information:.2f} between"
        )
        return "\n".join(rows)


def read_photograph(source, size=224):
    """Read a photograph as network input: the central square, upright, in three colours.

    Transparent pixels become white, and so does the value 65535 in 16-bit images.  For a file with
    several pictures, such as an animation, the first is read.

    Parameters
    ----------
    source : path of a picture file, an open file, a Pillow image, or a uint8 array
        Arrays are (H, W, 3), grey (H, W), or (H, W, 4) with transparency.  Pictures have at most
        120 million pixels, JPEG files 178 million.
    size : int, height and width of the result in pixels, at most 1024

    Returns
    -------
    (3, size, size) uint8 array

    Raises
    ------
    ValueError
        For a source that is not a picture; the message names the file.
    FileNotFoundError
        If there is no such file.

    Examples
    --------
    >>> import numpy as np
    >>> from mcunc import photograph
    >>> photograph.read_photograph(np.zeros((300, 400, 3), np.uint8), size=224).shape
    (3, 224, 224)
    """
    size = check_count("size", size, maximum=1024)
    name = source if isinstance(source, (str, os.PathLike)) else f"this {type(source).__name__}"
    try:
        with warnings.catch_warnings():  # of sizes that to_square judges
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with _opened(source) as image:
                square = Image.fromarray(to_square(image, size))
                # Cameras write which way up a picture is.
                square.getexif()[ORIENTATION] = image.getexif().get(ORIENTATION, 1)
        return np.asarray(ImageOps.exif_transpose(square)).transpose(2, 0, 1)
    except FileNotFoundError:
        raise
    except UnidentifiedImageError as error:
        raise ValueError(
            f"source: {name} cannot be read as a photograph; it holds no {', '.join(FORMATS)}, "
            "whatever its name says (perhaps HEIC); open it in an image editor and save it as JPEG"
        ) from error
    except Exception as error:  # damage makes Pillow stumble in many ways
        raise ValueError(f"source: {name} cannot be read as a photograph ({error})") from error


def _opened(source):
    """A separate Pillow image, because reading a part of a JPEG changes it in place."""
    if isinstance(source, Image.Image):
        return source.copy()
    if isinstance(source, (str, os.PathLike)) or hasattr(source, "read"):
        return Image.open(source, formats=FORMATS)
    pixels = np.asarray(source)
    channels = pixels.shape[2:] if pixels.ndim > 1 and pixels.size else None
    if pixels.dtype != np.uint8 or channels not in ((), (3,), (4,)):
        kind = f"{pixels.shape} {pixels.dtype}"
        raise ValueError(f"pass (H, W, 3) uint8, channels last and 0 to 255, not {kind}")
    return Image.fromarray(pixels)


def predict_photograph(network, picture, names=None, draws=30, seed=0):
    """Predict one photograph with MC dropout, and map the evidence for the predicted class.

    Parameters
    ----------
    network : networks.ImageClassifier with dropout, such as `pretrained.fine_tuned`
    picture : (3, H, W) uint8 array from `read_photograph`; (1, H, W) for a grey-picture network
    names : sequence of K str, optional, names of the classes; by default their numbers
    draws : int, T, number of passes
    seed : int

    Returns
    -------
    PhotographPrediction

    Raises
    ------
    ValueError
        For a picture of another shape or type, a wrong number of names, or as `cam.sample_maps`.

    Examples
    --------
    >>> from mcunc import birdwatch, dropout, networks, photograph
    >>> network = dropout.with_dropout(networks.small_inception(classes=8), 0.05).eval()
    >>> picture = birdwatch.as_bytes(birdwatch.draw_birds(1, seed=0, eight_bit=True))[0]
    >>> seen = photograph.predict_photograph(network, picture, birdwatch.species_names(), draws=5)
    >>> seen.probs.shape, seen.maps.shape
    ((8,), (5, 8, 8))
    """
    picture = np.asarray(picture)
    if picture.ndim != 3 or picture.shape[0] not in (1, 3) or picture.dtype != np.uint8:
        raise ValueError("picture: expected (3, H, W) uint8; read_photograph(file) makes it")
    x = picture[None]
    maps = cam.sample_maps(network, x, "all", draws, seed=seed)[:, 0]  # (T, K, h, w)
    classes = maps.shape[1]
    names = [str(name) for name in (range(classes) if names is None else names)]
    if len(names) != classes:
        raise ValueError(f"names: expected {classes}, got {len(names)}")
    bias = cam.last_layer(network).bias.detach().cpu().numpy()
    samples = maps.mean(axis=(2, 3)) + bias  # the logits of the passes
    summary = predictive.summarise_classes(logits=samples[:, None])
    cls = int(summary.mean[0].argmax())
    (plain,), _ = cam.class_activation_maps(network, x, cls)
    evidence = cam.enlarge(plain, picture.shape[1:]).clip(0)
    bars = black_bars(x)[0]
    on_bars = float(evidence[bars].sum() / max(evidence.sum(), 1e-12))
    entropies = (
        float(summary.predictive_entropy[0]),
        float(summary.expected_entropy[0]),
        float(summary.mutual_information[0]),
    )
    mean, deviation = summary.mean[0], np.sqrt(summary.variance[0])
    return PhotographPrediction(
        mean, deviation, *entropies, cls, plain, maps[:, cls], on_bars, names
    )
