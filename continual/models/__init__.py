"""Model folders as sentence-transformers writes them: check, load, and read tensor by tensor."""
