"""What PROVE knows by name: models, datasets, label spaces, strategies, losses. Frozen data; no torch."""
