"""The eight tasks of SuperGLUE: data, settings, the result's body."""
