"""Points of a frame -> triangle mesh, dense depth, fragments."""
