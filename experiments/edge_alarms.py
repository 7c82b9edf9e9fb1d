"""How often the change detectors inside a policy ring, read from its state after each piece of feedback."""

from typing import Any

from offramp.bandits import chain_ucb, two_window
from offramp.bandits.chain_ucb import ChainUCB
from offramp.bandits.contract import Decision, Observation, Quote
from offramp.bandits.durable import DurableEngine
from offramp.bandits.engine import Engine
from offramp.bandits.policy import Policy
from offramp.bandits.restarting import Restarting, alarms
from offramp.bandits.rows import FloatArray
from offramp.bandits.state import FREE

WINDOWS = (chain_ucb.CONFIDENCES, chain_ucb.RESIDUALS)


class Listened:
    """An engine, and the alarms of its policy since this was made.

    Parameters
    ----------
    engine
        Who decides and learns.
    policy
        Whose detectors are read: those of a `Restarting` or of a `ChainUCB`; of any other nothing is known.

    Notes
    -----
    `Restarting` counts its alarms.  `ChainUCB` does not, but each of its two pairs of windows is emptied when it rings,
    and only then: numbers that it holds grow fewer from one update to the next where it rang.  Both in one update count
    as one alarm, which they are.

    """

    def __init__(self, engine: Engine | DurableEngine, policy: Policy) -> None:
        self._engine, self._policy = engine, policy
        self.known = isinstance(policy, Restarting | ChainUCB)
        self.alarms = 0
        self._before = self._read() if self.known else []

    def decide(self, quote: Quote, context: Any = None) -> Decision:
        """As the engine decides."""
        return self._engine.decide(quote, context)

    def update(self, decision: Any, observation: Observation) -> Any:
        """As the engine learns."""
        counted = self._engine.update(decision, observation)
        if self.known:
            now = self._read()
            if isinstance(self._policy, Restarting):
                self.alarms += int(now[0] - self._before[0])
            else:
                self.alarms += any(n < b for n, b in zip(now, self._before, strict=True))
            self._before = now
        return counted

    def _read(self) -> list[float]:
        state: FloatArray = self._engine.state()
        if isinstance(self._policy, Restarting):
            return [float(alarms(state))]
        free = int(state[FREE])
        return [float(state[int(state[free + place]) + two_window.HELD]) for place in WINDOWS]
