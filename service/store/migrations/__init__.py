"""The schema's history, one numbered revision each."""
