"""Model folders as sentence-transformers writes them: checked, loaded, and read tensor by tensor."""
