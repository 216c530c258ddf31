"""What a new version does to the vector index that an older one filled, and query maps that keep it usable."""
