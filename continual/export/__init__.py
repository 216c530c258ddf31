"""A version for others: its folder, its model card, and its scores in mteb's form."""
