"""The life of a version: created, scored, built again, dropped, compared. No step is decided here."""
