"""Makes checkpoints: data, training loop, evaluation, packaging."""
