"""The reward over HTTP: one process, one model, requests batched as they come."""
