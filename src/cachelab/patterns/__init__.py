"""Reference code to carry home: one pattern a file, each on one screen."""
