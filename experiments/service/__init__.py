"""The engine behind HTTP: worker processes that decide, one learner process that takes the feedback of all of them."""
