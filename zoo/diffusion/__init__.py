"""Diffusion models, score models and flow matching: one corruption, one denoiser, three readings. And masks."""
