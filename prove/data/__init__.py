"""Datasets on disk: where they are, what they hold, whether they are sound, and the built-in SynthStreet. No torch."""
