"""How candidates are timed, and what a row of the table looks like."""

import time

import numpy as np

PATIENCE, AT_LEAST, AT_MOST = 10, 8.0, 60.0  # rounds without progress; seconds for one row


def minimums(*candidates, at_most=AT_MOST):
    """Seconds that each callable takes at best: rounds until no minimum falls by 2 % any more."""
    best = [np.inf] * len(candidates)
    begin, unchanged = time.perf_counter(), 0
    while True:
        improved = False
        for i, candidate in enumerate(candidates):
            start = time.perf_counter()
            candidate()
            elapsed = time.perf_counter() - start
            improved |= elapsed < 0.98 * best[i]
            best[i] = min(best[i], elapsed)
        unchanged = 0 if improved else unchanged + 1
        spent = time.perf_counter() - begin
        if (unchanged >= PATIENCE and spent >= AT_LEAST) or spent >= at_most:
            break
    return best


def duration(seconds):
    """Three digits in the unit that suits."""
    return f"{seconds:.3g} s" if seconds >= 1 else f"{1000 * seconds:.3g} ms"


def megabytes(size):
    """Three digits, the size being in MB."""
    return f"{size:.3g} MB"


def row(what, ours, peer="", theirs=None, goal=None, times=None, most=None, show=duration):
    """One line of the table; a ratio above 1 says that the peer takes more.

    A goal is in seconds or, as `times`, the least ratio or, as `most`, how many times what the
    peer takes may be taken.
    """
    ratio = "" if theirs is None else f"{theirs / ours:,.{0 if theirs > 10 * ours else 2}f}"
    aim = met = ""
    if goal is not None:
        aim, met = f"≤ {goal:g} s", "yes" if ours <= goal else "no"
    elif times is not None:
        aim, met = f"≥ {times:g} ×", "yes" if theirs >= times * ours else "no"
    elif most is not None:
        aim, met = f"ours ≤ {most:g} × peer", "yes" if ours <= most * theirs else "no"
    peer = peer if theirs is None else f"{peer}: {show(theirs)}"
    return [what, show(ours), peer, ratio, aim, met]
