"""Checkpoints: safetensors and JSON, planned over boxes, never pickled.

What is on disk: names.py, manifest.py, index.py (which box is where), tensorfile.py (a rank's file), state.py. A save:
save.py (the door), write.py (all ranks together), pieces.py, report.py and tiling.py (what each wrote, and the proof
that it is whole), commit.py; background.py (beside training), room.py. A resume: directory.py (which checkpoint),
verify.py (is it sound), load.py and slices.py (into this layout's boxes).
"""
