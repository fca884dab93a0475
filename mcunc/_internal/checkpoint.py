"""Checkpoints of training: a run that was killed goes on from the last, and from no other run's."""

from io import BytesIO
from pathlib import Path

import torch

from mcunc._internal.files import atomic_write


def save(path, run, network, optimiser, history):
    """Write the checkpoint; a kill or a full disk leaves the one before.

    Parameters
    ----------
    path : path, or None: nothing is written
    run : dict of numbers and strings, what tells this run from others
    network : torch.nn.Module
    optimiser : torch.optim.Optimizer
    history : list or dict of numbers and tensors, the state beside these two
    """
    if path is None:
        return
    state = {"network": network.state_dict(), "optimiser": optimiser.state_dict()}
    buffer = BytesIO()  # torch's own writing hides why a file cannot be written
    torch.save({"run": run, "history": history, **state}, buffer)
    with atomic_write(path) as part:
        part.write_bytes(buffer.getbuffer())


def resume(path, run, network, optimiser):
    """Load the checkpoint if there is one; returns its history, or an empty list.

    Raises
    ------
    ValueError
        Where it is damaged or of another run or network; these two are then as they were.
    """
    if path is None or not Path(path).exists():
        return []
    remedy = "delete it or name another file"
    wanted = {"setting": None} | run
    unknown = {key: run.get(key) for key in ("augment", "masks")}  # to those written before
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
        weights, steps, history = (saved[key] for key in ("network", "optimiser", "history"))
        found = {"setting": None} | unknown | saved["run"]
        found = {key: found[key] for key in wanted}
    except Exception as error:  # damage makes torch stumble in many ways, with advice that misleads
        raise ValueError(
            f"checkpoint: {path} is damaged or no checkpoint ({type(error).__name__}); {remedy}"
        ) from None
    for key, value in wanted.items():
        if found[key] != value:
            raise ValueError(
                f"checkpoint: {path} is of another {key} ({found[key]}, not {value}); {remedy}"
            )
    if _signature(weights) != _signature(network.state_dict()):
        raise ValueError(f"checkpoint: {path} is of another network; {remedy}")
    optimiser.load_state_dict(steps)
    network.load_state_dict(weights)
    return history


def _signature(state):
    """Names, shapes and types of a network's weights."""
    return {name: (value.shape, value.dtype) for name, value in state.items()}
