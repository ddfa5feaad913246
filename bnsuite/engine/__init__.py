"""The engine: trains, searches and measures. It knows no scheme, no task and no file."""
