"""Models of two: an autoencoder, and a generator of its codes."""
