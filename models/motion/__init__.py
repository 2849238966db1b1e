"""Tracks and static scene -> masks of moving objects, and the scene without them."""
