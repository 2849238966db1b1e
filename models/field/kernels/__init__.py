"""Compiled loops of the colour field.

Files, in reading order:

- ``grid_kernels`` - the hash grid on the CPU
- ``mlp_kernels`` - the MLP on the CPU, forward and backward fused
- ``matrix_tile`` - a matrix product in vector registers
- ``vectors`` - vectors of 16 lanes for numba
- ``cuda_kernels`` - hash grid and Adam on CUDA
"""
