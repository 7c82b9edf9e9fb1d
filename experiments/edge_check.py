"""Compares every (split, codec) pair, through the real cloud, with the whole network on the same image."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from offramp.environments.live.client import Client
from offramp.environments.live.wire import Reply, Request, stamp
from offramp.models.halves import EdgeNetwork, EdgePass

PATIENCE_S = 30.0


@dataclass(frozen=True, kw_only=True)
class Difference:
    """How far behind one (split, codec) pair the cloud's answers are from the whole network's.

    Parameters
    ----------
    split, codec
        The pair.
    bytes
        Mean payload.
    logits
        Largest difference of a logit, after both are shifted so that the largest is 0.
    confidence
        Mean difference of the confidence.
    agreement
        Share of images with the same class.

    """

    split: int
    codec: str
    bytes: float
    logits: float
    confidence: float
    agreement: float


def differences(
    half: EdgeNetwork, client: Client, variants: Sequence[tuple[int, str]], images: npt.NDArray[np.uint8]
) -> list[Difference]:
    """Ask the cloud, over an unshaped line, from every split with every codec.

    Raises
    ------
    CloudError, WireError
        The cloud does not answer, or not this.

    """
    found: list[list[tuple[int, float, float, bool]]] = [[] for _ in variants]
    for image in images:
        whole = half.start(image)
        whole.context()
        for _ in range(half.exits):
            whole.segment()
        logits, (confidence, guess) = whole.logits(), whole.speak()
        run = half.start(image)
        run.context()
        for split in range(half.exits):
            if split:
                run.segment()
            for v, (at, codec) in enumerate(variants):
                if at == split:
                    size, answer = _answer(half, client, run, split, codec)
                    assert answer.logits is not None
                    apart = np.abs((answer.logits[0] - answer.logits[0].max()) - (logits - logits.max()))
                    same = int(answer.prediction[0]) == guess
                    found[v].append((size, float(apart.max()), abs(float(answer.confidence[0]) - confidence), same))
    return [
        Difference(
            split=split,
            codec=codec,
            bytes=float(np.mean([row[0] for row in rows])),
            logits=float(np.max([row[1] for row in rows])),
            confidence=float(np.mean([row[2] for row in rows])),
            agreement=float(np.mean([row[3] for row in rows])),
        )
        for (split, codec), rows in zip(variants, found, strict=True)
    ]


def _answer(half: EdgeNetwork, client: Client, run: EdgePass, split: int, codec: str) -> tuple[int, Reply]:
    payload = run.payload(codec)
    asked = Request(
        number=0, split=split, network=stamp(half.identity), payload=payload, expert=run.expert, logits=True
    )
    body = asked.pack()

    def send(write: Callable[[bytes], None]) -> bool:
        write(client.head(len(body)) + body)
        return True

    raw = client.ask(send, time.monotonic() + PATIENCE_S)
    return len(payload), Reply.read(raw, asked, exits=half.exits, classes=half.classes)
