"""FastAPI: devices ask how deep to compute, and report what they saw, however late.  `uvicorn fastapi_app:app`"""

from contextlib import asynccontextmanager

from fastapi import FastAPI, responses

from offramp.bandits import Arms, ContractError, Observation, Quote, SplitEES
from offramp.bandits.durable import DurableEngine


@asynccontextmanager
async def lifespan(app):  # the engine belongs to one process: leave uvicorn's --workers at 1
    with DurableEngine("fastapi_app.db", SplitEES(threshold=0.8), arms=Arms.grid(exits=7)) as app.state.engine:
        yield


app = FastAPI(lifespan=lifespan)
app.add_exception_handler(ContractError, lambda request, error: responses.JSONResponse({"detail": str(error)}, 422))


@app.post("/decide")
def decide(edge_cost: list[float], offload_cost: list[float]):
    ticket = app.state.engine.decide(Quote(edge_cost=edge_cost, offload_cost=offload_cost, mu=1.0))
    return {"cut": ticket.cut, "threshold": max(ticket.threshold, 0.0), "token": ticket.token}


@app.post("/learn")  # the body holds the confidence of each exit, null where not computed
def learn(token: str, confidence: list[float | None], answered_at: int, offloaded: bool):
    seen = Observation(confidence=confidence, answered_at=answered_at, offloaded=offloaded)
    return app.state.engine.update(token, seen)
