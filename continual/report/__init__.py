"""The report: what was gained, forgotten and paid, as data, page, terminal text, files and dashboard. Never trains."""
