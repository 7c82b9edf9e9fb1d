"""The way to the cloud: the uplink, lanes that each ask one question at a time, and the breaker that watches them."""

import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from offramp.environments.link_kernels import LinkArrays, down, round_trip_at
from offramp.environments.live import breaker as circuits
from offramp.environments.live.breaker import Breaker, Circuit
from offramp.environments.live.client import Client, CloudError
from offramp.environments.live.clock import Alarms, Clock
from offramp.environments.live.request import CLOUD, DOWN, FAILED, FULL, LATE, OPEN, Live
from offramp.environments.live.shaper import Slot, Uplink
from offramp.environments.live.wire import Reply, Request, WireError

LOOK_S = 1.0  # longest time that the cloud may take to say that it is well
POLL_S = 0.02
Transfer = tuple[float, float, float]  # bytes, ms of sending, ms of the round trip
Serve = Callable[[Live, int], bool]
Close = Callable[[Live, Transfer | None], None]


class Lanes:
    """Takes questions in order and answers each request with the cloud's answer, or says that there is none.

    Parameters
    ----------
    client
        The line to the cloud.
    exits, classes
        Of the network.
    link, clock
        The uplink from the clock's 0 on.
    breaker
        When the cloud counts as lost.
    lanes
        Questions that may be open at once.
    patience_ms
        From the end of sending to when a silent cloud has failed.
    serve
        Answers a request for a reason; False where it had its answer.
    close
        Is told when nothing more can happen to a request, and what its transfer showed.

    """

    def __init__(
        self,
        client: Client,
        *,
        exits: int,
        classes: int,
        link: LinkArrays,
        clock: Clock,
        breaker: Breaker,
        lanes: int,
        patience_ms: float,
        serve: Serve,
        close: Close,
    ) -> None:
        self._client, self._exits, self._classes = client, exits, classes
        self._link, self._clock, self._patience, self._most = link, clock, patience_ms, lanes
        self._serve, self._close = serve, close
        self._lock = threading.Lock()
        self._in_flight = 0
        self.late = 0
        self.faults: Counter[str] = Counter()
        self.uplink = Uplink(link, clock)
        self.circuit = Circuit(breaker, clock)
        self._alarms = Alarms(clock)
        self._pool = ThreadPoolExecutor(lanes, thread_name_prefix="offramp lane")
        self._looker = threading.Thread(target=self._look, name="offramp look", daemon=True)
        self._looker.start()

    def refusal(self, now: float) -> int:
        """Why no offload may be offered now: DOWN, OPEN or FULL of `WHY`; 0 where one may."""
        if down(self._link, now):
            return DOWN
        if not self.circuit.allows():
            return OPEN
        return FULL if self._in_flight >= self._most else 0

    def begin(self, live: Live, asked: Request, period: int, ready: float, latest: float) -> bool:
        """Send a question, which was admitted, as soon as the uplink lets it; False where the link is down.

        Parameters
        ----------
        live, asked
            The request, and what is to be sent for it.
        period
            In which the circuit admitted it.
        ready
            Now, ms.
        latest
            When the edge's own answer stands in for the cloud's, ms; inf = never for want of time.

        """
        body = asked.pack()
        data = self._client.head(len(body)) + body
        slot = self.uplink.reserve(ready, len(data))
        if slot is None:
            return False
        live.offered = True
        with self._lock:
            self._in_flight += 1
        if not live.sure and latest < float("inf"):
            self._alarms.at(latest, lambda: self._overdue(live))
        self._pool.submit(self._ask, live, asked, period, data, slot)
        return True

    def finish(self) -> None:
        """Wait for all answers that are still to come, and hang up."""
        self._pool.shutdown(wait=True)
        self._clock.ended.set()
        self._alarms.close()
        self._looker.join()
        self._client.close()

    def _overdue(self, live: Live) -> None:
        self._serve(live, LATE)

    def _ask(self, live: Live, asked: Request, period: int, data: bytes, slot: Slot) -> None:
        """Ask one question, in a lane of its own."""
        until = time.monotonic() + (slot.end - self._clock.now() + self._patience) / 1e3
        transfer = None
        try:
            raw = self._client.ask(lambda write: self._send(live, slot, write, data), until)
            reply = Reply.read(raw, asked, exits=self._exits, classes=self._classes)
            self.circuit.worked()
            trip = float(round_trip_at(self._link, slot.end))
            transfer = (float(slot.bytes), slot.end - slot.first, trip)
            self._clock.wait(self._clock.now() + trip)
            live.back = self._clock.now()
            heard = live.hear(float(reply.confidence[-1]), int(reply.prediction[-1]))
            if not heard or not (live.sure or self._serve(live, CLOUD)):
                with self._lock:
                    self.late += 1
        except (CloudError, WireError) as error:
            self.uplink.release(slot)
            self.circuit.failed(period)
            with self._lock:
                self.faults[str(error).split(":")[0]] += 1
        finally:
            with self._lock:
                self._in_flight -= 1
            if live.answer is None:
                self._serve(live, FAILED)
            self._close(live, transfer)

    def _send(self, live: Live, slot: Slot, write: Callable[[bytes], None], data: bytes) -> bool:
        def count(part: bytes) -> None:
            write(part)
            live.bytes += len(part)
            live.sending_ms = max(0.0, min(self._clock.now(), slot.end) - slot.first)

        sent = self.uplink.send(slot, count, data)
        if sent:
            live.sending_ms = slot.end - slot.first
        return sent

    def _look(self) -> None:
        """While the circuit is open, ask the cloud now and then whether it is well."""
        while not self._clock.ended.is_set():
            now = self._clock.now()
            if self.circuit.state != circuits.OPEN or now < self.circuit.look_at or down(self._link, now):
                self._clock.ended.wait(POLL_S)
            else:
                self.circuit.seen(self._client.alive(time.monotonic() + min(LOOK_S, self._patience / 1e3)))
