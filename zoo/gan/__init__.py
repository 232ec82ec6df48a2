"""Generative adversarial networks: a generator learns from a discriminator that tells its data from the real."""
