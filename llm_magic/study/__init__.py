"""Activations to numbers: what a model computes of a text, layer by layer."""
