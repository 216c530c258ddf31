"""Executors: where trainings run that don't depend on each other. They know no workspace and open no catalog."""
