"""Making an evaluation: what is sampled, scored, perturbed and written. Its figures are `irl_core.evaluation`'s."""
