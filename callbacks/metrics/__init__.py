"""The arithmetic of evaluation: features in, numbers out. Nothing here knows of Lightning."""
