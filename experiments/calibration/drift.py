"""Streaming recalibration from the cloud's answers along the mixed stream: how honest one exit stays over time."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from offramp.bandits.kernel import compile_here
from offramp.bandits.recalibrate import StreamingCalibration, learn, recalibrated
from offramp.bandits.rows import FloatArray, IntArray
from offramp.environments import Stream, blocks
from offramp.environments.reliability import ece
from offramp.experiments.calibration.samples import PRISTINE, ROUTED, Caches, answering
from offramp.experiments.results import interval

WINDOWS = 48
Series = list[dict[str, Any]]


@compile_here
def _follow(
    state: FloatArray, confidence: FloatArray, agreed: FloatArray, chance: FloatArray, target: float, audits: float,
    said: FloatArray,
) -> None:  # fmt: skip
    """One pass: what is said of each sample before anything is learnt from it, (n,) into `said`."""
    for t in range(len(confidence)):
        said[t] = recalibrated(state, 0, confidence[t])
        # Its own confidence alone decides what is revealed, so that nothing is selected given it: propensity 1.
        if said[t] < target or chance[t] < audits:
            learn(state, 0, confidence[t], agreed[t], 1.0)


def over_time(
    caches: Caches, stream: Stream, *, exit_at: int, horizon: int, seeds: Sequence[int], target: float, audits: float
) -> Series:
    """Calibration error of one exit in windows of the stream, with and without streaming recalibration.

    Parameters
    ----------
    caches
        The test part under each calibration.
    stream
        What comes when.
    exit_at
        The exit that answers, 1..L-1; the last one is the cloud's.
    horizon, seeds
        Rounds of each run, and the runs that are pooled.
    target
        The exit answers from this confidence on; all else is sent, and shows whether the cloud agrees.
    audits
        Share of the answered that is sent as well, in [0, 1].

    Returns
    -------
    list
        For each system and calibration, streaming or not: at the end of each window the error against agreement with
        the cloud and against the label over all seeds, and confidence less accuracy with its interval over seeds.

    """
    last = list(caches)[-1]
    found: Series = []
    for system, calibration in ((PRISTINE, "raw"), (PRISTINE, last), (ROUTED, last)):
        runs = [_run(caches, stream, system, calibration, exit_at, horizon, seed) for seed in seeds]
        for streaming in (False, True):
            said = []
            for seed, (confidence, agreed, _) in zip(seeds, runs, strict=True):
                out = confidence.copy()
                if streaming:
                    chance = np.random.default_rng((seed, 7)).random(horizon)
                    _follow(StreamingCalibration().state, confidence, agreed, chance, target, audits, out)
                said.append(out)
            facts = {"system": system, "calibration": calibration, "streaming": streaming, "exit": exit_at}
            found.append(facts | _windows(np.array(said), *(np.array([r[k] for r in runs]) for k in (1, 2))))
    return found


def _run(
    caches: Caches, stream: Stream, system: str, calibration: str, exit_at: int, horizon: int, seed: int
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Confidence of the exit, whether the last one agrees, whether it is right; (horizon,) each."""
    cache = caches[calibration]
    places = np.array([cache.condition(name) for name in stream.conditions])
    parts = list(blocks(stream, samples=len(cache.label), horizon=horizon, seed=seed))
    sample = np.concatenate([b.sample for b in parts])
    at: IntArray = places[np.concatenate([b.condition for b in parts])]
    by_condition = {s: answering(cache, np.full(len(cache.label), s), system) for s in set(at.tolist())}
    expert = np.array([by_condition[s][i] for s, i in zip(at.tolist(), sample.tolist(), strict=True)])
    prediction = cache.prediction[at, expert, sample]
    return (
        np.ascontiguousarray(cache.confidence[at, expert, sample, exit_at - 1]),
        (prediction[:, exit_at - 1] == prediction[:, -1]).astype(np.float64),
        (prediction[:, exit_at - 1] == cache.label[sample]).astype(np.float64),
    )


def _windows(said: FloatArray, agreed: FloatArray, right: FloatArray) -> dict[str, Any]:
    """Series over windows from arrays (seeds, rounds)."""
    cuts = np.array_split(np.arange(said.shape[1]), WINDOWS)
    gaps = [interval((said[:, c] - right[:, c]).mean(axis=1).tolist()) for c in cuts]
    by_label = [float(ece(said[:, c].ravel(), right[:, c].ravel())) for c in cuts]
    by_cloud = [float(ece(said[:, c].ravel(), agreed[:, c].ravel())) for c in cuts]
    return {
        "round": [int(c[-1]) + 1 for c in cuts],
        "ece_label": by_label,
        "ece_cloud": by_cloud,
        "gap": [g["mean"] for g in gaps],
        "gap_half": [g["half"] for g in gaps],
        "mean_ece_label": float(np.mean(by_label)),
        "mean_ece_cloud": float(np.mean(by_cloud)),
        "seeds": said.shape[0],
        "window": len(cuts[0]),
    }
