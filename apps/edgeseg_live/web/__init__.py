"""The page that shows a running pipeline: server, limits, and the files the browser loads."""
