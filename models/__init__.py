"""spacelayer: one ordinary video -> a layered scene of triangle meshes with a neural colour field.

Letters in shapes: F frames, N points or tracks, V vertices, T triangles, S samples (pixels), H and W image
height and width, L levels of the hash grid.

Conventions. Camera axes are OpenCV's: x right, y down, z forward. Pixels are continuous and the centre of the
top-left pixel is (0.5, 0.5), as in COLMAP; OpenCV's own (0, 0) origin is converted at the call. Names say the
frames of reference: ``world_from_cam`` maps camera axes to world axes. Images are uint8 RGB, (H, W, 3).

Data flows one way: a file imports only files listed above it (``tests/test_layout.py`` reads this list):

errors, files, resources, reading, stages, images, frame_checks, frame_store, decoding, video_writer, video,
cameras, tracks_import, tracks, masks, optical_flow, lucas_kanade, flow_tracking, third_party, tracker_windows,
tracker_cotracker3, tracker_tapir, tracker_spatracker2, learned_trackers, tracking, rotation,
triangulation, sharpening, colmap, sfm, small_motion, motion_evidence, motion_background, motion_segments, motion,
lifting, exposure, meshing, kernels_threads, kernels_raster, rasterizer, kernels_simd, kernels_tile, kernels_reference,
kernels_cpu, kernels_adam, kernels_mlp, kernels_cuda, encoding, kernels_view, blending, tiles, canonical, pipeline,
moving, scene, tools, checkpoints, training, trajectories, metrics, track_scores, plots, results, export, report,
viewer, synthetic_textures, synthetic_rays, synthetic_room, synthetic
"""
