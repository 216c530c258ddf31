"""Reports on a workspace: gain, forgetting, OOD scores and costs, as data, text, a page, files and a dashboard."""
