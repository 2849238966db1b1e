"""3D points -> colours: hash grids, MLP, their kernels, the box and the view code."""
