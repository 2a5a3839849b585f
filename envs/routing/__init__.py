"""ServeGym/Routing-v0: spaces, reset, step, observation, reward, viewer."""
