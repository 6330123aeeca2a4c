"""Backends: how a configuration becomes a policy, a discriminator and their encoders on a device."""
