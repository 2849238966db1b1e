"""The frames' meshes -> one textured mesh of the world, and a texture of the movers.

- ``world_mesh`` - the frames' meshes joined to a mesh of the world
- ``silhouettes`` - faces added at the rims of near surfaces
- ``atlas`` - charts packed into a texture
- ``texture`` - the texture, baked and fitted to the frames
- ``mover_atlas`` - the movers' meshes in a texture
"""
