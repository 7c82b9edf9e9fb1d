"""What a team deploys: an engine that loses nothing and counts nothing twice, and deciders in as many processes."""

from offramp.bandits.durable.deciders import Decider
from offramp.bandits.durable.engine import DurableEngine
from offramp.bandits.durable.ledger import Outcome
from offramp.bandits.durable.shadowing import Score
from offramp.bandits.durable.specs import arms_from_json, arms_to_json, policy_from_json, policy_to_json
from offramp.bandits.durable.store import StoreError
from offramp.bandits.durable.tickets import Ticket, TicketError, signing_key

__all__ = [
    "Decider",
    "DurableEngine",
    "Outcome",
    "Score",
    "StoreError",
    "Ticket",
    "TicketError",
    "arms_from_json",
    "arms_to_json",
    "policy_from_json",
    "policy_to_json",
    "signing_key",
]
