"""Independent references: plain NumPy, SciPy, pyproximal and skglm; no code of the library's own."""
