"""Tells where a pretrained image classifier looked."""
