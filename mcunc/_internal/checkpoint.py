"""Checkpoints of training: an interrupted run continues from its last, and from no other run's."""

from io import BytesIO
from pathlib import Path

import torch

from mcunc._internal.files import atomic_write

# Names of recipes and augmentations in records and checkpoints from before version 0.4.
RENAMED = {
    "drops": "lr_milestones",
    "halved": "half_resolution_fraction",
    "keep_statistics": "freeze_batchnorm",
}
_LATER = {"half_resolution_fraction": 0.0, "freeze_batchnorm": False}  # the first had none


def save(path, run, network, optimiser, history):
    """Write the checkpoint; if that is interrupted, the one before remains.

    Parameters
    ----------
    path : path, or None: nothing is written
    run : dict of numbers and strings that identify the run
    network : torch.nn.Module
    optimiser : torch.optim.Optimizer
    history : list or dict of numbers and tensors, the rest of the state
    """
    if path is None:
        return
    state = {"network": network.state_dict(), "optimiser": optimiser.state_dict()}
    buffer = BytesIO()  # torch's own writing hides why a file cannot be written
    torch.save({"run": run, "history": history, **state}, buffer)
    with atomic_write(path) as part:
        part.write_bytes(buffer.getbuffer())


def resume(path, run, network, optimiser):
    """Load the checkpoint if it exists; returns its history, or an empty list.

    Raises
    ------
    ValueError
        If it is damaged or of another run or network; these two stay as they were.
    """
    if path is None or not Path(path).exists():
        return []
    remedy = "delete it or name another file"
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
        weights, steps, history = (saved[key] for key in ("network", "optimiser", "history"))
        saved_run = _current_run(saved["run"])
    except Exception as error:  # damage makes torch stumble in many ways, with advice that misleads
        raise ValueError(
            f"checkpoint: {path} is damaged or no checkpoint ({type(error).__name__}); {remedy}"
        ) from None
    for key, value in run.items():
        if (other := saved_run.get(key)) != value:
            message = f"is of another {key} ({other}, not {value}); {remedy}"
            raise ValueError(f"checkpoint: {path} {message}")
    if _signature(weights) != _signature(network.state_dict()):
        raise ValueError(f"checkpoint: {path} is of another network; {remedy}")
    optimiser.load_state_dict(steps)
    network.load_state_dict(weights)
    return history


def _current_run(saved):
    """The identity in a checkpoint under today's names."""
    if isinstance(saved.get("recipe"), dict):
        saved["recipe"] = _LATER | {RENAMED.get(k, k): v for k, v in saved["recipe"].items()}
    if isinstance(saved.get("augment"), str):
        saved["augment"] = saved["augment"].replace("zoom_and_flip", "random_resized_crop")
    return saved


def _signature(state):
    """Names, shapes and types of a network's weights."""
    return {name: (value.shape, value.dtype) for name, value in state.items()}
