"""What the commands print: one module per subject, on top of `console`."""
