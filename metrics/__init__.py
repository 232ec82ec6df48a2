"""What is measured: features in, numbers out. Nothing here knows of a family, only of capabilities."""
