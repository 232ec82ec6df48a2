"""Autoencoders and latent-variable models: data to codes, and codes to data."""
