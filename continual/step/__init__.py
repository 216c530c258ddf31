"""One update: its request, its spec, its plan, and the six parts that make a version of them."""
