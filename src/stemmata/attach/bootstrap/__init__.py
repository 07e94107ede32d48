"""The folder that `stemmata run` puts on PYTHONPATH; nothing but a sitecustomize may lie in it."""
