"""Asks the questions: Hydra programs that build, play, compare and report."""
