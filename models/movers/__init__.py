"""Masks and tracks of movers -> canonical places, depth, and a mesh at any time."""
