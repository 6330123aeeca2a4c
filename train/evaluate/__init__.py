"""Making an evaluation: what is sampled, scored, corrupted and written. Its figures are `irl_core.evaluation`'s."""
