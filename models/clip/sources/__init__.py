"""How an input is to be read: names, kinds of files, streams, values of masks; repeated frames.

- ``naming`` - names with numbers in the order of the numbers
- ``listing`` - image files of a folder: frames, masks beside them, kinds that are not read
- ``streams`` - video streams of a file by ffmpeg's words, and their frame rates
- ``scenes`` - cuts, dissolves and wipes
- ``mask_values`` - which values of mask images move
- ``clip_size`` - frames and size of a clip without decoding it
- ``repeats`` - frames that repeat the one before
"""
