"""The output directory of a run: its stages, their digests, the inputs they read."""
