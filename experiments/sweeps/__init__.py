"""Sweeps: many runs on many machines into one data set, which a sweep that was broken off goes on filling."""
