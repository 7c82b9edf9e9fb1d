"""Makes the facts of the world: networks with exits, training, distortions, extraction to a cache."""
