"""Objectives evaluated in as few passes over the logits as their mathematics allows, with gradients by hand."""
