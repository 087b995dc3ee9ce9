"""The model and its mathematics; imports no other part and needs no web framework."""
