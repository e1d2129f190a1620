"""Ids in, logits and chosen ids out: knows torch, not text."""
