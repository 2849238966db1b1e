"""Depth from outside, brought to the scene's scale and put to use."""
