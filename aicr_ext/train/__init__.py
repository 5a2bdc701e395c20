"""Training: data, loop, and ``python -m aicr_ext.train``."""
