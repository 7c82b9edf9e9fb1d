"""The edge, for real: it quotes, asks the policy, computes up to the cut, answers or sends, and always answers once."""

import math
import queue
import sqlite3
import threading
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from offramp.bandits.contract import Decision, Observation, Quote
from offramp.bandits.policy import positive
from offramp.bandits.rows import ARM, CUT, EXITS, P_ACTION, FloatArray, context_at, set_rule, thresholds_at
from offramp.environments.link_estimate import push
from offramp.environments.link_kernels import LinkArrays, rate_at, round_trip_at
from offramp.environments.live.breaker import Breaker
from offramp.environments.live.client import Client
from offramp.environments.live.clock import Clock
from offramp.environments.live.lanes import Lanes, Transfer
from offramp.environments.live.parts import Decides, EdgeHalf, Pass
from offramp.environments.live.request import (
    CLOUD,
    DOWN,
    LATE,
    LOCAL,
    OPEN,
    ROOM,
    WHY,
    Answer,
    Live,
    prefix,
)
from offramp.environments.live.results import LiveRun
from offramp.environments.live.wire import REQUEST_BYTES, Request, stamp
from offramp.environments.timed.journal import Journal
from offramp.environments.timed.loop import admit
from offramp.environments.timed.offer import prices
from offramp.environments.timed.tables import ACCEPTED, BYTES, CLOCK, DROPPED, FIELDS, HEARD, Desk, Facts, Rounds

# What an engine may answer with when it cannot go on, a full disk among it: the edge then serves without it.
BROKEN = (ValueError, RuntimeError, OSError, sqlite3.Error)


class _Back(NamedTuple):
    """What came back: to be learnt, and what the transfer showed of the link."""

    of: Live
    seen: Observation | None
    ms: float
    transfer: Transfer | None


class Edge:
    """The edge's side of a network that is split for real.  One edge plays one run.

    Parameters
    ----------
    half
        The edge's half of the network.
    facts
        What the quote is made from, as `TimedWorld.facts` makes it.
    variants
        (split, codec) of each variant in the facts, in their order: `TimedWorld.variants`.
    link
        The uplink from the run's beginning on, laid out as for the simulator.
    estimate
        First estimate of the link.
    cloud, key
        The cloud's address, and what it asks for.
    deadline_ms
        Milliseconds from a request's arrival after which the best exit on the edge answers it in the cloud's place; inf
        = only `patience_ms` counts.
    patience_ms
        Milliseconds from the end of sending after which a silent cloud counts as failed, finite and > 0.
    margin_ms
        By so much the stand-in begins before the deadline, >= 0.
    slower
        How many times longer the edge shall take than this machine, >= 1: each part runs, and then the edge waits.
    buffer
        Requests that may wait at the edge, >= 0; None = any number.
    lanes
        Questions to the cloud that may be open at once, >= 1.  Beyond it no offload is offered.
    breaker
        When the cloud counts as lost.

    """

    def __init__(
        self,
        *,
        half: EdgeHalf,
        facts: Facts,
        variants: tuple[tuple[int, str], ...],
        link: LinkArrays,
        estimate: FloatArray,
        cloud: str,
        key: str | None = None,
        deadline_ms: float = math.inf,
        patience_ms: float = 2_000.0,
        margin_ms: float = 5.0,
        slower: float = 1.0,
        buffer: int | None = None,
        lanes: int = 32,
        breaker: Breaker | None = None,
    ) -> None:
        positive("patience_ms", patience_ms, zero=False)
        positive("margin_ms", margin_ms)
        if not deadline_ms > 0.0 or not 1.0 <= slower < math.inf or lanes < 1 or (buffer is not None and buffer < 0):
            raise ValueError(
                f"deadline_ms, slower, lanes, buffer are {(deadline_ms, slower, lanes, buffer)}, allowed are > 0, "
                f">= 1, >= 1, >= 0 or None"
            )
        exits = len(facts.edge[0]) - 1
        if half.exits != exits or len(variants) != facts.expected.shape[1]:
            raise ValueError(
                f"the half has {half.exits} exits and {len(variants)} variants are named, allowed are {exits} and "
                f"{facts.expected.shape[1]} as in the facts"
            )
        self._half, self._variants = half, variants
        self._client = Client(cloud, key)
        self._stamp = stamp(half.identity)
        expected = facts.expected.copy()
        expected[BYTES] += REQUEST_BYTES + len(self._client.head(99_999))  # a real question has a head
        self._facts = facts._replace(expected=expected)
        self._link = link
        self._deadline, self._patience, self._margin, self._slower = deadline_ms, patience_ms, margin_ms, slower
        self._most, self._breaker = lanes, Breaker() if breaker is None else breaker
        self._back: queue.SimpleQueue[_Back] = queue.SimpleQueue()
        self._learnt = self._refused = self._undecided = 0
        self._desk = _desk(facts, estimate, buffer)
        self._deliver: Callable[[Answer], None] = _nobody
        self._played = False

    def play(
        self,
        engine: Decides,
        rounds: Rounds,
        image: Callable[[int], npt.NDArray[np.uint8]],
        *,
        deliver: Callable[[Answer], None] | None = None,
        stop: threading.Event | None = None,
    ) -> LiveRun:
        """Play requests as they arrive.

        Parameters
        ----------
        engine
            Who decides and learns; this thread alone asks it.
        rounds
            The requests, as `TimedWorld.rounds` makes them.
        image
            The image of each request, (height, width, channels) uint8; asked for before it arrives.
        deliver
            Is given the one answer to each request, from whichever thread has it.
        stop
            Ends the run after the current request.

        Returns
        -------
        LiveRun
            Of the requests that were played.

        """
        if self._played:
            raise RuntimeError("this edge has played, allowed is one run for each")
        self._played = True
        self._deliver = _nobody if deliver is None else deliver
        self._pages = np.zeros((len(rounds.sample), len(FIELDS)))
        self._done: list[Live | None] = [None] * len(rounds.sample)
        self._learns = np.zeros(len(rounds.sample), dtype=np.bool_)
        self._clock = Clock()
        self._lanes = Lanes(
            self._client,
            exits=self._half.exits,
            classes=self._half.classes,
            link=self._link,
            clock=self._clock,
            breaker=self._breaker,
            lanes=self._most,
            patience_ms=self._patience,
            serve=self._serve,
            close=self._close,
        )
        played = 0
        try:
            for i in range(len(rounds.sample)):
                if stop is not None and stop.is_set():
                    break
                self._one(engine, rounds, i, image(i))
                played = i + 1
        except BaseException:
            self._clock.ended.set()
            raise
        finally:
            self._lanes.finish()
        self._learn(engine)
        seconds = self._clock.now() / 1e3
        return self._results(played, seconds)

    def _one(self, engine: Decides, rounds: Rounds, i: int, pixels: npt.NDArray[np.uint8]) -> None:
        desk, arrival = self._desk, float(rounds.arrival[i])
        self._clock.wait(arrival)
        if not admit(desk, arrival):
            self._pages[i, DROPPED] = 1.0
            self._deliver(Answer(i, -1, math.nan, 0, WHY[ROOM], math.nan, math.nan, -1, -1, -1, math.nan, False, -1))
            return
        image = self._half.start(pixels)
        start = self._clock.now()
        self._learn(engine)
        context, routed = self._routed(image)
        refusal = self._quote(start, start - arrival)
        decision, decided = self._decided(engine, context)
        self._turn = self._clock.now()
        at = int(rounds.sample[i]), int(rounds.condition[i])
        live = Live(i, *at, arrival, start, decision, image)
        live.edge_ms, live.refusal = routed, refusal or DOWN
        self._done[i] = live
        self._learns[i] = decided and rounds.lost[i] == 0
        self._carry_out(live)
        if len(desk.left):
            desk.left[int(desk.clock[ACCEPTED]) % len(desk.left)] = self._clock.now()
        desk.clock[ACCEPTED] += 1.0

    def _learn(self, engine: Decides) -> None:
        """Take in what is back."""
        while True:
            try:
                back = self._back.get_nowait()
            except queue.Empty:
                return
            if back.transfer is not None:
                push(self._desk.estimate, *back.transfer)
                self._desk.clock[HEARD] = max(self._desk.clock[HEARD], back.ms)
            if back.seen is None:
                continue
            try:
                self._learnt += engine.update(back.of.decision, back.seen) in (True, "counted")
            except BROKEN:
                self._refused += 1

    def _routed(self, image: Pass) -> tuple[FloatArray, float]:
        """What the router says, and the milliseconds that it took, stretched; none without a router."""
        began, entered = time.perf_counter(), self._clock.now()
        context = image.context()
        if not len(context):
            return context, 0.0
        spent = self._slower * 1e3 * (time.perf_counter() - began)
        if self._slower > 1.0:
            self._clock.wait(entered + spent)
        return context, spent

    def _quote(self, start: float, waited: float) -> int:
        """Prices into the row; why no offload is offered, 0 where one is."""
        desk, facts = self._desk, self._facts
        if start - desk.clock[HEARD] >= facts.probe_ms[0]:
            push(desk.estimate, rate_at(self._link, start), 1.0, round_trip_at(self._link, start))
            desk.clock[HEARD] = start
        refusal = self._lanes.refusal(start)
        prices(facts, desk, refusal != 0, waited, self._lanes.uplink.backlog(start))
        return refusal

    def _decided(self, engine: Decides, context: FloatArray) -> tuple[Decision, bool]:
        row = self._desk.row
        width = context_at(int(row[EXITS]))
        quote = Quote.__new__(Quote)
        quote.row = row[:width].copy()
        try:
            return engine.decide(quote, context if len(context) else None), True
        except BROKEN:
            self._undecided += 1
            own = quote.row.copy()
            exits = int(own[EXITS])
            set_rule(own, exits, -math.inf)
            own[ARM], own[P_ACTION] = -1.0, 1.0
            return Decision(own, -1, ""), False

    def _carry_out(self, live: Live) -> None:
        cut, exits = int(live.row[CUT]), len(live.truth)
        first, spent, routed = thresholds_at(exits), 0.0, live.edge_ms
        for j in range(cut):
            began = time.perf_counter()
            live.image.segment()
            if prefix(self._facts) or j == cut - 1 or live.row[first + j] < math.inf:
                live.truth[j], live.classes[j] = live.image.speak()
            spent += 1e3 * (time.perf_counter() - began)
            if not live.sure and live.truth[j] >= live.row[first + j]:
                live.sure = j + 1
                self._stretch(live, spent, routed)
                self._serve(live, LOCAL)
                if not live.decision.audit:
                    break
        self._stretch(live, spent, routed)
        if live.sure and (not live.decision.audit or cut == exits):
            self._close(live, None)
        else:
            self._offload(live, cut)

    def _stretch(self, live: Live, spent: float, routed: float) -> None:
        """Let the edge have taken `slower` times as long as this machine took to compute, the router's time besides."""
        if self._slower > 1.0:
            self._clock.wait(self._turn + self._slower * spent)
        live.edge_ms, live.computed = routed + self._slower * spent, self._clock.now()

    def _offload(self, live: Live, cut: int) -> None:
        live.variant = int(self._desk.chosen[cut])
        if live.variant < 0:
            return self._without(live, live.refusal)
        if not (period := self._lanes.circuit.admit()):
            return self._without(live, OPEN)
        began = time.perf_counter()
        payload = live.image.payload(self._variants[live.variant][1])
        live.coding_ms = self._slower * 1e3 * (time.perf_counter() - began)
        if self._slower > 1.0:
            self._clock.wait(live.computed + live.coding_ms)
        asked = Request(
            number=live.number, split=cut, network=self._stamp, payload=payload, expert=int(live.image.expert)
        )
        spare = self._margin + (float(self._facts.edge[0, 1] - self._facts.edge[0, 0]) if cut == 0 else 0.0)
        ready, latest = self._clock.now(), live.arrival + self._deadline - spare
        hopeless = ready >= latest and not live.sure
        if hopeless or not self._lanes.begin(live, asked, period, ready, latest):
            self._lanes.circuit.spared(period)
            live.edge_ms += live.coding_ms  # computed and coded in vain
            self._without(live, LATE if hopeless else DOWN)

    def _without(self, live: Live, why: int) -> None:
        """Go on without the cloud: an audit is left out, and what was to be offloaded is answered here."""
        if not live.sure:
            self._serve(live, why)
        self._close(live, None)

    def _serve(self, live: Live, why: int) -> bool:
        """Answer, unless it is answered."""
        if why not in (LOCAL, CLOUD) and live.answer is None and live.row[CUT] == 0.0:
            self._stand_in(live)
        answer = live.settle(why, self._clock.now())
        if answer is not None:
            self._deliver(answer)
        return answer is not None

    def _stand_in(self, live: Live) -> None:
        """Run the first exit, where the input itself was to be sent and nothing was evaluated."""
        with live.computing:
            if not math.isnan(live.truth[0]):
                return
            began = time.perf_counter()
            live.image.segment()
            said = live.image.speak()
            spent = 1e3 * (time.perf_counter() - began)
            self._clock.wait(self._clock.now() + (self._slower - 1.0) * spent)
            live.edge_ms += self._slower * spent
            live.truth[0], live.classes[0] = said

    def _close(self, live: Live, transfer: Transfer | None) -> None:
        """Nothing more can happen to this request: its page, and what it teaches."""
        live.write(self._pages[live.number], self._facts)
        assert live.answer is not None
        told = live.answer.why in (WHY[LOCAL], WHY[CLOUD]) and self._learns[live.number]
        seen = live.observation(self._facts) if told else None
        self._back.put(_Back(live, seen, self._clock.now(), transfer))

    def _results(self, played: int, seconds: float) -> LiveRun:
        answers = [live.answer if live is not None else None for live in self._done[:played]]
        return LiveRun(
            journal=Journal(self._pages[:played], 0, seconds),
            start_ms=np.array([math.nan if live is None else live.start for live in self._done[:played]]),
            served_ms=np.array([math.nan if a is None else a.served_ms for a in answers]),
            prediction=np.array([-1 if a is None else a.prediction for a in answers], dtype=np.int64),
            why=np.array([ROOM if a is None else WHY.index(a.why) for a in answers], dtype=np.int64),
            expert=np.array([-1 if a is None else a.expert for a in answers], dtype=np.int64),
            changes=list(self._lanes.circuit.changes),
            late=self._lanes.late,
            learnt=self._learnt,
            refused=self._refused,
            undecided=self._undecided,
            faults=dict(self._lanes.faults),
        )


def _nobody(answer: Answer) -> None:
    """Where nobody asks for the answers."""


def _desk(facts: Facts, estimate: FloatArray, buffer: int | None) -> Desk:
    none = np.zeros(0)
    return Desk(
        clock=np.zeros(CLOCK),
        estimate=estimate.copy(),
        waiting=np.zeros((0, 0)),
        left=np.zeros(0 if buffer is None else buffer + 1),
        chosen=np.zeros(len(facts.edge[0]), dtype=np.int64),
        row=facts.blank.copy(),
        seen=none,
        truth=none,
        classes=none,
        journal=np.zeros((0, len(FIELDS))),
    )
