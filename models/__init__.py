"""spacelayer: one ordinary video -> a layered scene of triangle meshes with a neural colour field.

Letters in shapes: F frames, N points or tracks, V vertices, T triangles, S samples (pixels), H and W image
height and width, L levels of the hash grid.

Conventions. Camera axes are OpenCV's: x right, y down, z forward. Pixels are continuous and the centre of the
top-left pixel is (0.5, 0.5), as in COLMAP; OpenCV's own (0, 0) origin is converted at the call. Names say the
frames of reference: ``world_from_cam`` maps camera axes to world axes. Images are uint8 RGB, (H, W, 3).

Data flows one way: a file imports only files listed above it (``tests/test_layout.py`` reads this list):

errors, files, resources, reading, stages, images, frame_checks, frame_store, decoding, video_writer, video, cameras,
tracks_import, tracks, masks, optical_flow, lucas_kanade, sightings, flow_fields, flow_tracking, third_party,
pretrained, depth_models, sam2_masks, depth_fit, depth_prior, tracker_windows, tracker_cotracker3, tracker_tapir,
tracker_spatracker2, learned_trackers, tracking, rotation, triangulation, sharpening, colmap, mapping, known_cameras,
sfm, depth_points, depth_turning, imported, depth_movers, learned_inputs, small_motion, motion_evidence,
motion_background, blobs, motion_segments, motion, background, lifting, rigid, exposure, meshing, kernels_threads,
kernels_raster, rasterizer, kernels_stereo, stereo, kernels_simd, kernels_tile, kernels_reference, kernels_cpu,
kernels_adam, kernels_mlp, kernels_cuda, encoding, kernels_view, blending, tiles, local_maps, soft_masks, canonical,
viewpoints, world_box, pipeline, rendering, moving_mesh, moving, scene, tools, moving_pixels, refinement, checkpoints,
training, stabilization, trajectories, path_script, metrics, track_scores, plots, results, footage, world_mesh,
silhouettes, atlas, texture, mover_atlas, export_gltf, export_mesh, export_cameras, export, run_record, report_world,
figures, report_tables, report, key_frames, viewer_panel, viewer, clip_inputs, fitting, synthetic_textures,
synthetic_rays, synthetic_room, synthetic
"""
