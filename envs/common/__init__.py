"""What the environments share: batches of copies, named features, pictures of a fleet."""
