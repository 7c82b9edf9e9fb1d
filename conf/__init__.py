"""Names and numbers for Hydra: no logic."""
