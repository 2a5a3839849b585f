"""The simulator held against measurements of real engines: one module a kind of measurement."""
