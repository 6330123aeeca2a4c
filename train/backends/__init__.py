"""Backends: how a configuration becomes a policy, a discriminator and an encoder on a device."""
