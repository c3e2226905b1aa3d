"""Reports that a person looks at: one self-contained HTML page with tables and pictures."""
