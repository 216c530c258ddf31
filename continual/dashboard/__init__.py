"""The live dashboard: the report as a page on this machine, which follows a running update. It only reads."""
