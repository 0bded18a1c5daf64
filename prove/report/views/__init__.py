"""What a study says, as tables."""
