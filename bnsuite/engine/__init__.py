"""Engine: trains networks, measures curvature and times; knows no scheme, no task and no file."""
