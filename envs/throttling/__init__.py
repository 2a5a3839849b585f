"""ServeGym/Throttling-v0: who is let in, and who is served next, of many tenants in overload."""
